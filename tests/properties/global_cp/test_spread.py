"""The spread as a function: exact sums, only allowed regions, nothing moved without a reason; and the way to it."""

from collections.abc import Mapping

import hypothesis.strategies as st
from hypothesis import given, settings

from atoll.api.v1 import objects_pb2
from global_cp.core.moves import Standing, step
from global_cp.core.spread import Outlook, Place, Task, places, plan

Counts = Mapping[str, int]
NAMES = ("a", "b", "c", "d")
PREFERRED, EVEN = objects_pb2.SPREAD_STRATEGY_PREFERRED, objects_pb2.SPREAD_STRATEGY_EVEN
FIXED = objects_pb2.SPREAD_STRATEGY_FIXED
QUIET = settings(max_examples=300, deadline=None)

replicas = st.integers(0, 12)
counts = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 6))
kinds = st.sampled_from(((True, True), (False, True), (False, False)))  # what takes, keeps
at = st.lists(st.sampled_from(NAMES), unique=True, min_size=1).flatmap(
    lambda names: st.tuples(*(st.builds(lambda k, n=name: Place(n, *k), kinds) for name in names)).map(list)
)
tasks = st.builds(Task, replicas, st.sampled_from((PREFERRED, EVEN)), anew=st.booleans())
outlooks = st.builds(Outlook, counts, counts, st.frozensets(st.sampled_from(NAMES)))


@QUIET
@given(tasks, at, counts, outlooks)
def test_the_sum_is_exact_unless_no_region_takes_more(
    task: Task, at: list[Place], before: Counts, outlook: Outlook
) -> None:
    result = plan(task, at, before, outlook)
    assert result.keys() == {place.region for place in at} and min(result.values()) >= 0
    if any(place.takes for place in at):
        assert sum(result.values()) == task.replicas
    else:
        assert all(result[place.region] <= before.get(place.region, 0) for place in at)
        assert sum(result.values()) == min(task.replicas, sum(before.get(place.region, 0) for place in at))


@QUIET
@given(tasks, at, counts, outlooks)
def test_a_region_that_takes_none_gets_none(task: Task, at: list[Place], before: Counts, outlook: Outlook) -> None:
    result = plan(task, at, before, outlook)
    assert all(result[place.region] <= before.get(place.region, 0) for place in at if not place.takes)


@QUIET
@given(st.builds(Task, replicas, st.sampled_from((PREFERRED, EVEN))), at, counts, outlooks, outlooks)
def test_numbers_of_room_move_nothing(
    task: Task, at: list[Place], before: Counts, outlook: Outlook, later: Outlook
) -> None:
    """Two plans in a row with other numbers: the second is the first, as long as nothing is said to be stuck."""
    first = plan(task, at, before, Outlook(outlook.room))
    assert plan(task, at, first, Outlook(later.room)) == first


@QUIET
@given(st.sampled_from((PREFERRED, EVEN)), at, replicas, replicas, counts)
def test_another_count_moves_as_few_as_it_can(
    strategy: int, at: list[Place], few: int, many: int, room: Counts
) -> None:
    """A scale-up takes nothing from any region; a scale-down gives nothing to any."""
    at = [Place(place.region, True, True) for place in at]
    few, many = sorted((few, many))
    small = plan(Task(few, strategy), at, {}, Outlook(room))
    grown = plan(Task(many, strategy), at, small, Outlook(room))
    assert all(grown[region] >= small[region] for region in small)
    shrunk = plan(Task(few, strategy), at, grown, Outlook(room))
    assert all(shrunk[region] <= grown[region] for region in grown)
    if strategy == EVEN:
        assert max(grown.values()) - min(grown.values()) <= 1


@QUIET
@given(counts, st.lists(st.sampled_from(NAMES), unique=True), st.sets(st.sampled_from(NAMES)), tasks)
def test_residency_is_never_broken(before: Counts, wanted: list[str], resident: set[str], task: Task) -> None:
    regions = {
        name: objects_pb2.Region(
            metadata=objects_pb2.Metadata(
                labels=[objects_pb2.Label(key="law", value="eu" if name in resident else "us")]
            ),
            state=objects_pb2.REGION_STATE_ACTIVE,
        )
        for name in NAMES
    }
    requirement = objects_pb2.LabelRequirement(key="law", operator=objects_pb2.SELECTOR_OPERATOR_IN, values=["eu"])
    spec = objects_pb2.WorkloadSpec(regions=wanted, spread=objects_pb2.Spread(residency=[requirement]))
    result = plan(task, places(spec, regions, list(before)), before, Outlook())
    assert {region for region, count in result.items() if count} <= resident


@QUIET
@given(counts, st.dictionaries(st.sampled_from(NAMES), st.integers(0, 6), min_size=1), st.integers(0, 5), st.data())
def test_a_move_gives_up_nothing_ready_before_its_time_and_ends(
    told: Counts, wanted: Counts, spare: int, data: st.DataObject
) -> None:
    """Regions get ready when they like. Until the plan is reached at least as many are ready as before, but for those
    the user gave up and one stride where nothing is spare; and never are more told than wanted and spare."""
    goal = {name: wanted.get(name, 0) for name in NAMES}
    now = {name: told.get(name, 0) for name in NAMES}
    desired, ready, planned = sum(goal.values()), dict(now), dict(now)
    floor = min(sum(now.values()), desired)
    for turn in range(200):
        left = max(0, desired + spare - sum(now.values()))
        next_ = step(Standing(now, ready, {}, planned), goal, left, 1)
        assert sum(next_.values()) <= max(desired + spare, sum(now.values()))
        ready = {name: min(ready[name], next_[name]) for name in NAMES}
        assert sum(ready.values()) >= min(floor, desired) - 1, "at most a stride is given up"
        if spare:
            assert sum(ready.values()) >= floor
        now, planned = next_, goal
        if now == goal:
            break
        if turn % 3 == 2:
            ready = dict(now)
        elif data.draw(st.booleans()):
            name = data.draw(st.sampled_from(NAMES))
            ready[name] = now[name]
        floor = max(floor, min(sum(ready.values()), desired))
    assert now == goal
