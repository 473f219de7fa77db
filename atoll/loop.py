"""The one loop of every program: events in, `machine.handle`, commands out, then sleep until the next deadline.

Invariants: events are handled in the order posted, one at a time, and every command of one event is executed before
the next event is handled. Time handed to the machine never goes back. Nothing here decides anything: the machine does.
`execute` must not block and must not raise; what it starts comes back as posted events.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from atoll.clock import Clock
from atoll.errors import InvariantBroken

Event = TypeVar("Event")
Command = TypeVar("Command")
Event_contra = TypeVar("Event_contra", contravariant=True)
Command_co = TypeVar("Command_co", covariant=True)

BATCH_EVENTS = 256  # then the asyncio loop gets its turn, so that I/O is never starved by a flood of events
BATCH_MS = 50  # nor by a few that take long: the renewal of a lease waits for its turn too
LONGEST_SLEEP_S = 1.0  # asyncio's timers stand still while the machine is suspended; the clock does not


class Machine(Protocol[Event_contra, Command_co]):
    """A pure core: no I/O, no clock of its own."""

    def handle(self, event: Event_contra, now_ms: int) -> Sequence[Command_co]: ...

    def next_deadline(self) -> int | None:
        """The time (ms) at which `wake` is due, or None."""


class CoreLoop(Generic[Event, Command]):
    """Runs one machine. Used from one asyncio loop only. A broken invariant is told to the asyncio loop's exception
    handler, which ends the process (`atoll.service`), and leaves `run`.
    """

    def __init__(
        self, machine: Machine[Event, Command], clock: Clock, execute: Callable[[Command], None], wake: Event
    ) -> None:
        self._machine = machine
        self._clock = clock
        self._execute = execute
        self._wake = wake
        self._events: deque[Event] = deque()
        self._posted = asyncio.Event()

    def post(self, event: Event) -> None:
        """Queues `event`. Never waits; whoever produces events bounds them (sessions, plans in flight)."""
        self._events.append(event)
        self._posted.set()

    @property
    def backlog(self) -> int:
        """Events posted and not handled yet: what a program sheds load by."""
        return len(self._events)

    async def run(self) -> None:
        """Handles events until cancelled."""
        try:
            while True:
                self._posted.clear()
                self._drain()
                if self._events:
                    await asyncio.sleep(0)
                else:
                    await self._sleep()
        except InvariantBroken as broken:
            told = {"message": "the core is broken", "exception": broken}
            asyncio.get_running_loop().call_exception_handler(told)
            raise

    def _drain(self) -> None:
        """Handles one batch, and `wake` first if it is due: a flood of events cannot hold up a deadline, nor deadlines
        that are always due the events: one at least is handled."""
        due_ms, began_ms = self._machine.next_deadline(), self._clock.now_ms()
        if due_ms is not None and due_ms <= began_ms:
            self._handle(self._wake)
        for _ in range(min(BATCH_EVENTS, len(self._events))):
            self._handle(self._events.popleft())
            if self._clock.now_ms() >= began_ms + BATCH_MS:
                break

    def _handle(self, event: Event) -> None:
        for command in self._machine.handle(event, self._clock.now_ms()):
            self._execute(command)

    async def _sleep(self) -> None:
        due_ms = self._machine.next_deadline()
        if due_ms is None:
            await self._posted.wait()
            return
        # At least one tick of the clock, so that a machine that forgets to move its deadline cannot spin.
        delay_s = min(max(due_ms - self._clock.now_ms(), 1) / 1000, LONGEST_SLEEP_S)
        try:
            async with asyncio.timeout(delay_s):
                await self._posted.wait()
        except TimeoutError:
            pass
