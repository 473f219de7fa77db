"""Where replicas go, and when a share may be forgotten."""

from atoll.api.v1 import global_pb2, objects_pb2
from global_cp.core.spread import spread
from tests.support.global_core import GlobalCore, report, workload

ACTIVE, LOST = objects_pb2.REGION_STATE_ACTIVE, objects_pb2.REGION_STATE_LOST


def _regions(**states: "objects_pb2.RegionState.ValueType") -> dict[str, objects_pb2.Region]:
    return {name: objects_pb2.Region(state=state) for name, state in states.items()}


def test_the_first_allowed_active_region_takes_all() -> None:
    regions = _regions(a=LOST, b=ACTIVE, c=ACTIVE)
    assert spread(workload(regions=["c", "b"]).spec, regions, ()) == {"c": {"main": 2}}
    assert spread(workload(regions=["a", "b"]).spec, regions, ()) == {"b": {"main": 2}}
    assert spread(workload(regions=["a"]).spec, regions, ()) == {}
    assert spread(workload().spec, regions, ()) == {"b": {"main": 2}}


def test_without_a_preference_work_stays_where_it_is() -> None:
    assert spread(workload().spec, _regions(a=ACTIVE, b=ACTIVE), ["b"]) == {"b": {"main": 2}}


def test_a_new_preference_moves_the_share_and_forgets_the_old_one_when_closed() -> None:
    core = GlobalCore()
    core.elect()
    core.connect(1, "north")
    core.connect(2, "south")
    core.tenant()
    core.apply(workload(regions=["north"]))
    core.apply(workload(regions=["south", "north"]))
    old, new = (core.records.shares.get(region, "acme", "web") for region in ("north", "south"))
    assert old is not None and old.removed and new is not None and not new.removed
    core.say(2, workload=report(old, closed=True))  # not this region's to say
    assert core.records.shares.get("north", "acme", "web") is not None
    core.say(1, workload=report(old, closed=True))
    assert core.records.shares.get("north", "acme", "web") is None
    assert core.records.workloads.get("acme", "web") is not None
    core.clean()


def test_a_word_of_an_older_removal_closes_nothing() -> None:
    core = GlobalCore()
    core.elect()
    core.connect(1, "north")
    core.connect(2, "south")
    core.tenant()
    core.apply(workload(regions=["north"]))
    core.apply(workload(regions=["south"]))
    late = core.records.shares.get("north", "acme", "web")
    assert late is not None
    core.apply(workload(regions=["north"]))
    core.apply(workload(regions=["south"]))
    core.say(1, workload=report(late, closed=True))
    again = core.records.shares.get("north", "acme", "web")
    assert again is not None and again.removed and again.metadata.generation > late.metadata.generation
    core.clean()


def test_a_workload_that_no_region_has_goes_at_once() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant()
    core.apply(workload())
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web"))
    assert core.records.workloads.get("acme", "web") is None
    core.clean()
