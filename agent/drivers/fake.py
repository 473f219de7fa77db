"""Runs nothing, exactly as told: a node's runs in virtual time, for the simulator and for load tests.

Deterministic: what a run does is asked of `behave` when it starts, and happens in `advance`, in order of time and then
of asking. The runs live here, not in the agent: `attach` gives them to the next agent after a crash of the first.
"""

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from agent.core.events import DriverExited, DriverStarted, DriverStartFailed, DriverStopped
from agent.core.runs import Exit, Found, RunName
from agent.drivers.driver import Cursor, Notice, Notify, RunSpec
from atoll.clock import Clock
from atoll.model.slots import SlotName

PUMP_S = 0.02


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one start does. Times in ms after the start, or after the signal."""

    start_ms: int = 1
    fails: str = ""  # why it does not start
    runs_ms: int | None = None  # until it ends by itself; None = for ever
    code: int = 0
    term_ms: int | None = 1  # from SIGTERM to its end; None = it ignores SIGTERM
    kill_ms: int = 1
    output: bytes = b""
    check: tuple[bool, str] = (True, "")


class _Phase(Enum):
    STARTING = 1
    RUNNING = 2
    ENDED = 3


@dataclass(slots=True)
class _Run:
    behaviour: Behaviour
    phase: _Phase = _Phase.STARTING
    started_ms: int = 0
    stopping: bool = False
    exit: Exit | None = None


class FakeDriver:
    """`now_ms` only moves in `advance`."""

    def __init__(self, notify: Notify, behave: Callable[[RunName, RunSpec], Behaviour], now_ms: int = 0) -> None:
        self._notify = notify
        self._behave = behave
        self._now_ms = now_ms
        self._runs: dict[RunName, _Run] = {}
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._asked = 0

    def attach(self, notify: Notify) -> None:
        """Another agent process has taken over the node."""
        self._notify = notify

    def advance(self, now_ms: int) -> None:
        """Everything up to and including `now_ms` happens."""
        while self._due and self._due[0][0] <= now_ms:
            self._now_ms, _, happen = heapq.heappop(self._due)
            happen()
        self._now_ms = max(self._now_ms, now_ms)

    def next_deadline(self) -> int | None:
        return self._due[0][0] if self._due else None

    @property
    def alive(self) -> tuple[RunName, ...]:
        """What exists on the node, for checkers."""
        return tuple(sorted(name for name, run in self._runs.items() if run.phase is not _Phase.ENDED))

    def adopt(self) -> Sequence[Found]:
        return [Found(name, run.exit, run.started_ms) for name, run in sorted(self._runs.items())]

    def start(self, run: RunName, spec: RunSpec) -> None:
        state = self._runs[run] = _Run(self._behave(run, spec))
        self._later(state.behaviour.start_ms, lambda: self._started(run, state))

    def stop(self, run: RunName, grace_ms: int) -> None:
        state = self._runs.get(run)
        if state is None or state.phase is _Phase.ENDED or state.stopping:
            return
        state.stopping = True
        if state.behaviour.term_ms is not None and state.behaviour.term_ms <= grace_ms:
            self._later(state.behaviour.term_ms, lambda: self._end(run, state, 143))
        else:
            self._later(grace_ms + state.behaviour.kill_ms, lambda: self._end(run, state, 137))

    def kill(self, run: RunName) -> None:
        """As the guard process would, or a user of the node."""
        if state := self._runs.get(run):
            self._end(run, state, 137)

    async def logs(self, slot: SlotName, tail_lines: int, after: Cursor | None = None) -> tuple[bytes, Cursor]:
        runs = [run for run in self._runs if run.slot == slot]
        if not runs:
            return b"", Cursor()
        output = self._runs[max(runs)].behaviour.output
        rest = output[after.offset :] if after else b"".join(output.splitlines(keepends=True)[-tail_lines:])
        return rest, Cursor(1, len(output))

    async def exec_check(self, run: RunName, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
        state = self._runs.get(run)
        return state.behaviour.check if state and state.phase is _Phase.RUNNING else (False, "it does not run")

    def close(self) -> None:
        self._notify = _ignore

    def _started(self, name: RunName, run: _Run) -> None:
        if run.phase is not _Phase.STARTING:
            return
        if run.behaviour.fails:
            del self._runs[name]
            self._notify(DriverStartFailed(name, run.behaviour.fails))
            return
        run.phase, run.started_ms = _Phase.RUNNING, self._now_ms
        self._notify(DriverStarted(name))
        if run.behaviour.runs_ms is not None:
            self._later(run.behaviour.runs_ms, lambda: self._end(name, run, run.behaviour.code))

    def _end(self, name: RunName, run: _Run, code: int) -> None:
        if run.phase is _Phase.ENDED:
            return
        run.phase = _Phase.ENDED
        run.exit = Exit(code, "Completed" if code == 0 else "Failed", "", self._now_ms)
        self._notify(DriverStopped(name, run.exit) if run.stopping else DriverExited(name, run.exit))

    def _later(self, after_ms: int, happen: Callable[[], None]) -> None:
        self._asked += 1
        heapq.heappush(self._due, (self._now_ms + after_ms, self._asked, happen))


def obedient(run: RunName, spec: RunSpec) -> Behaviour:
    """`sleep SECONDS` ends by itself after so long; everything else runs until it is stopped."""
    match list(spec.task.command):
        case ["sleep", seconds] if seconds.replace(".", "", 1).isdecimal():
            return Behaviour(runs_ms=round(float(seconds) * 1000))
    return Behaviour()


def _ignore(notice: Notice) -> None:
    """Of an agent that has let go."""


async def pump(driver: FakeDriver, clock: Clock) -> None:
    """Moves the fake's time with the clock, for a node of a load test. Until cancelled."""
    while True:
        driver.advance(clock.now_ms())
        await asyncio.sleep(PUMP_S)
