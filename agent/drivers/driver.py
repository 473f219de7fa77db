"""What runs replicas: the protocol that every driver keeps, proved by one contract suite (tests/contracts/drivers).

A driver does what it is told and says what happened; it never restarts anything by itself. Everything it runs outlives
the agent and is found again by `adopt`. For each start it answers once: started or start failed; before that it may say
what the answer waits for. A started run ends with exactly one notice: exited when it ended by itself, stopped when
`stop` was asked before its end was seen. Both mean that nothing of the run is alive.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.core.events import DriverDelayed, DriverExited, DriverStarted, DriverStartFailed, DriverStopped
from agent.core.runs import Found, RunName
from atoll.api.v1 import objects_pb2
from atoll.model.slots import SlotName

Notice = DriverDelayed | DriverStarted | DriverStartFailed | DriverExited | DriverStopped
Notify = Callable[[Notice], None]


@dataclass(frozen=True, slots=True)
class RunSpec:
    """All a driver needs to run one attempt. `environment` holds the ATOLL_* names already."""

    task: objects_pb2.Task
    environment: tuple[tuple[str, str], ...]
    gpus: tuple[int, ...] = ()  # numbers of the devices it holds


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the output of a slot's newest run, to read on from. A new run makes it start anew."""

    file: int = 0
    offset: int = 0


class Driver(Protocol):
    def adopt(self) -> Sequence[Found]:
        """Every run of this node; those alive will be noticed when they end. Called once, before any start."""

    def start(self, run: RunName, spec: RunSpec) -> None:
        """Begins to start it. A name may be started again when its run has ended."""

    def stop(self, run: RunName, grace_ms: int) -> None:
        """SIGTERM now, SIGKILL after `grace_ms`. A second call does nothing; so does one for a run that has ended."""

    async def logs(self, slot: SlotName, tail_lines: int, after: Cursor | None = None) -> tuple[bytes, Cursor]:
        """What the slot's newest run wrote, as far as it is kept: the last lines, or what came after `after`.

        Raises Unavailable when it cannot be read for now."""

    async def exec_check(self, run: RunName, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
        """Runs `command` beside the run, with its environment, and ends it when it is late: (exit code was 0, what was
        wrong). Raises Unavailable when that cannot be done for now."""

    def close(self) -> None:
        """Lets go of everything and stops nothing."""
