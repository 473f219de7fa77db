"""Protected parts: refused where they could not all be kept, budgeted before anybody needs them, told to the region."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Conflict, Invalid, QuotaExceeded
from atoll.model.resources import NOTHING, Vector, vector
from global_cp.core.events import RegionGone
from tests.support.global_core import GlobalCore, ack, granted, shrink_target, workload

UNIT = Vector(500, 256)


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.elect()
    world.connect(1)
    world.connect(2, region="south")
    room = (UNIT * 20).to_proto()
    world.say(1, summary=objects_pb2.RegionSummary(nodes_ready=1, nodes_total=1, capacity=room, free=room))
    yield world
    world.clean()


def told(answer: object) -> list[tuple[str, str]]:
    assert isinstance(answer, Invalid)
    return [(mistake.path, mistake.message) for mistake in answer.mistakes]


def test_what_could_not_be_kept_is_refused_all_at_once(core: GlobalCore) -> None:
    core.tenant(quota=UNIT * 30, north=UNIT * 15)
    refused = told(core.tenant("other", UNIT * 8, north=UNIT * 6, south=UNIT * 3, east=UNIT * 0))
    assert refused == [
        ("spec.protected[0].region", "region 'east' is not known; known are: north, south"),
        ("spec.protected[1].amount", "cpu: 10500m asked by all tenants in north, it has 10, missing 500m"),
        ("spec.protected[1].amount", "memory: 5376Mi asked by all tenants in north, it has 5Gi, missing 256Mi"),
        ("spec.protected", "cpu: 4500m asked in all, the quota is 4, missing 500m"),
        ("spec.protected", "memory: 2304Mi asked in all, the quota is 2Gi, missing 256Mi"),
    ]
    assert told(core.tenant("other", UNIT * 8, south=Vector(-1)))[0][0] == "spec.protected[0].amount.cpu"
    core.tenant("other", UNIT * 8, north=UNIT * 5)
    assert vector(core.slice_of("north", "other").protected) == UNIT * 5


def test_it_is_granted_before_it_is_needed_and_stays(core: GlobalCore) -> None:
    core.tenant(quota=UNIT * 10, south=UNIT * 4)
    assert granted(core.slice_of("south")) == UNIT * 4
    assert vector(core.slice_of("south").protected) == UNIT * 4
    core.apply(workload(replicas=9, regions=["north"]))
    assert granted(core.slice_of("north")) == UNIT * 6, "the rest of the quota, and no more"
    assert shrink_target(core.slice_of("south")) == UNIT * 4


def test_protected_no_more_it_goes_where_it_is_needed(core: GlobalCore) -> None:
    core.tenant(quota=UNIT * 10, south=UNIT * 4)
    core.apply(workload(replicas=9, regions=["north"]))
    core.tenant(quota=UNIT * 10)
    wanted = core.slice_of("south")
    assert (vector(wanted.protected), shrink_target(wanted)) == (NOTHING, NOTHING)
    core.say(2, slice_ack=ack(wanted, NOTHING))
    assert granted(core.slice_of("north")) == UNIT * 9


def test_what_others_have_protected_is_no_lack_of_quota(core: GlobalCore) -> None:
    core.tenant("other", UNIT * 20, north=UNIT * 20)
    core.tenant(quota=UNIT * 10)
    answer = core.apply(workload(replicas=9, regions=["north"], on_quota=objects_pb2.ON_QUOTA_REJECT))
    assert isinstance(answer, global_pb2.ApplyWorkloadResponse), "it waits for room"
    assert granted(core.slice_of("north")) == UNIT * 9


def test_quota_that_is_protected_where_a_workload_may_not_go_is_none_for_it(core: GlobalCore) -> None:
    core.tenant(quota=UNIT * 10, south=UNIT * 4)
    wanted = workload(replicas=7, regions=["north"], on_quota=objects_pb2.ON_QUOTA_REJECT)
    answer = core.apply(wanted)
    assert isinstance(answer, QuotaExceeded) and "cpu: 3500m asked in all, quota 3, missing 500m" in answer.message
    wanted.spec.regions.append("south")
    assert isinstance(core.apply(wanted), global_pb2.ApplyWorkloadResponse)


def test_a_deleted_tenant_gives_its_part_back_when_the_region_is_heard_again(core: GlobalCore) -> None:
    core.tenant(quota=UNIT * 10, south=UNIT * 4)
    core.post(RegionGone(2))
    core.ask(global_pb2.DeleteTenantRequest(name="acme"))
    core.elect()
    core.connect(3)
    core.pass_time(2 * core.settings.slice_validity_ms)
    told_south = core.slice_of("south")
    assert granted(told_south) == UNIT * 4 and not shrink_target(told_south), "south may still spend it"
    assert core.records.tenants.get("acme") is not None
    core.connect(4, region="south", term=2)
    assert core.sent(4, "slice_stamp")[-1].slice == core.slice_of("south")  # type: ignore[attr-defined]
    core.say(4, slice_ack=ack(core.slice_of("south"), NOTHING))
    assert core.records.tenants.get("acme") is None and core.records.slices.get("acme", "south") is None
    assert core.records.budgets.get("acme") is None


def test_its_name_is_free_again_when_the_budget_is_back(core: GlobalCore) -> None:
    core.tenant(quota=UNIT * 10, south=UNIT * 4)
    core.post(RegionGone(2))
    core.ask(global_pb2.DeleteTenantRequest(name="acme"))
    assert isinstance(core.tenant(quota=UNIT * 3), Conflict), "it is being deleted"
    core.connect(4, region="south", term=2)
    core.say(4, slice_ack=ack(core.slice_of("south"), NOTHING))
    core.tenant(quota=UNIT * 3)
    core.apply(workload(replicas=3, regions=["south"]))
    assert granted(core.slice_of("south")) == UNIT * 3
