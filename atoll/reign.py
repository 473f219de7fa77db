"""What a leading core is told of its leadership, and what it asks of its lanes: the same for every leader.

Values only. A reign lasts from LeadershipWon to LeadershipLost; a command of one reign is never carried out in another.
Most of the list comes before the win is told, in parts, so that no event takes long: the lease is renewed meanwhile.
"""

from dataclasses import dataclass
from typing import NamedTuple

from atoll.lane import Authority, Plan, Settled
from atoll.store.store import KeyValue


@dataclass(frozen=True, slots=True)
class RecordsRead:
    """A part of what the next LeadershipWon would have to carry, in the order of the keys. Followed by that, or by
    LeadershipLost; until then the core is a standby's."""

    authority: Authority
    records: tuple[KeyValue, ...]


@dataclass(frozen=True, slots=True)
class LeadershipWon:
    """The election is won and everything under the root was listed at `revision` ≥ the election's. `records`: what
    RecordsRead has not brought."""

    authority: Authority
    records: tuple[KeyValue, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class LeadershipLost:
    reason: str


class PlanSettled(NamedTuple):
    """The answer to a Commit command. `sent_ms`: when its transaction was first sent."""

    plan_id: int
    settled: Settled
    sent_ms: int


class Commit(NamedTuple):
    """Send `plan` on `lane` (the core knows which lanes are free). Answered by exactly one PlanSettled."""

    plan_id: int
    lane: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Resign:
    """Stop leading: a refused term compare, or too long without an applied transaction."""

    reason: str
