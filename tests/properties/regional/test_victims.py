"""The choice of victims against every possible choice: enough, none too many, and the cheapest of all."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from atoll.model.resources import Vector, total
from regional.core.victims import EXACT, Candidate, choose, cost

AMOUNTS = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda pair: Vector(*pair))
CANDIDATES = st.lists(st.tuples(st.sampled_from("abc"), AMOUNTS, st.integers(0, 3)), max_size=12).map(
    lambda found: [Candidate(b"%d" % i, ("t", name), amount, lost) for i, (name, amount, lost) in enumerate(found)]
)
MISSING = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda pair: Vector(*pair)).filter(bool)


@given(CANDIDATES, MISSING)
def test_the_cheapest_that_make_enough_room(candidates: list[Candidate], missing: Vector) -> None:
    chosen = choose(candidates, missing)
    possible = missing.fits(total([c.vector for c in candidates]))
    assert bool(chosen) == possible
    if not possible:
        return
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(candidates)
    assert missing.fits(total([c.vector for c in chosen]))
    for one in chosen:
        assert not missing.fits(total([c.vector for c in chosen if c is not one])), "nobody is stopped for nothing"
    if len(candidates) <= EXACT:
        every = (some for size in range(len(candidates) + 1) for some in combinations(candidates, size))
        assert cost(chosen) == min(cost(some) for some in every if missing.fits(total([c.vector for c in some])))


@given(CANDIDATES, MISSING)
def test_the_order_of_candidates_is_of_no_account(candidates: list[Candidate], missing: Vector) -> None:
    assert choose(candidates, missing) == choose(candidates[::-1], missing)
