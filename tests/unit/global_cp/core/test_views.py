"""What users read: filled copies, in order, in pages, and never the stored documents themselves."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from global_cp.core import views
from tests.support.global_core import UNIT, GlobalCore, ack, workload


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.elect()
    world.connect(1)
    for name in ("acme", "best"):
        world.tenant(name, UNIT * 10)
        for number in range(3):
            document = workload(f"w{number}", 1, owner=name)
            document.metadata.labels.add(key="tier", value=str(number))
            world.apply(document)
    world.pass_time(1_000)
    yield world
    world.clean()


def _names(found: list[objects_pb2.Workload]) -> list[str]:
    return [f"{w.metadata.tenant}/{w.metadata.name}" for w in found]


def test_pages_follow_each_other(core: GlobalCore) -> None:
    first = views.workloads(core.records, "", limit=4)
    last = first[-1].metadata
    rest = views.workloads(core.records, "", after=(last.tenant, last.name), limit=4)
    assert _names(first + rest) == [f"{t}/w{n}" for t in ("acme", "best") for n in range(3)]


def test_a_tenant_and_a_selector_narrow_the_list(core: GlobalCore) -> None:
    wanted = objects_pb2.LabelRequirement(key="tier", operator=objects_pb2.SELECTOR_OPERATOR_GT, values=["0"])
    assert _names(views.workloads(core.records, "best", [wanted])) == ["best/w1", "best/w2"]


def test_what_is_read_is_filled_and_what_is_stored_is_not(core: GlobalCore) -> None:
    found = views.workload(core.records, "acme", "w0")
    stored = core.records.workloads.get("acme", "w0")
    assert found is not None and found.metadata.revision and found.status.conditions
    assert stored is not None and not stored.metadata.revision and not stored.HasField("status")


def test_a_tenant_shows_what_is_granted_and_used(core: GlobalCore) -> None:
    slice_ = core.records.slices.get("acme", "north")
    assert slice_ is not None
    core.say(1, slice_ack=ack(slice_, UNIT * 3, UNIT * 2))
    shown = views.tenant(core.records, "acme")
    assert shown is not None
    assert (shown.status.granted, shown.status.used) == ((UNIT * 3).to_proto(), (UNIT * 2).to_proto())
    assert not shown.status.converging
    core.tenant("acme", UNIT)
    shown = views.tenant(core.records, "acme")
    assert shown is not None and shown.status.converging and shown.status.effective == (UNIT * 3).to_proto()


def test_the_regions_that_hold_a_workload(core: GlobalCore) -> None:
    assert views.regions_holding(core.records, "acme", "w0") == ["north"]
    assert views.regions_holding(core.records, "acme", "") == ["north"]
    assert views.regions_holding(core.records, "acme", "nothing") == []


def test_a_region_shows_its_summary_as_last_heard(core: GlobalCore) -> None:
    heard = objects_pb2.RegionSummary(nodes_total=3, capacity=Vector(1, 1).to_proto())
    shown = views.region(core.records, "north", heard, True)
    assert shown is not None and shown.summary == heard and shown.metadata.revision
    assert views.region(core.records, "nowhere", None, False) is None
