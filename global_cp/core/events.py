"""What may happen to the global plane. Frozen; proto messages inside are never mutated."""

from dataclasses import dataclass

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.reign import LeadershipLost as LeadershipLost
from atoll.reign import LeadershipWon as LeadershipWon
from atoll.reign import PlanSettled as PlanSettled
from atoll.reign import RecordsRead as RecordsRead


@dataclass(frozen=True, slots=True)
class RegionConnected:
    """A region opened a session and said hello. `region` comes from its certificate, never from the message."""

    session: int
    region: str
    hello: regional_pb2.RegionHello


@dataclass(frozen=True, slots=True)
class RegionSaid:
    """Anything after the hello, but answers to forwarded calls: those stay in the shell."""

    session: int
    message: regional_pb2.UplinkMessage


@dataclass(frozen=True, slots=True)
class RegionGone:
    session: int


@dataclass(frozen=True, slots=True)
class MutationAsked:
    """A user's change, authorized at the border. Answered by exactly one Reply to `reply_to`.

    `request` is the API's request message; `token` is set for CreateUserToken only: the record to store, whose secret
    the shell made and keeps.
    """

    reply_to: int
    request: Message
    token: objects_pb2.UserToken | None = None
    by: str = ""  # who asks, for people


@dataclass(frozen=True, slots=True)
class Notified:
    """How a Notify ended. `error`: why it was not delivered; empty when it was. `final`: no other try would be."""

    number: str
    error: str = ""
    final: bool = False


@dataclass(frozen=True, slots=True)
class Woke:
    """The deadline the core asked for has come."""


Event = (
    RecordsRead
    | LeadershipWon
    | LeadershipLost
    | PlanSettled
    | RegionConnected
    | RegionSaid
    | RegionGone
    | MutationAsked
    | Notified
    | Woke
)
