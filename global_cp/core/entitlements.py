"""How a tenant's quota is divided between regions: what each of them claims of an account, and what it should have.

Of the hard account a region claims what its replicas need but what runs by burst: who is next may have that quota, for
work of any priority. Of burst it claims what runs by it, and what it says that its hard part does not pay for, unless
more of that is on its way; in whole replicas: parts by dimension would pay for none.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from atoll.model.accounts import ByAccount
from atoll.model.resources import NOTHING, Vector


class Claim(NamedTuple):
    """What one region has of an account of a tenant, and what it could have."""

    needed: Vector  # by its live replicas
    granted: Vector = NOTHING
    idle: Vector = NOTHING  # of what is needed: it found no room there
    used: Vector = NOTHING  # of what is granted: bound or reserved, as it last said
    beside: Vector = NOTHING  # by zombies, for which strict tenants pay, and by surges
    protected: Vector = NOTHING  # of what is needed: the region has it before anybody asks for it


class AccountClaims(NamedTuple):
    """What one region claims of a tenant's accounts."""

    hard: Claim
    burst: Claim  # what is needed of it is in use
    wanted: Vector  # of burst beside that, as the hard account does not pay for it
    limit: Vector  # of the hard account, as the region enforced it when it said so

    def of_burst(self, paid: Vector) -> Claim:
        """`paid`: what the region has of the hard account, or is about to have."""
        if not paid.fits(self.limit):
            return self.burst
        return self.burst._replace(needed=self.burst.needed + self.wanted)


def divided(limit: ByAccount, free: Vector, claims: Mapping[str, AccountClaims]) -> dict[str, ByAccount]:
    """`free`: of the hard account, not granted to any region yet."""
    hard = entitlements(limit.hard, {region: claim.hard for region, claim in claims.items()})
    if not limit.burst:
        return {region: ByAccount(amount) for region, amount in hard.items()}
    bursting = {r: claim.of_burst(hard[r].at_most(claim.hard.granted + free)) for r, claim in claims.items()}
    burst = entitlements(limit.burst, bursting)
    return {region: ByAccount(hard[region], burst[region]) for region in claims}


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
    used = [used for _, _, _, used, *_ in claims]  # perhaps more than is needed: until its successors are in its place
    if sum(map(max, charged, used)) <= left:
        return charged
    had = [granted for _, granted, *_ in claims]
    protected = [min(protected, needed) for needed, *_, protected in claims]
    usable = [max(needed - idle, 0) for needed, _, idle, *_ in claims]
    needed = [needed for needed, *_ in claims]
    shares = [0] * len(claims)
    for wanted in (protected, used, usable, needed, charged):
        for goals in (map(min, wanted, had), wanted):
            for at, goal in enumerate(goals):
                if (more := min(goal - shares[at], left)) > 0:
                    shares[at] += more
                    left -= more
    return list(map(min, shares, charged))
