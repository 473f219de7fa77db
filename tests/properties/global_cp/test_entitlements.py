"""How a quota is divided between regions, whatever they need, have and hold."""

import hypothesis.strategies as st
from hypothesis import given

from atoll.model.accounts import ByAccount, summed
from atoll.model.resources import NOTHING, Vector, total
from global_cp.core.entitlements import AccountClaims, Claim, divided, entitlements

vectors = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda amounts: Vector(*amounts))
NONE = st.just(Vector())
claims = st.dictionaries(st.sampled_from("abc"), st.builds(Claim, vectors, vectors, vectors, vectors, vectors, NONE))
guarded = st.dictionaries(
    st.sampled_from("abc"), st.builds(Claim, vectors, vectors, vectors, vectors, vectors, protected=vectors)
)


def _asked(claim: Claim) -> Vector:
    return claim.needed + claim.beside


@given(quota=vectors, claims=claims)
def test_nobody_gets_more_than_it_asks_for_and_all_together_no_more_than_there_is(
    quota: Vector, claims: dict[str, Claim]
) -> None:
    shares = entitlements(quota, claims)
    asked = total([_asked(claim) for claim in claims.values()]).at_most(quota)
    beyond = total([(claim.used - _asked(claim)).at_least(NOTHING) for claim in claims.values()])
    shared = total(list(shares.values()))
    assert shared.fits(asked)
    assert (asked - beyond).at_least(NOTHING).fits(shared), "nothing else is held back"
    assert all(shares[name].is_legal() and shares[name].fits(_asked(claim)) for name, claim in claims.items())


@given(quota=vectors, claims=claims)
def test_zombies_and_surges_take_nothing_from_what_is_needed(quota: Vector, claims: dict[str, Claim]) -> None:
    claims = {name: claim._replace(used=claim.used.at_most(claim.needed)) for name, claim in claims.items()}
    shares = entitlements(quota, claims)
    needed = total([claim.needed for claim in claims.values()])
    served = total([shares[name].at_most(claim.needed) for name, claim in claims.items()])
    assert served == needed.at_most(quota)


@given(quota=vectors, claims=claims)
def test_who_has_its_share_keeps_it(quota: Vector, claims: dict[str, Claim]) -> None:
    claims = {name: claim._replace(used=claim.used.at_most(claim.granted)) for name, claim in claims.items()}
    shares = entitlements(quota, claims)
    again = {n: claim._replace(granted=shares[n].at_least(claim.used)) for n, claim in claims.items()}
    assert entitlements(quota, again) == shares


@given(quota=vectors, claims=claims)
def test_what_is_in_use_is_served_first(quota: Vector, claims: dict[str, Claim]) -> None:
    claims = {name: claim._replace(used=claim.used.at_most(claim.needed)) for name, claim in claims.items()}
    shares = entitlements(quota, claims)
    served = total([shares[name].at_most(claim.used) for name, claim in claims.items()])
    assert served == total([claim.used for claim in claims.values()]).at_most(quota)


@given(quota=vectors, claims=claims)
def test_what_is_in_use_though_nobody_needs_it_is_for_no_other_region(quota: Vector, claims: dict[str, Claim]) -> None:
    """Where smaller successors wait, say, for those before them to go."""
    shares = entitlements(quota, claims)
    if total([claim.used for claim in claims.values()]).fits(quota):
        assert total([shares[name].at_least(claim.used) for name, claim in claims.items()]).fits(quota)


@given(quota=vectors, claims=guarded)
def test_what_is_protected_is_there_whatever_others_use(quota: Vector, claims: dict[str, Claim]) -> None:
    claims = {name: claim._replace(needed=claim.needed.at_least(claim.protected)) for name, claim in claims.items()}
    shares = entitlements(quota, claims)
    assert total(list(shares.values())).fits(quota)
    if total([claim.protected for claim in claims.values()]).fits(quota):
        assert all(claim.protected.fits(shares[name]) for name, claim in claims.items())


bursting = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(
        AccountClaims,
        st.builds(Claim, vectors, vectors, vectors, vectors, vectors, NONE),
        vectors.flatmap(lambda used: st.builds(Claim, st.just(used), vectors, NONE, st.just(used), vectors, NONE)),
        vectors,
        vectors,
    ),
)


@given(limit=st.builds(ByAccount, vectors, vectors), free=vectors, claims=bursting)
def test_accounts_are_divided_apart_and_burst_is_for_what_quota_does_not_pay_for(
    limit: ByAccount, free: Vector, claims: dict[str, AccountClaims]
) -> None:
    shares = divided(limit, free, claims)
    assert summed(shares.values()).fits(limit)
    hard = entitlements(limit.hard, {name: claim.hard for name, claim in claims.items()})
    assert {name: share.hard for name, share in shares.items()} == hard, "burst changes nothing of the quota"
    for name, claim in claims.items():
        most = claim.burst.needed + claim.burst.beside + claim.wanted
        assert shares[name].burst.fits(most)
        if not hard[name].at_most(claim.hard.granted + free).fits(claim.limit):
            assert shares[name].burst.fits(claim.burst.needed + claim.burst.beside), "hard may pay for what waits"
