"""Lanes, guards and seals: how a leader writes so that every outcome is known in the end.

Decides what to send next; sends nothing. A lane is one key; every transaction of a leader takes one free lane, compares
its mod_revision and puts `operation n`; one is in flight a lane. When the outcome is UNKNOWN the lane is sealed: a
transaction that compares the same mod_revision and puts `seal n`. Either the seal applies, and the operation never can
any more, or the lane shows that the operation had applied. A refusal is definite; only then are the compared keys read,
to tell the planner what had moved. Keeps I5: the guards compare the term, so nothing of a deposed leader can apply.
"""

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.errors import require
from atoll.store import keys
from atoll.store.store import (
    MAX_OPERATIONS,
    Applied,
    Compare,
    Delete,
    Get,
    KeyValue,
    NotSent,
    Outcome,
    Put,
    Refusal,
    Refused,
    Txn,
    Unknown,
    created_at,
    mod_is,
)

MOST_COMPARES = MAX_OPERATIONS - 3  # of a plan: the lane and the two guards are compared beside it
MOST_WRITES = MAX_OPERATIONS - 1  # of a plan: the lane is written beside it


@dataclass(frozen=True, slots=True)
class Authority:
    """The right to write under `root`: the leader key's create_revision and the store's life."""

    root: bytes
    term: int
    store_life: int = 0
    store_life_revision: int = 0  # mod_revision of the store_life key; 0 = absent, life 0

    def guards(self) -> tuple[Compare, ...]:
        return (
            created_at(keys.leader(self.root), self.term),
            mod_is(keys.store_life(self.root), self.store_life_revision),
        )


class Plan(NamedTuple):
    """One transaction beside lane and guards. `operation` is its name in the protocol: BIND, RELEASE, ..."""

    operation: str
    compares: tuple[Compare, ...] = ()
    writes: tuple[Put | Delete, ...] = ()


class Committed(NamedTuple):
    """The plan is applied, all of it, at `revision`."""

    revision: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The plan is not applied and never will be. `stale` has the compared keys that had moved, with what is there
    now; it is empty when the plan was sealed away or refused for its form (`message`), or for a compare of a range."""

    message: str
    stale: tuple[tuple[bytes, KeyValue | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Deposed:
    """Another leader rules, or the store has another life: stop. From now on the plan can never apply. If it was being
    sealed it may have applied before, and its lane has been taken over since: the records tell the next leader."""

    message: str


Settled = Committed | Rejected | Deposed


class _Phase(Enum):
    FREE = "free"
    SENT = "sent"
    SEALING = "sealing"
    READING = "reading"  # it was refused, and never will apply: what had moved


class Lane:
    """One lane's state machine: `begin` a plan, then feed each outcome to `settle` until it returns a Settled;
    a Txn means: send this next (after a pause when nothing was sent)."""

    def __init__(self, authority: Authority, index: int, mod_revision: int) -> None:
        """`mod_revision` of the lane key as listed after the election, 0 when absent."""
        self.authority = authority
        self.index = index
        self._key = keys.lane(authority.root, index)
        self._guards = authority.guards()
        self._reads = (Get(keys.leader(authority.root)), Get(keys.store_life(authority.root)), Get(self._key))
        self._mod_revision = mod_revision
        self._n = 0
        self._phase = _Phase.FREE
        self._txn = Txn()
        self._compared: tuple[Compare, ...] = ()

    @property
    def free(self) -> bool:
        return self._phase is _Phase.FREE

    @property
    def sealing(self) -> bool:
        return self._phase is _Phase.SEALING

    @property
    def reading(self) -> bool:
        return self._phase is _Phase.READING

    def begin(self, plan: Plan) -> Txn:
        require(self.free, f"lane {self.index}: one operation in flight")
        self._n += 1
        self._phase = _Phase.SENT
        self._compared = plan.compares
        self._txn = Txn(
            compares=(*self._own_compares(), *plan.compares),
            success=(
                Put(self._key, self._entry(objects_pb2.LANE_ENTRY_OPERATION, plan.operation)),
                *plan.writes,
            ),
            failure=self._reads,
        )
        return self._txn

    def settle(self, outcome: Outcome) -> Settled | Txn:
        require(not self.free, f"lane {self.index}: an outcome without an operation")
        match outcome:
            case NotSent():
                return self._txn
            case Unknown():
                return self._txn if self.reading else self._seal()
            case Applied():
                return self._stale(outcome.reads) if self.reading else self._applied(outcome.revision)
            case Refused() if outcome.refusal is Refusal.BUSY or self.reading:
                return self._txn
            case Refused() if outcome.refusal is not Refusal.COMPARE:
                return self._refused_for_its_form(outcome)
            case Refused():
                return self._compare_failed(outcome)

    def _entry(self, entry: "objects_pb2.LaneEntry.ValueType", operation: str) -> bytes:
        lane = objects_pb2.Lane(entry=entry, term=self.authority.term, n=self._n, operation=operation)
        return lane.SerializeToString(deterministic=True)

    def _own_compares(self) -> tuple[Compare, ...]:
        return (*self._guards, mod_is(self._key, self._mod_revision))

    def _seal(self) -> Txn:
        if self._phase is _Phase.SENT:
            self._phase = _Phase.SEALING
            self._txn = Txn(
                compares=self._own_compares(),
                success=(Put(self._key, self._entry(objects_pb2.LANE_ENTRY_SEAL, "")),),
                failure=self._reads,
            )
        return self._txn

    def _applied(self, revision: int) -> Settled:
        was_seal = self.sealing
        self._phase = _Phase.FREE
        self._mod_revision = revision
        return Rejected("sealed") if was_seal else Committed(revision)

    def _refused_for_its_form(self, outcome: Refused) -> Settled | Txn:
        if self.sealing:
            return self._txn  # a seal is always well formed: the refusal is the world's, ask again
        self._phase = _Phase.FREE
        return Rejected(f"{outcome.refusal.value}: {outcome.message}")

    def _compare_failed(self, outcome: Refused) -> Settled | Txn:
        read = dict(zip((op.key for op in self._reads), outcome.reads, strict=True))
        lane = read[self._key]
        if self.sealing and (settled := self._what_the_lane_shows(lane)):
            return settled
        self._phase = _Phase.FREE
        if deposed := self._deposed(read):
            return deposed
        require(
            not self.sealing and _mod(lane) == self._mod_revision,
            f"I5: lane {self.index} moved under its leader",
        )
        compared = dict.fromkeys(c.key for c in self._compared if not c.range_end)
        if not compared:
            return Rejected("stale")
        self._phase = _Phase.READING
        self._txn = Txn(success=tuple(map(Get, compared)))
        return self._txn

    def _stale(self, reads: tuple[KeyValue | None, ...]) -> Rejected:
        """A compare that holds again (a slot that came and went) is not told: what is there is as the planner knew."""
        self._phase = _Phase.FREE
        read = dict(zip((op.key for op in self._txn.success), reads, strict=True))
        stale = tuple((c.key, read[c.key]) for c in self._compared if not c.range_end and not _holds(c, read[c.key]))
        return Rejected("stale", tuple(dict(stale).items()))

    def _what_the_lane_shows(self, lane: KeyValue | None) -> Settled | None:
        """After a refused seal: the lane has moved to our operation, or to an earlier copy of the seal."""
        if lane is None or lane.mod_revision == self._mod_revision:
            return None
        entry = objects_pb2.Lane.FromString(lane.value)
        if (entry.term, entry.n) != (self.authority.term, self._n):
            return None
        self._phase = _Phase.FREE
        self._mod_revision = lane.mod_revision
        if entry.entry == objects_pb2.LANE_ENTRY_SEAL:
            return Rejected("sealed")
        return Committed(lane.mod_revision)

    def _deposed(self, read: dict[bytes, KeyValue | None]) -> Deposed | None:
        for guard, message in zip(self._guards, ("another term", "another store life"), strict=True):
            if not _holds(guard, read[guard.key]):
                return Deposed(message)
        return None


def _mod(item: KeyValue | None) -> int:
    return item.mod_revision if item else 0


def _holds(compare: Compare, item: KeyValue | None) -> bool:
    """Whether an equality compare on revisions, the only kind plans use on single keys, holds for what was read."""
    match compare.target.name:
        case "CREATE":
            found = item.create_revision if item else 0
        case "MOD":
            found = item.mod_revision if item else 0
        case _:
            found = item.version if item else 0
    return found == compare.operand
