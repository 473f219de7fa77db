"""Where the replicas of a task should run."""

from atoll.api.v1 import objects_pb2
from atoll.model.costs import COST_LABEL
from global_cp.core.spread import Outlook, Place, Task, places, plan

ACTIVE, LOST = objects_pb2.REGION_STATE_ACTIVE, objects_pb2.REGION_STATE_LOST
PREFERRED = objects_pb2.SPREAD_STRATEGY_PREFERRED
EVEN, FIXED = objects_pb2.SPREAD_STRATEGY_EVEN, objects_pb2.SPREAD_STRATEGY_FIXED
ROOMY = Outlook(room={"a": 99, "b": 99, "c": 99})


def _region(state: "objects_pb2.RegionState.ValueType" = ACTIVE, law: str = "", **marks: bool) -> objects_pb2.Region:
    labels = [objects_pb2.Label(key="law", value=law)] if law else []
    return objects_pb2.Region(metadata=objects_pb2.Metadata(labels=labels), state=state, **marks)


def _in(law: str) -> objects_pb2.LabelRequirement:
    return objects_pb2.LabelRequirement(key="law", operator=objects_pb2.SELECTOR_OPERATOR_IN, values=[law])


def _open(*names: str) -> list[Place]:
    return [Place(name, True, True) for name in names]


def _names(at: list[Place]) -> list[str]:
    return [place.region for place in at]


def test_places_are_in_order_of_preference_and_what_residency_forbids_is_none() -> None:
    regions = {"a": _region(law="eu"), "b": _region(law="us"), "c": _region(law="eu")}
    assert _names(places(objects_pb2.WorkloadSpec(regions=["c", "b"]), regions, [])) == ["c", "b"]
    assert _names(places(objects_pb2.WorkloadSpec(), regions, ["b"])) == ["b", "a", "c"]
    resident = objects_pb2.WorkloadSpec(spread=objects_pb2.Spread(residency=[_in("eu")]))
    assert _names(places(resident, regions, ["b"])) == ["a", "c"]


def test_the_cheapest_region_comes_first_and_preference_decides_between_equals() -> None:
    regions = {name: _region() for name in "abcd"}
    for name, cost in (("a", "1.2"), ("b", "0.9"), ("c", "0.9")):
        regions[name].metadata.labels.add(key=COST_LABEL, value=cost)
    spec = objects_pb2.WorkloadSpec(regions=["a", "c", "b", "d"])
    spec.spread.strategy = objects_pb2.SPREAD_STRATEGY_CHEAPEST
    assert _names(places(spec, regions, ["a"])) == ["c", "b", "a", "d"], "what nobody prices is the dearest"
    spec.ClearField("regions")
    assert _names(places(spec, regions, ["b"])) == ["b", "c", "a", "d"]
    assert plan(Task(5, spec.spread.strategy), _open("c", "b"), {}, Outlook({"c": 3, "b": 9})) == {"c": 3, "b": 2}


def test_what_a_region_takes_and_keeps() -> None:
    regions = {"a": _region(cordoned=True), "b": _region(cordoned=True, draining=True), "c": _region(LOST)}
    regions["d"] = _region()
    spec = objects_pb2.WorkloadSpec(regions=["a", "b", "c"])
    assert places(spec, regions, ["d"]) == [
        Place("a", False, True),
        Place("b", False, False),
        Place("c", False, True),
        Place("d", False, False),
    ]
    spec.type = objects_pb2.WORKLOAD_TYPE_JOB
    assert all(place.keeps for place in places(spec, regions, ["d"]))


def test_preferred_fills_the_first_and_gives_the_rest_to_the_next() -> None:
    outlook = Outlook(room={"a": 3, "b": 2, "c": 9})
    assert plan(Task(7, PREFERRED), _open("a", "b", "c"), {}, outlook) == {"a": 3, "b": 2, "c": 2}
    assert plan(Task(7, PREFERRED), _open("a", "b"), {}, outlook) == {"a": 5, "b": 2}, "the rest waits in the first"
    assert plan(Task(7, PREFERRED), _open("a", "b"), {}, Outlook()) == {"a": 7, "b": 0}


def test_preferred_moves_nothing_because_numbers_moved() -> None:
    before = {"a": 3, "b": 2, "c": 2}
    for room in ({"a": 99}, {"b": 99}, {"a": 0, "b": 0, "c": 0}, {}):
        assert plan(Task(7, PREFERRED), _open("a", "b", "c"), before, Outlook(room)) == before


def test_preferred_shrinks_waiting_ones_first_then_the_least_preferred() -> None:
    before, at = {"a": 3, "b": 2, "c": 2}, _open("a", "b", "c")
    assert plan(Task(6, PREFERRED), at, before, Outlook(stuck={"a": 1}, full=frozenset("a"))) == {
        "a": 2,
        "b": 2,
        "c": 2,
    }
    assert plan(Task(4, PREFERRED), at, before, Outlook()) == {"a": 3, "b": 1, "c": 0}


def test_stuck_replicas_go_where_there_is_room_and_stay_where_there_is_none() -> None:
    at, stuck = _open("a", "b", "c"), Outlook({"b": 1, "c": 9}, {"a": 3}, frozenset("a"))
    assert plan(Task(5, PREFERRED), at, {"a": 5}, stuck) == {"a": 2, "b": 1, "c": 2}
    nowhere = Outlook({"a": 9}, {"a": 3}, frozenset("a"))
    assert plan(Task(5, PREFERRED), at, {"a": 5}, nowhere) == {"a": 5, "b": 0, "c": 0}
    later = Outlook({"a": 9, "b": 9}, {"b": 1}, frozenset("ab"))
    assert plan(Task(5, PREFERRED), at, {"a": 2, "b": 3}, later) == {"a": 2, "b": 3, "c": 0}, "no way back"


def test_a_new_policy_begins_anew_and_counts_what_runs_as_room() -> None:
    outlook = Outlook({"a": 0, "b": 9})
    assert plan(Task(5, PREFERRED, anew=True), _open("b", "a"), {"a": 5}, outlook) == {"b": 5, "a": 0}
    assert plan(Task(5, PREFERRED, anew=True), _open("a", "b"), {"a": 2, "b": 3}, outlook) == {"a": 2, "b": 3}


def test_a_region_that_drains_or_is_no_longer_wanted_keeps_nothing_if_others_take() -> None:
    at = [Place("a", False, False), *_open("b")]
    assert plan(Task(4, PREFERRED), at, {"a": 4}, ROOMY) == {"a": 0, "b": 4}
    assert plan(Task(4, EVEN), at, {"a": 4}, ROOMY) == {"a": 0, "b": 4}
    alone = [Place("a", False, False)]
    assert plan(Task(4, PREFERRED), alone, {"a": 3}, ROOMY) == {"a": 3}, "what no other takes stays; nothing is added"


def test_a_cordoned_region_keeps_what_it_has_and_gets_no_more() -> None:
    at = [Place("a", False, True), *_open("b")]
    assert plan(Task(6, PREFERRED), at, {"a": 2}, ROOMY) == {"a": 2, "b": 4}
    assert plan(Task(6, EVEN), at, {"a": 2}, ROOMY) == {"a": 2, "b": 4}
    assert plan(Task(2, EVEN), at, {"a": 2, "b": 4}, ROOMY) == {"a": 1, "b": 1}


def test_even_is_even_where_no_region_has_room() -> None:
    full = Outlook(stuck={"a": 1, "b": 2}, full=frozenset("abc"))
    assert plan(Task(9, EVEN), _open("a", "b", "c"), {"a": 3, "b": 3, "c": 3}, full) == {"a": 3, "b": 3, "c": 3}


def test_where_no_region_has_room_what_has_a_place_stays_and_what_waits_makes_it_more_even() -> None:
    at, full = _open("a", "b"), frozenset("ab")
    stuck = {"a": 2}
    assert plan(Task(12, EVEN), at, {"a": 10, "b": 2}, Outlook(stuck=stuck, full=full)) == {"a": 8, "b": 4}
    assert plan(Task(12, EVEN), at, {"a": 8, "b": 4}, Outlook(stuck={"b": 2}, full=full)) == {"a": 8, "b": 4}
    assert plan(Task(18, EVEN), at, {"a": 8, "b": 4}, Outlook(stuck={"b": 2}, full=full)) == {"a": 9, "b": 9}
    assert plan(Task(10, EVEN), at, {"a": 8, "b": 4}, Outlook(stuck={"b": 2}, full=full)) == {"a": 8, "b": 2}
    assert plan(Task(8, EVEN), at, {"a": 8, "b": 2}, Outlook(full=full)) == {"a": 6, "b": 2}, "and nothing is to wait"
    kept = [*_open("a"), Place("b", False, True)]
    assert plan(Task(9, EVEN), kept, {"a": 2, "b": 7}, Outlook(stuck={"a": 1}, full=full)) == {"a": 2, "b": 7}


def test_even_is_even_and_moves_as_little_as_it_can() -> None:
    at = _open("a", "b", "c")
    assert plan(Task(7, EVEN), at, {}, Outlook()) == {"a": 3, "b": 2, "c": 2}
    assert plan(Task(8, EVEN), at, {"a": 2, "b": 2, "c": 3}, Outlook()) == {"a": 3, "b": 2, "c": 3}
    assert plan(Task(6, EVEN), at, {"a": 3, "b": 3}, Outlook()) == {"a": 2, "b": 2, "c": 2}
    full = Outlook(stuck={"c": 1}, full=frozenset("c"))
    assert plan(Task(6, EVEN), at, {"a": 2, "b": 2, "c": 2}, full) == {"a": 3, "b": 2, "c": 1}


def test_fixed_is_as_said_and_what_is_closed_gets_no_more() -> None:
    task = Task(5, FIXED, {"a": 3, "b": 2})
    assert plan(task, _open("a", "b", "c"), {"c": 5}, ROOMY) == {"a": 3, "b": 2, "c": 0}
    assert plan(task, [Place("a", False, False), *_open("b")], {"a": 1}, ROOMY) == {"a": 1, "b": 2}
