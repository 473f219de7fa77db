"""Protected capacity: the part of a region that a tenant's slice keeps for it, used or not.

Others' work is placed only as far as what is free on the nodes that take work still holds all that is protected and not
in use; and it stops no replica by which that replica's tenant would fall below its protected part. Both go by sums over
the region, per dimension: on which node the room is, nobody promises. What is lost with its node is lost to all. A part
is of the quota: what a burst account pays for neither fills it nor is kept by it.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.accounts import HARD
from atoll.model.resources import NOTHING, Vector, total
from regional.core.filters import Cure
from regional.core.ledger import UNLIMITED, TenantAccount
from regional.core.state import State
from regional.core.victims import Candidate

CURES = frozenset({Cure.NODES, Cure.PROTECTED})


def replicas(state: State, tenant: str, request: Vector) -> int:
    """How many more of `request` the tenant may place beside what others have protected. It is silent where there is no
    room at all: filters tell why."""
    kept = _kept_for_others(state, tenant)
    if not kept:
        return UNLIMITED
    if fitting := _fitting(_free(state) - kept, request):
        return fitting
    free = _free_by_node(state)
    fitting = _fitting(free - kept, request)
    return fitting if fitting or _fitting(free, request) else UNLIMITED


def reason(state: State, tenant: str, request: Vector) -> objects_pb2.PendingReason:
    missing = (request - _free(state) + _kept_for_others(state, tenant)).at_least(NOTHING)
    return explain.reason(explain.PROTECTED, detail=f"{missing} missing")


def lacking(state: State, tenant: str, request: Vector) -> Vector:
    """What others have to give up before the tenant may place one more."""
    if not (kept := _kept_for_others(state, tenant)):
        return NOTHING
    return (request - (_free(state) - kept).at_least(NOTHING)).at_least(NOTHING)


def leaves(state: State, tenant: str, request: Vector, promised: Vector) -> bool:
    """Whether one more of the tenant's replicas, beside what is promised, leaves others what they have protected."""
    kept = _kept_for_others(state, tenant)
    return not kept or _fitting(_free(state) - kept - promised, request) > 0


class Guard:
    """Who may be stopped for others. For one search: between its questions only `state.victims` grows."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[str, tuple[int, Vector]] = {}  # by tenant, with how many were victims then

    def beyond(self, tenant: str, candidates: Iterable[Candidate]) -> Iterator[Candidate]:
        """Of those that could be stopped for the tenant the ones whose own tenants keep their protected parts, were all
        of them stopped."""
        spare: dict[str, Vector] = {}
        for one in candidates:
            owner = one.workload[0]
            account = self._state.protected.get(owner)
            if account is None or owner == tenant or one.burst:
                yield one
                continue
            left = spare[owner] if owner in spare else self._spare(account)
            counted = Vector(*(amount if p else 0 for amount, p in zip(one.vector, account.protected, strict=True)))
            if counted.fits(left):
                spare[owner] = left - counted
                yield one

    def _spare(self, account: TenantAccount) -> Vector:
        """What the tenant's replicas that stay hold beyond its protected part, never below zero."""
        victims = self._state.victims
        count, spare = self._known.get(account.tenant, (-1, NOTHING))
        if count != len(victims):
            owned = [w for (tenant, _), w in self._state.workloads.items() if tenant == account.tenant]
            entries = (e for workload in owned for e in workload.entries() if e.bound and e.account == HARD)
            stay = total([e.vector for e in entries if not e.closing and e.key not in victims])
            spare = (stay - account.protected).at_least(NOTHING)
            self._known[account.tenant] = len(victims), spare
        return spare


def _kept_for_others(state: State, tenant: str) -> Vector:
    return total([unused(account) for owner, account in state.protected.items() if owner != tenant])


def unused(account: TenantAccount) -> Vector:
    """What of its protected part the tenant has not placed yet."""
    return (account.protected - account.held.hard - account.charging.hard).at_least(NOTHING)


def _free(state: State) -> Vector:
    """On the nodes that take work, as a sum."""
    return Vector(*state.table.standing().capacity) - Vector(*state.table.open_use())


def _free_by_node(state: State) -> Vector:
    """As a sum of what each has left: where one holds more than its capacity, that is more than the sums say."""
    table = state.table
    return Vector(*np.maximum(table.free(table.standing().open), 0).sum(axis=0).tolist())


def _fitting(left: Vector, request: Vector) -> int:
    return max(0, min((some // one for some, one in zip(left, request, strict=True) if one), default=UNLIMITED))
