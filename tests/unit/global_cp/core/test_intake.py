"""A full region slows the intake; nobody's flood keeps others out."""

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Busy
from global_cp.core.intake import is_full
from tests.support.global_core import GlobalCore, workload

Accepted = global_pb2.ApplyWorkloadResponse


def summary(limit: int, **waiting: int) -> objects_pb2.RegionSummary:
    queues = [objects_pb2.TenantQueue(tenant=tenant, waiting=count) for tenant, count in sorted(waiting.items())]
    return objects_pb2.RegionSummary(queue_limit=limit, slots_waiting=sum(waiting.values()), queues=queues)


@pytest.mark.parametrize(
    ("limit", "waiting", "tenant", "full"),
    [
        (10, {"acme": 9}, "acme", False),
        (10, {"acme": 10}, "acme", True),
        (10, {"acme": 10}, "other", False),
        (10, {"acme": 95, "other": 4}, "other", False),
        (10, {"acme": 95, "other": 5}, "other", True),
        (10, {}, "acme", False),
        (0, {"acme": 10**6}, "acme", False),
    ],
)
def test_a_queue_is_full_for_who_has_its_share_of_it(
    limit: int, waiting: dict[str, int], tenant: str, full: bool
) -> None:
    assert is_full(summary(limit, **waiting), tenant) == full


def test_a_full_region_slows_the_intake_until_it_has_room() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant("acme")
    core.tenant("other")
    core.connect(1, "north")
    assert isinstance(core.apply(workload("before", replicas=4)), Accepted)
    core.say(1, summary=summary(100, acme=100))
    refused = core.apply(workload("more"))
    assert isinstance(refused, Busy) and refused.code == "E5012" and refused.retry_after_ms > 0
    assert "north" in refused.message
    assert isinstance(core.apply(workload("before", replicas=5)), Busy)
    assert isinstance(core.apply(workload("before", replicas=3)), Accepted), "less is always heard"
    assert isinstance(core.apply(workload("others", owner="other")), Accepted), "who waits for little may come in"
    core.say(1, summary=summary(100, acme=99))
    assert isinstance(core.apply(workload("more")), Accepted)
    core.clean()


def test_one_region_with_room_is_enough() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant("acme")
    core.connect(1, "north")
    core.connect(2, "south")
    core.say(1, summary=summary(10, acme=10))
    assert isinstance(core.apply(workload("a")), Accepted), "south has not told of a bound"
    core.say(2, summary=summary(10, acme=10))
    assert isinstance(core.apply(workload("b")), Busy)
    core.say(2, summary=summary(10, acme=2))
    assert isinstance(core.apply(workload("b")), Accepted)
    assert isinstance(core.apply(workload("c", regions=["north"])), Busy), "only there may it go"
    core.clean()
