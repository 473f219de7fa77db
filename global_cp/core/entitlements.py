"""How a tenant's quota is divided between regions: what each of them claims of one account, and what it should have."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from atoll.model.resources import NOTHING, Vector


class Claim(NamedTuple):
    """What one region has of a tenant's quota, and what it could have."""

    needed: Vector  # by its live replicas
    granted: Vector = NOTHING
    idle: Vector = NOTHING  # of what is needed: it found no room there
    used: Vector = NOTHING  # of what is granted: bound or reserved, as it last said
    beside: Vector = NOTHING  # by zombies, for which strict tenants pay, and by surges
    protected: Vector = NOTHING  # of what is needed: the region has it before anybody asks for it


def entitlements(quota: Vector, claims: Mapping[str, Claim]) -> dict[str, Vector]:
    """How much of the quota each region should have, never more than it in all; each dimension by itself. First what is
    protected there, then what is in use, so that of a lowered quota the idle surplus comes back before anything that
    cannot; then what a region can use, and of that what it already has, so that budget does not wander; then the rest
    of what it needs, and last what zombies and surges hold beside that; in order of region."""
    regions = sorted(claims)
    columns = [
        _divided(left, [[amounts[dimension] for amounts in claims[region]] for region in regions])
        for dimension, left in enumerate(quota)
    ]
    return {region: Vector(*amounts) for region, *amounts in zip(regions, *columns, strict=True)}


def _divided(left: int, claims: Sequence[Sequence[int]]) -> Sequence[int]:
    """One dimension of `entitlements`; of each claim its amounts in the order of the fields of Claim."""
    charged = [needed + beside for needed, _, _, _, beside, _ in claims]
    if sum(charged) <= left:
        return charged
    had = [granted for _, granted, *_ in claims]
    protected = [min(protected, needed) for needed, *_, protected in claims]
    used = [min(used, needed) for needed, _, _, used, *_ in claims]
    usable = [max(needed - idle, 0) for needed, _, idle, *_ in claims]
    needed = [needed for needed, *_ in claims]
    shares = [0] * len(claims)
    for wanted in (protected, used, usable, needed, charged):
        for goals in (map(min, wanted, had), wanted):
            for at, goal in enumerate(goals):
                if (more := min(goal - shares[at], left)) > 0:
                    shares[at] += more
                    left -= more
    return shares
