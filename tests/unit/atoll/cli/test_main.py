"""Help, lazy loading and the texts that need no cluster."""

import contextlib
import importlib
import io
import itertools
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import pytest

from atoll import manifest
from atoll.cli import failure, output
from atoll.cli import main as cli
from atoll.cli.command import Command, Group
from tests.unit.atoll.cli.conftest import Run

HEAVY = ("grpc", "numpy", "cryptography", "rich", "yaml", "google.protobuf", "asyncio")
ROOT = Path(__file__).resolve().parents[4]


def commands() -> list[tuple[str, Any]]:
    """Every command of the tree with its path."""
    found: list[tuple[str, Any]] = []

    def walk(path: str, command: click.Command) -> None:
        found.append((path, command))
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                walk(f"{path} {name}", child)

    walk("atoll", cli.root)
    return found


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom atoll.cli.main import main\n"
        "try:\n main(['--help'])\nexcept SystemExit: pass\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert out.startswith("Examples:")
    assert out.endswith("LOADED []\n")


@pytest.mark.parametrize(("path", "command"), commands(), ids=lambda value: value if isinstance(value, str) else "")
def test_every_help_opens_with_three_examples(path: str, command: Any) -> None:
    assert isinstance(command, Command | Group)
    with click.Context(command, info_name=path) as context:
        text = command.get_help(context)
    assert text.startswith("Examples:\n")
    examples = [line for line in text.partition("Usage:")[0].splitlines()[1:] if line]
    assert len(examples) >= 3
    assert all(line.startswith("  ") and re.search(r"\batoll\b", line) for line in examples)
    assert any(f"{path} " in f"{line} ".replace("atoll get", path) for line in examples)
    assert command.help


def test_every_command_that_shows_or_changes_something_takes_o_alike() -> None:
    """A command that is not named here shows something, and takes every format."""
    changes = {"apply", "run", "scale", "job resume", "tenant create", "quota set", "quota protect"}
    changes |= {f"node {verb}" for verb in ("cordon", "uncordon", "drain", "label", "taint", "token revoke")}
    changes |= {f"region {verb}" for verb in ("cordon", "uncordon", "drain", "label")} | {"auth token revoke"}
    changes |= {f"policy {verb}" for verb in ("create", "promote", "canary", "rollback")}
    without = {"wait", "delete", "tenant delete", "node remove"}  # nothing is left to show
    without |= {"logs", "init", "completion", "node token create", "auth token create"}  # one text, as it is
    without |= {"dev", "demo", "auth login", "context set", "context use"}  # they tell what they do
    found = {path.removeprefix("atoll "): command for path, command in commands() if isinstance(command, Command)}
    assert changes | without <= found.keys()
    for path, command in found.items():
        choices = [
            tuple(it.type.choices) for it in command.params if isinstance(it.type, click.Choice) and "-o" in it.opts
        ]
        certificates = path.startswith("ca ")  # which write files, and name them
        wanted = [output.RESULTS] if path in changes else [] if path in without or certificates else [output.FORMATS]
        assert choices == wanted, path


@pytest.mark.parametrize("line", sorted({line.strip() for _, it in commands() for line in it.examples.splitlines()}))
def test_every_example_is_understood(line: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed down to its last option, and not run."""
    hello = (ROOT / "examples/hello.yaml").read_bytes()
    (home / "policy.yaml").write_bytes((ROOT / "examples/policy.yaml").read_bytes())
    for path in (home / "hello.yaml", home / "deploy/hello.yaml", home / "examples/hello.yaml"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(hello)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(hello)))
    words = shlex.split(re.split(r" {3,}", line.partition("<(")[2].rstrip(")") or line)[0])
    own = words[words.index("atoll") + 1 :]
    rest = list(itertools.takewhile(lambda word: word not in ("|", "<", ">", "&&"), own))
    command: Any = cli.root
    with contextlib.suppress(click.exceptions.Exit):  # of --version
        context = command.make_context("atoll", list(rest))
        while isinstance(command, click.Group):
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, list(rest), parent=context)


def test_every_name_in_the_table_exists() -> None:
    for section in cli.COMMANDS.values():
        for place, text in section.values():
            module, _, function = place.partition(":")
            assert hasattr(importlib.import_module(module), function)
            assert text


def test_a_misspelt_command_is_helped(atoll: Run) -> None:
    result = atoll("aply")
    assert result.code == 2
    assert "did you mean 'apply'?" in result.err
    assert result.out == ""


def test_without_a_context_it_says_what_to_do(atoll: Run) -> None:
    result = atoll("get", "workloads")
    assert result.code == 2
    assert "E1012" in result.err
    assert "Try   atoll dev" in result.err


class TestInit:
    def test_writes_the_example_and_overwrites_nothing(self, atoll: Run, home: Path) -> None:
        assert atoll("init").code == 0
        assert (home / "hello.yaml").read_text() == (ROOT / "examples/hello.yaml").read_text()
        assert atoll("init").code == 2

    def test_the_examples_are_manifests(self) -> None:
        for path in sorted((ROOT / "examples").glob("*.yaml")):
            assert manifest.parse(path.read_bytes(), path.name)


class TestMistakes:
    def test_in_a_manifest_show_before_anything_is_dialled(self, atoll: Run, home: Path) -> None:
        (home / "a.yaml").write_text("apiVersion: atoll/v1\nkind: Workload\nmetadata: {name: a}\nspec: {tsk: {}}\n")
        (home / "b.yaml").write_text("kind: [")
        result = atoll("apply", "-f", "a.yaml", "-f", "b.yaml")
        assert result.code == 2
        assert 'a.yaml:4:8: spec.tsk: unknown field, did you mean "task"?' in result.err
        assert "b.yaml:1:" in result.err

    def test_a_missing_file(self, atoll: Run) -> None:
        result = atoll("apply", "-f", "nowhere.yaml")
        assert (result.code, result.out) == (2, "")
        assert "nowhere.yaml cannot be read" in result.err

    @pytest.mark.parametrize(
        "arguments",
        [
            ("get", "unicorns"),
            ("get", "workloads", "-l", "a b"),
            ("why", "a/b/c/d"),
            ("logs", "a/b"),
            ("wait", "a", "--for", "happiness"),
            ("wait", "a", "--timeout", "soon"),
            ("scale", "a", "-3"),
            ("demo", "--regions", "2"),
            ("demo", "--once"),
            ("demo", "--simulated", "10", "--processes"),
        ],
    )
    def test_in_arguments(self, atoll: Run, arguments: tuple[str, ...]) -> None:
        result = atoll(*arguments)
        assert (result.code, result.out) == (2, "")
        assert result.err


class TestContexts:
    def test_set_use_list(self, atoll: Run) -> None:
        assert atoll("context", "set", "a", "--address", "a:1", "--ca", "ca.crt", "--token", "T").code == 0
        assert atoll("context", "set", "b", "--address", "b:1", "--tenant", "shop").code == 0
        assert atoll("context", "use", "a").code == 0
        listed = atoll("context", "list").out
        assert "*  a     a:1" in listed
        assert "shop" in listed
        assert atoll("context", "use", "c").code == 2


class TestAuthority:
    def test_init_and_issue(self, atoll: Run, home: Path) -> None:
        assert atoll("ca", "init", "--cluster", "test").code == 0
        issued = atoll("ca", "issue", "admin", "ann", "--into", "admin")
        assert issued.code == 0
        assert all(Path(line).exists() for line in issued.out.split())
        for kind in (("global", "g1"), ("region", "eu")):
            assert atoll("ca", "issue", *kind, "--host", "localhost", "--into", kind[0]).code == 0
        assert atoll("ca", "issue", "issuer", "eu", "--into", "issuer").code == 0
        assert atoll("ca", "init", "--cluster", "test").code == 2


def test_doctor_and_version_tell_what_is_here(atoll: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in atoll("version").out
    monkeypatch.setenv("ATOLL_ETCD", "/nowhere/etcd")
    result = atoll("doctor")
    assert result.code == 1
    assert "BAD" in result.out


class TestDev:
    def test_without_an_etcd_it_says_so_and_leaves_nothing(
        self, atoll: Run, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ATOLL_ETCD", "/nowhere/etcd")
        monkeypatch.setattr(tempfile, "tempdir", str(home))
        result = atoll("dev")
        assert result.code == 2
        assert "Error E1013" in result.err
        assert not list(home.glob("atoll-dev-*"))

    def test_once_wants_a_manifest(self, atoll: Run) -> None:
        assert atoll("dev", "--once").code == 2


class TestReference:
    """docs/cli.md says what there is, and no more."""

    def test_every_command_is_in_it(self) -> None:
        text = (ROOT / "docs/cli.md").read_text()
        for section in cli.COMMANDS.values():
            for name in section:
                assert f"`atoll {name}" in text, name

    def test_the_exit_codes_are_those_of_the_program(self) -> None:
        rows = (ROOT / "docs/cli.md").read_text().partition("## Exit codes")[2].partition("## Environment")[0]
        listed = {int(line.split("|")[1]) for line in rows.splitlines() if line[2:3].isdigit()}
        codes = {value for name, value in vars(failure).items() if name.startswith("EXIT_")}
        assert listed == codes | {0}
