"""What the global plane may ask of the world.

Order of effects: everything sent to a region or published to watchers is emitted only after its plan has settled as
Committed; the shell carries out the commands of one `handle` in the order given and never reorders sends to a session.
"""

from dataclasses import dataclass

from google.protobuf.message import Message

from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.errors import AtollError
from atoll.reign import Commit as Commit
from atoll.reign import Resign as Resign


@dataclass(frozen=True, slots=True)
class SendDown:
    """To the region of `session`; dropped when that session has ended: all is absolute and sent again on hello."""

    session: int
    message: regional_pb2.DownlinkMessage


@dataclass(frozen=True, slots=True)
class CloseSession:
    session: int
    reason: str


@dataclass(frozen=True, slots=True)
class Publish:
    """To everyone who watches workloads. Revisions never go back."""

    event: global_pb2.WorkloadEvent


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a MutationAsked: a response message, or the error that says why not. `replayed`: the answer was
    given before, to the same request id."""

    reply_to: int
    answer: Message | AtollError
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Notify:
    """To be posted to `url`. Answered by exactly one Notified with the same `number`, within a bounded time."""

    number: str
    tenant: str
    id: str  # the same each time that it is sent
    url: str
    body: bytes  # JSON


@dataclass(frozen=True, slots=True)
class Announce:
    """To be kept for people, in memory."""

    event: objects_pb2.Event


Command = Commit | SendDown | CloseSession | Publish | Reply | Notify | Announce | Resign
