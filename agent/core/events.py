"""What may happen to an agent. Frozen; proto messages inside are never mutated."""

from dataclasses import dataclass

from agent.core.fencing import Saved
from agent.core.lease import LeaseTerms
from agent.core.runs import Exit, Found, RunName
from atoll.api.v1 import agent_pb2, objects_pb2


@dataclass(frozen=True, slots=True)
class Booted:
    """Always the first event. `saved` is None on a new node and when the checkpoint was lost or corrupt.

    `found`: every run of this node the drivers know of. `terms`: of the lease, as the guard has them; None
    when they are not known.
    """

    saved: Saved | None
    incarnation: int
    found: tuple[Found, ...]
    terms: LeaseTerms | None


@dataclass(frozen=True, slots=True)
class Connected:
    """A stream to a candidate for the region's leadership is open, perhaps beside others. Session numbers rise."""

    session: int


@dataclass(frozen=True, slots=True)
class RegionSaid:
    session: int
    message: agent_pb2.RegionMessage


@dataclass(frozen=True, slots=True)
class Disconnected:
    session: int


@dataclass(frozen=True, slots=True)
class CheckpointWritten:
    """The checkpoint of this version survives a crash from now on."""

    version: int


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class StorageTested:
    """Whether a checkpoint could be written now: why not, or nothing."""

    failure: str


@dataclass(frozen=True, slots=True)
class DriversOffered:
    """What this node can run from now on, sorted."""

    drivers: tuple[objects_pb2.Driver.ValueType, ...]


@dataclass(frozen=True, slots=True)
class ImagesHeld:
    """The container images that are here, sorted."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DriverDelayed:
    """The start was not answered yet. For people; the answer comes."""

    run: RunName
    reason: str


@dataclass(frozen=True, slots=True)
class DriverStarted:
    run: RunName


@dataclass(frozen=True, slots=True)
class DriverStartFailed:
    """Nothing of the run exists."""

    run: RunName
    reason: str


@dataclass(frozen=True, slots=True)
class DriverExited:
    """The run ended by itself; nothing of it is alive."""

    run: RunName
    exit: Exit


@dataclass(frozen=True, slots=True)
class DriverStopped:
    """The run was asked to stop; nothing of it is alive. A run ends with one DriverExited or one DriverStopped."""

    run: RunName
    exit: Exit


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """`ok` is None when the check could not be made."""

    probe_id: int
    ok: bool | None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Woke:
    """The deadline the core asked for has come."""


Event = (
    Booted
    | Connected
    | RegionSaid
    | Disconnected
    | CheckpointWritten
    | CheckpointFailed
    | StorageTested
    | DriversOffered
    | ImagesHeld
    | DriverDelayed
    | DriverStarted
    | DriverStartFailed
    | DriverExited
    | DriverStopped
    | ProbeAnswered
    | Woke
)
