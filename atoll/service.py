"""The shell every program runs in: settings, signals, logs, the ready line, metrics, exit codes.

The first SIGTERM or SIGINT asks `main` to stop; the second, or `stop_grace_s` without an end, ends the process at
once. So does a broken invariant of a core, in an RPC or in a task nobody awaits: no clean-up may act on a state that
cannot be. One that `main` raises ends the process when `main` has unwound. Standard output carries one line,
`{"ready": ...}`; everything else is on stderr.

Exit codes: 0 asked to stop and did · 2 settings refused · 6 the world failed (ports, store) · 70 broken invariant or
defect · 124 did not stop in time · 130 second signal.
"""

import argparse
import asyncio
import gc
import inspect
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import structlog

from atoll import config, telemetry
from atoll.errors import AtollError, Invalid, InvariantBroken

EXIT_SETTINGS = 2
EXIT_UNREACHABLE = 6
EXIT_DEFECT = 70
EXIT_STUCK = 124
EXIT_SECOND_SIGNAL = 130

Settings = TypeVar("Settings")
log = structlog.get_logger()


class Stop:
    """Handed to `main`: tells when to stop, and takes the news that the program serves."""

    def __init__(self, program: str, metrics: str) -> None:
        self._program = program
        self._metrics = metrics
        self._asked = asyncio.Event()
        self.reason = ""

    def request(self, reason: str) -> None:
        """Asks the program to end in order. The first reason is kept."""
        self.reason = self.reason or reason
        self._asked.set()

    @property
    def requested(self) -> bool:
        return self._asked.is_set()

    async def wait(self) -> None:
        await self._asked.wait()

    def ready(self, *, people: str = "", programs: str = "") -> None:
        """Writes the one line on stdout that says where this program serves. Called once, when it does."""
        line = {"ready": self._program, "people": people, "programs": programs, "metrics": self._metrics}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def settings(program: str, cls: type[Settings], environment_prefix: str) -> Settings:
    """The command line of a program, `<program> --config FILE`, and its settings; exits with 2 when they are wrong.
    Its help is the docstring of `cls`, with the example in it."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=inspect.cleandoc(cls.__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML")
    path: Path | None = parser.parse_args().config
    try:
        return config.load(cls, path, environment_prefix)
    except Invalid as error:
        lines = [f"{program}: {error}", *(f"  {mistake.path}: {mistake.message}" for mistake in error.mistakes)]
        sys.stderr.write("\n".join(lines) + "\n")
        sys.exit(EXIT_SETTINGS)


def run(
    main: Callable[[Stop], Awaitable[None]],
    *,
    program: str,
    metrics: str = "",
    log_level: str = "info",
    stop_grace_s: float = 30.0,
) -> NoReturn:
    """Runs `main` until it ends, then exits. `metrics` is host:port of the Prometheus port; empty = none."""
    telemetry.start_logging(program, log_level)
    collect_less_often()
    try:
        port = telemetry.MetricsPort(metrics) if metrics else None
        code = asyncio.run(_supervise(main, Stop(program, port.address if port else ""), stop_grace_s))
        if port:
            port.close()
    except Exception as error:  # noqa: BLE001 - the top of a program: told once, in full, then the process ends
        code = _code_of(error)
    sys.stdout.flush()
    sys.exit(code)


def collect_less_often() -> None:
    """Cycles are rare here and small, what lives long is much: a leader's records. With Python's defaults the collector
    takes 5 % of a busy leader's time, most of it to look through those records again. The young are looked through in
    small portions, for meanwhile everything stands still."""
    gc.set_threshold(2_000, 5, 400)


async def _supervise(main: Callable[[Stop], Awaitable[None]], stop: Stop, stop_grace_s: float) -> int:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_stray_exception)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, stop, signal.Signals(number).name)
    running = asyncio.ensure_future(main(stop))
    asked = asyncio.ensure_future(stop.wait())
    await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    if not running.done():
        log.info("stopping", reason=stop.reason)
        await asyncio.wait({running}, timeout=stop_grace_s)
    if not running.done():
        log.error("did not stop in time", grace_s=stop_grace_s)
        os._exit(EXIT_STUCK)
    running.result()
    return 0


def _on_signal(stop: Stop, name: str) -> None:
    if stop.requested:
        os._exit(EXIT_SECOND_SIGNAL)
    stop.request(name)


def _on_stray_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception that nobody awaits: logged; a broken invariant ends the process here and now."""
    error = context.get("exception")
    log.error("stray exception", message=context.get("message", ""), exc_info=error)
    if isinstance(error, BaseException) and _contains_broken_invariant(error):
        os._exit(EXIT_DEFECT)


def _contains_broken_invariant(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_contains_broken_invariant, error.exceptions))
    return isinstance(error, InvariantBroken)


def _code_of(error: Exception) -> int:
    """Says why the program ends, and with which code."""
    leaves = _leaves(error)
    if all(isinstance(leaf, AtollError) for leaf in leaves):
        for leaf in leaves:
            told = {"mistakes": [str(m) for m in getattr(leaf, "mistakes", ())], "hint": getattr(leaf, "hint", "")}
            log.error("cannot go on", reason=str(leaf), **told)
        return EXIT_SETTINGS if isinstance(leaves[0], Invalid) else EXIT_UNREACHABLE
    log.critical("defect", exc_info=error)
    return EXIT_DEFECT


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
