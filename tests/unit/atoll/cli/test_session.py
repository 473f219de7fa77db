"""Mistakes that a server tells by the request's path are shown by what was typed."""

import click
import pytest

from atoll.cli.auth import auth
from atoll.cli.nodes import node
from atoll.cli.session import _as_given


def command(group: click.Group, *names: str) -> click.Command:
    found: click.Command = group
    for name in names:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


@pytest.mark.parametrize(
    ("verb", "path", "shown"),
    [
        (command(node, "token", "create"), "ttl_s", "--ttl"),
        (command(node, "token", "create"), "labels[0]", "--label"),
        (command(node, "token", "create"), "pool", "--pool"),
        (command(auth, "token", "create"), "tenant", "--for-tenant"),
        (command(auth, "token", "create"), "name", "NAME"),
        (command(auth, "token", "create"), "spec.role", "spec.role"),
        (command(auth, "token", "create"), "elsewhere", "elsewhere"),
    ],
)
def test_a_mistake_is_named_by_its_flag(verb: click.Command, path: str, shown: str) -> None:
    with click.Context(verb):
        assert _as_given(path) == shown


def test_outside_of_a_command_the_path_stays() -> None:
    assert _as_given("ttl_s") == "ttl_s"
