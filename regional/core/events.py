"""What may happen to a regional scheduler. Frozen; proto messages inside are never mutated."""

from dataclasses import dataclass

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.lane import Plan
from atoll.reign import LeadershipLost as LeadershipLost
from atoll.reign import LeadershipWon as LeadershipWon
from atoll.reign import PlanSettled as PlanSettled
from atoll.reign import RecordsRead as RecordsRead


@dataclass(frozen=True, slots=True)
class NodeHello:
    """An agent opened a session, or says hello again on it. `name`, `pool` and `trusted` labels come from its
    certificate, never the message. `term`: of the reign it was said to; 0 = of the one there is."""

    session: int
    name: str
    pool: str
    trusted: tuple[tuple[str, str], ...]
    hello: agent_pb2.Hello
    certificate_expires_ms: int = 0
    term: int = 0


@dataclass(frozen=True, slots=True)
class NodeHeartbeat:
    session: int
    seq: int


@dataclass(frozen=True, slots=True)
class NodeStatus:
    session: int
    report: agent_pb2.StatusReport


@dataclass(frozen=True, slots=True)
class NodeSessionEnded:
    session: int


@dataclass(frozen=True, slots=True)
class GlobalWelcomed:
    """The uplink is up; `welcome` carries the global plane's life, term and this region's epoch."""

    welcome: regional_pb2.GlobalWelcome


@dataclass(frozen=True, slots=True)
class GlobalListed:
    """Every share of this region has arrived since the welcome."""

    listed: regional_pb2.GlobalListed


@dataclass(frozen=True, slots=True)
class TokensTold:
    """The user tokens of the global plane, all of them."""

    tokens: regional_pb2.TokenSet


@dataclass(frozen=True, slots=True)
class GlobalLost:
    reason: str


@dataclass(frozen=True, slots=True)
class ShareArrived:
    share: objects_pb2.Share


@dataclass(frozen=True, slots=True)
class SliceArrived:
    stamp: regional_pb2.SliceStamp


@dataclass(frozen=True, slots=True)
class WriteAsked:
    """A caller of the API wants a guarded write by the leader (a join token's use, say). Answered by `Reply`."""

    reply_to: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class FellBehind:
    """More has come in than was handled: whoever seems silent may only be unheard."""


@dataclass(frozen=True, slots=True)
class NodeChangeAsked:
    """An operator asks something of a node; checked to be well formed. Answered by `Reply`."""

    reply_to: int
    request: regional_pb2.UpdateNodeRequest | regional_pb2.RemoveNodeRequest


@dataclass(frozen=True, slots=True)
class Woke:
    """The deadline the core asked for has come."""


Event = (
    RecordsRead
    | LeadershipWon
    | LeadershipLost
    | PlanSettled
    | NodeHello
    | NodeHeartbeat
    | NodeStatus
    | NodeSessionEnded
    | GlobalWelcomed
    | GlobalListed
    | TokensTold
    | GlobalLost
    | ShareArrived
    | SliceArrived
    | WriteAsked
    | FellBehind
    | NodeChangeAsked
    | Woke
)
