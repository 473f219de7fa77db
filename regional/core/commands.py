"""What a regional scheduler may ask of the world.

Order of effects: a `SendToNode` that depends on a write is emitted only after its plan has settled as Committed; the
shell carries out the commands of one `handle` in the order given and never reorders sends to one session.
"""

from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import Message

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.errors import AtollError
from atoll.reign import Commit as Commit
from atoll.reign import Resign as Resign


class SendToNode(NamedTuple):
    """To the agent of `session`; dropped when that session has ended. The most frequent of all, hence a tuple."""

    session: int
    message: agent_pb2.RegionMessage


@dataclass(frozen=True, slots=True)
class CloseSession:
    session: int
    reason: str


@dataclass(frozen=True, slots=True)
class SendUp:
    """To the global plane; dropped when the uplink is down: everything sent is absolute and sent again on welcome."""

    message: regional_pb2.UplinkMessage


@dataclass(frozen=True, slots=True)
class KeepTokens:
    """These are the user tokens, and no others."""

    tokens: regional_pb2.TokenSet


@dataclass(frozen=True, slots=True)
class LeaveGlobal:
    """End this session with the global plane and dial another process of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Journal:
    """Keep this decision; off the hot path, may lag."""

    decision: objects_pb2.Decision


@dataclass(frozen=True, slots=True)
class Announce:
    """An event for people."""

    event: objects_pb2.Event


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a WriteAsked or NodeChangeAsked: without error and refusal it is committed at `revision`, and
    `answer` is the response. `unknown`: it may be, or not. `unsent`: it surely is not, and
    another leader may be asked. `refusal`: why it is not done."""

    reply_to: int
    revision: int
    error: str = ""
    unknown: bool = False
    unsent: bool = False
    answer: Message | None = None
    refusal: AtollError | None = None


Command = Commit | SendToNode | CloseSession | SendUp | KeepTokens | LeaveGlobal | Journal | Announce | Reply | Resign
