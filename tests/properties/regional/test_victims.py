"""The choice of victims against every possible choice: enough, none too many, and the cheapest of all."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from atoll.model.resources import Vector, total
from regional.core.victims import EXACT, Candidate, Cost, Lacking, choose, cost

AMOUNTS = st.tuples(st.integers(1, 4), st.integers(1, 4)).map(lambda pair: Vector(*pair))
CANDIDATES = st.lists(
    st.tuples(st.sampled_from("abc"), AMOUNTS, st.integers(0, 3), st.integers(0, 3)), max_size=12
).map(
    lambda found: [
        Candidate(b"%d" % i, ("t", name), amount, 40_000 * lost, left_ms=left)
        for i, (name, amount, lost, left) in enumerate(found)
    ]
)
MISSING = st.tuples(st.integers(0, 12), st.integers(0, 12)).map(lambda pair: Vector(*pair)).filter(bool)


@given(CANDIDATES, MISSING)
def test_the_cheapest_that_make_enough_room(candidates: list[Candidate], missing: Vector) -> None:
    chosen = choose(candidates, Lacking(missing))
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
    assert choose(candidates, Lacking(missing)) == choose(candidates[::-1], Lacking(missing))


@st.composite
def on_devices(draw: st.DrawFn) -> tuple[list[Candidate], Lacking]:
    """Candidates on devices that they fill in part, or wholly, beside others; and a replica that asks for devices."""
    left, candidates = dict.fromkeys(range(draw(st.integers(1, 3))), 1_000), []
    for i in range(draw(st.integers(0, 6))):
        whole = draw(st.booleans())
        numbers = (
            draw(st.sets(st.sampled_from(sorted(left)), min_size=1)) if whole else {draw(st.sampled_from(sorted(left)))}
        )
        each = 1_000 if whole else draw(st.sampled_from([300, 500]))
        if all(left[number] >= each for number in numbers):
            for number in numbers:
                left[number] -= each
            amount = Vector(draw(st.integers(0, 3)), 0, 0, each * len(numbers))
            candidates.append(
                Candidate(b"%d" % i, ("t", draw(st.sampled_from("ab"))), amount, i, tuple(sorted(numbers)))
            )
    asked = draw(st.sampled_from([300, 700, 1_000, 2_000]))
    stays = draw(st.sets(st.sampled_from(sorted(left))))  # of another model, or held by what is not to be stopped
    lacking = Lacking(Vector(draw(st.integers(0, 4))), asked, tuple((n, m) for n, m in left.items() if n not in stays))
    return candidates, lacking


@given(on_devices())
def test_devices_are_freed_one_by_one(given_: tuple[list[Candidate], Lacking]) -> None:
    candidates, lacking = given_
    chosen = choose(candidates, lacking)

    def enough(some: tuple[Candidate, ...]) -> bool:
        free = dict(lacking.left)
        for one in some:
            for number in one.gpus:
                if number in free:
                    free[number] += one.vector.gpu_milli // len(one.gpus)
        idle = sum(milli == 1_000 for milli in free.values())
        devices = (
            idle >= lacking.gpu_milli // 1_000
            if lacking.gpu_milli >= 1_000
            else any(milli >= lacking.gpu_milli for milli in free.values())
        )
        return devices and sum(one.vector.cpu_milli for one in some) >= lacking.amount.cpu_milli

    every = [some for size in range(len(candidates) + 1) for some in combinations(candidates, size) if enough(some)]
    if not every:
        assert chosen == ()
    elif () not in every:
        assert enough(chosen) and cost(chosen) == min(map(cost, every))


def test_more_candidates_than_are_tried_together_free_one_device_and_no_more() -> None:
    """Twelve halves on six devices, and a whole one is asked for."""
    halves = [Candidate(b"%02d" % i, ("t", f"w{i}"), Vector(gpu_milli=500), 0, (i // 2,)) for i in range(12)]
    chosen = choose(halves, Lacking(Vector(), 3_000, tuple((number, 0) for number in range(6))))
    assert cost(chosen) == Cost(6, 6, 6, 0, 0)
    chosen = choose(halves, Lacking(Vector(), 5_000, tuple((number, 0) for number in range(6))))
    assert cost(chosen) == Cost(10, 10, 10, 0, 0)


def test_of_those_that_have_run_as_long_the_one_with_the_least_left_goes() -> None:
    alike = [Candidate(b"%d" % i, ("t", f"w{i}"), Vector(1), 61_000 + i, left_ms=(30, 10, 20)[i]) for i in range(3)]
    assert choose(alike, Lacking(Vector(1))) == (alike[1],)
    longer = alike[1]._replace(lost_ms=121_000)
    assert choose([alike[0], longer, alike[2]], Lacking(Vector(1))) == (alike[2],), "it has lost a minute more"
