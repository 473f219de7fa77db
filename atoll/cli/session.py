"""From a command to a server: the options every such command has, and the event loop it runs in."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import click

from atoll import errors

REACH_S = 4.0  # somebody is waiting for the answer
UNREACHED = (
    "see `atoll context list`; a token is for the port for people (7070), a certificate for the other one (7071)"
)
OF_A_WORKLOAD = ("atoll get slots ", "atoll get workload ", "atoll job runs ", "atoll wait ", "atoll why ")  # advice


def connected(verb: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Makes a command of `async def verb(client, …)`: adds --context and --tenant, and dials."""

    @click.option("--context", default="", metavar="NAME", help="Which cluster, see `atoll context list`.")
    @click.option("-t", "--tenant", default="", metavar="NAME", help="Instead of the context's tenant.")
    @functools.wraps(verb)
    def command(context: str, tenant: str, **arguments: Any) -> None:
        from atoll.sdk.client import AsyncClient

        async def run() -> None:
            async with AsyncClient(context=context, tenant=tenant, reach_s=REACH_S) as client:
                await verb(client, **arguments)

        try:
            asyncio.run(run())
        except errors.AtollError as error:
            error.mistakes = tuple(replace(m, path=_as_given(m.path)) for m in error.mistakes)
            if isinstance(error, errors.Unavailable) and error.code == "E5002":
                error.hint = error.hint or UNREACHED
            if tenant and error.hint.startswith(OF_A_WORKLOAD) and " -t " not in error.hint:
                error.hint += f" -t {tenant}"
            error.__traceback__ = error.__context__ = error.__cause__ = None  # they keep the channel: exit takes 2 s
            raise

    return command


def _as_given(path: str) -> str:
    """The option or argument of this command that `path` of the request came from; else `path` itself."""
    word = path.partition("[")[0].removesuffix("_s")
    if context := click.get_current_context(silent=True):
        for name in (f"for_{word}", word, f"{word}s"):
            for parameter in context.command.params:
                if parameter.name == name and "." not in path:
                    return parameter.opts[0] if isinstance(parameter, click.Option) else name.upper()
    return path


class Seconds(click.ParamType[float]):
    """`30s`, `5m` or a bare number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from atoll.manifest import scalars

        if isinstance(value, float):
            return value
        try:
            bare = value.replace(".", "", 1).isdecimal()
            return float(value) if bare else scalars.parse_duration(value, "_ms") / 1000
        except scalars.ScalarError as error:
            self.fail(str(error), param, ctx)


class SlotReference(click.ParamType[tuple[str, str, int]]):
    """NAME, NAME/INDEX or NAME/TASK/INDEX as (workload, task, index); index -1 = all."""

    name = "slot"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str, int]:
        if isinstance(value, tuple):
            return value
        workload, *rest = value.split("/")
        index = rest.pop() if rest else "-1"
        numeric = index == "-1" or (index.isascii() and index.isdecimal() and len(index) < 10)
        if not workload or not numeric or len(rest) > 1:
            self.fail(f"{value!r} is not NAME, NAME/INDEX or NAME/TASK/INDEX", param, ctx)
        return workload, rest[0] if rest else "", int(index)
