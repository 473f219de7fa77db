"""What an agent may ask of the world.

Order of effects: a StartReplica and a status CLOSED are emitted only after CheckpointWritten for the records they rest
on. A Guard is emitted before the StartReplica it covers, and the shell carries it out before it returns.
"""

from dataclasses import dataclass

from agent.core.fencing import Saved
from agent.core.lease import LeaseTerms
from agent.core.runs import RunName
from atoll.api.v1 import agent_pb2, objects_pb2


@dataclass(frozen=True, slots=True)
class SendUp:
    """To one candidate, on this session; dropped when it has ended: a Hello says everything again."""

    session: int
    message: agent_pb2.AgentMessage


@dataclass(frozen=True, slots=True)
class WriteCheckpoint:
    """Make `saved` durable. One in flight; answered by exactly one CheckpointWritten or CheckpointFailed."""

    version: int
    saved: Saved


@dataclass(frozen=True, slots=True)
class StartReplica:
    """Answered by exactly one DriverStarted or DriverStartFailed, maybe after some DriverDelayed."""

    run: RunName
    assign: agent_pb2.Assign


@dataclass(frozen=True, slots=True)
class StopReplica:
    """SIGTERM, SIGKILL after `grace_ms`; the run ends with one DriverStopped, or the DriverExited already under way."""

    run: RunName
    grace_ms: int


@dataclass(frozen=True, slots=True)
class ProbeReplica:
    """One check, answered by one ProbeAnswered within `timeout_ms`."""

    probe_id: int
    run: RunName
    check: objects_pb2.Probe
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class GuardDeadline:
    run: RunName
    deadline_ms: int


@dataclass(frozen=True, slots=True)
class Guard:
    """The whole truth for the guard process, which kills each run at its deadline; `terms` are for the next Booted."""

    terms: LeaseTerms
    deadlines: tuple[GuardDeadline, ...]


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Leave this session and dial its address again."""

    session: int
    reason: str


@dataclass(frozen=True, slots=True)
class Dial:
    """Keep a session with this address too: the leader is said to be there."""

    address: str


Command = SendUp | WriteCheckpoint | StartReplica | StopReplica | ProbeReplica | Guard | Reconnect | Dial
