"""Headroom: the part of a region that new work leaves free, so that what is lost or fails finds room at once.

New work is a replica that has not run yet; it may use `100 - headroom_percent` of the capacity of the nodes that take
work. One that has run and waits again (its node was lost or drained, it failed, its template changed) may use all, and
so may work of priority high and above, which would stop others otherwise. Of GPUs whole devices are kept free, none
where the part is less than one. What burst accounts pay for gives way to what hard ones do, so that counts as free for
these. How much: docs/scheduling.md.
"""

from typing import NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.accounts import BURST, HARD, Account
from atoll.model.resources import DIMENSIONS, NOTHING, Vector, total
from regional.core.filters import Cure
from regional.core.gpus import WHOLE_MILLI
from regional.core.ledger import UNLIMITED
from regional.core.queue import SchedulingClass
from regional.core.state import State

URGENT = objects_pb2.PRIORITY_HIGH
CURES = frozenset({Cure.NODES, Cure.HEADROOM, Cure.REPAIR})


class Room(NamedTuple):
    """What new work may still be charged in all, below zero where repair has used what is kept; what is kept; and what
    gives way to hard accounts."""

    left: Vector
    kept: Vector
    burst: Vector

    def replicas(self, request: Vector, payer: Account) -> int:
        """How many new replicas headroom lets pass. It is silent where there is no room at all: filters tell why."""
        new = _fitting(self.left + self.burst if payer == HARD else self.left, request)
        return new if new or _fitting(self.left + self.kept, request) else UNLIMITED


def replicas(room_: Room, cls: SchedulingClass, payer: Account) -> int:
    """How many new replicas of a class may be placed, as far as headroom goes."""
    return UNLIMITED if cls.band >= URGENT else room_.replicas(cls.request.vector, payer)


def _fitting(left: Vector, request: Vector) -> int:
    return max(0, min((some // one for some, one in zip(left, request, strict=True) if one), default=UNLIMITED))


def room(state: State) -> Room:
    percent, table = state.settings.headroom_percent, state.table
    if not percent:
        return Room(Vector(*(UNLIMITED for _ in DIMENSIONS)), NOTHING, NOTHING)
    capacity = Vector(*table.standing().capacity)
    kept = Vector(*(-(-amount * percent // 100) for amount in capacity))
    kept = kept._replace(gpu_milli=capacity.gpu_milli * percent // 100 // WHOLE_MILLI * WHOLE_MILLI)
    return Room(capacity - kept - Vector(*table.open_use()), kept, _gives_way(state))


def _gives_way(state: State) -> Vector:
    """What burst accounts pay for on the nodes that take work: only there may others have its room."""
    if not state.burst:
        return NOTHING
    closed = (state.nodes[state.table.names[row]] for row in state.table.standing().closed.tolist())
    entries = (entry for node in closed for entry in (*node.burst.values(), *node.reserved.values()))
    return state.burst - total([entry.vector for entry in entries if entry.account == BURST])


def reason(state: State, room_: Room, request: Vector) -> objects_pb2.PendingReason:
    lacking = (request - room_.left).at_least(NOTHING)
    percent = state.settings.headroom_percent
    return explain.reason(explain.HEADROOM, detail=f"{lacking} missing, {percent} % are kept free")
