"""The core loop: order, deadlines, fairness, and what ends it."""

import asyncio
from collections.abc import Sequence

import pytest

from atoll.errors import InvariantBroken, require
from atoll.loop import BATCH_EVENTS, BATCH_MS, CoreLoop

WAIT_S = 10.0


class ManualClock:
    def __init__(self) -> None:
        self.ms = 1_000

    def now_ms(self) -> int:
        return self.ms


class Recorder:
    """A machine that echoes what it is told, twice, and wants to be woken when told `at <ms>`."""

    def __init__(self) -> None:
        self.handled: list[tuple[str, int]] = []
        self.deadline: int | None = None

    def handle(self, event: str, now_ms: int) -> Sequence[str]:
        self.handled.append((event, now_ms))
        if event == "wake":
            self.deadline = None
        elif event.startswith("at "):
            self.deadline = int(event.removeprefix("at "))
        require(event != "broken", "I1 two bindings of one slot")
        return [f"{event}.1", f"{event}.2"]

    def next_deadline(self) -> int | None:
        return self.deadline


class Running:
    """A loop in a task; `until` waits for a command."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.machine = Recorder()
        self.commands: list[str] = []
        self._news = asyncio.Event()
        self.loop: CoreLoop[str, str] = CoreLoop(self.machine, self.clock, self._execute, "wake")
        self.task = asyncio.ensure_future(self.loop.run())

    def _execute(self, command: str) -> None:
        self.commands.append(command)
        self._news.set()

    async def until(self, command: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while command not in self.commands:
                self._news.clear()
                await self._news.wait()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


async def test_events_and_commands_keep_their_order() -> None:
    running = Running()
    for number in range(3 * BATCH_EVENTS):
        running.loop.post(str(number))
    assert running.loop.backlog == 3 * BATCH_EVENTS
    await running.until(f"{3 * BATCH_EVENTS - 1}.2")
    assert running.commands == [f"{n}.{part}" for n in range(3 * BATCH_EVENTS) for part in (1, 2)]
    assert running.loop.backlog == 0
    await running.end()


async def test_an_event_posted_by_a_command_is_handled_after_its_cause() -> None:
    clock, machine, seen = ManualClock(), Recorder(), asyncio.Event()

    def execute(command: str) -> None:
        if command == "first.1":
            loop.post("second")
        if command == "second.2":
            seen.set()

    loop: CoreLoop[str, str] = CoreLoop(machine, clock, execute, "wake")
    loop.post("first")
    loop.post("other")
    task = asyncio.ensure_future(loop.run())
    await asyncio.wait_for(seen.wait(), WAIT_S)
    task.cancel()
    assert [event for event, _ in machine.handled] == ["first", "other", "second"]


async def test_it_wakes_the_machine_at_its_deadline_and_once() -> None:
    running = Running()
    running.loop.post("at 1050")
    await running.until("at 1050.2")
    running.clock.ms = 1_050
    await running.until("wake.2")
    running.loop.post("after")
    await running.until("after.2")
    assert running.machine.handled == [("at 1050", 1_000), ("wake", 1_050), ("after", 1_050)]
    await running.end()


async def test_it_does_not_wake_before_the_clock_says_so() -> None:
    """asyncio's timer may fire when the clock has not come so far: then it sleeps on."""
    running = Running()
    running.loop.post("at 1010")
    await running.until("at 1010.2")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running.until("wake.1"), 0.1)
    running.clock.ms = 1_010
    await running.until("wake.1")
    await running.end()


async def test_a_flood_of_events_holds_up_neither_a_deadline_nor_other_tasks() -> None:
    running = Running()
    running.loop.post("at 1001")
    for _ in range(10 * BATCH_EVENTS):
        running.loop.post("flood")
    running.clock.ms = 1_002
    await asyncio.sleep(0)  # the loop's first turn
    assert running.loop.backlog > 0, "the flood was handled in one turn: other tasks were starved"
    await running.until("wake.1")
    assert running.loop.backlog > 0, "the deadline had to wait for the whole flood"
    await running.end()


async def test_a_wake_that_is_always_due_and_takes_long_holds_up_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running()

    def slow(event: str, now_ms: int) -> Sequence[str]:
        running.clock.ms += BATCH_MS
        running.machine.deadline = 0
        return [event]

    monkeypatch.setattr(running.machine, "handle", slow)
    running.machine.deadline = 0
    running.loop.post("event")
    await running.until("event")
    await running.end()


async def test_a_few_events_that_take_long_do_not_starve_other_tasks() -> None:
    running = Running()

    def slow(event: str, now_ms: int) -> Sequence[str]:
        running.clock.ms += BATCH_MS
        return [event]

    running.machine.handle = slow  # type: ignore[method-assign]
    for _ in range(3):
        running.loop.post("slow")
    for left in (2, 1, 0):
        await asyncio.sleep(0)
        assert running.loop.backlog == left
    await running.end()


async def test_a_broken_invariant_leaves_and_nothing_is_handled_after_it() -> None:
    running, told = Running(), []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    for event in ("fine", "broken", "never"):
        running.loop.post(event)
    with pytest.raises(InvariantBroken, match="I1"):
        await asyncio.wait_for(running.task, WAIT_S)
    assert [event for event, _ in running.machine.handled] == ["fine", "broken"]
    assert running.commands == ["fine.1", "fine.2"]
    assert told == [running.task.exception()]
