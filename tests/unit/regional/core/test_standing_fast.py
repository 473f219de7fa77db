"""What keeps lower work in the way of a higher one, as `why` tells it while that waits."""

from typing import Any

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.model import explain
from atoll.model.resources import Vector
from regional.core import events, views
from tests.support.regional_world import RegionalWorld, task

LOW, HIGH = objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_HIGH
JOB, SERVICE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.WORKLOAD_TYPE_SERVICE
ROOM = Vector(4_000, 8_192)


def full(world: RegionalWorld, run: bool = True, gang: bool = False, **fields: Any) -> int:
    """A node filled with four replicas of low priority."""
    session = world.join("n0", capacity=ROOM)
    world.share("low", task(replicas=4, gang=gang), priority=LOW, **fields)
    if run:
        world.run(session, world.slots())
    return session


def why(world: RegionalWorld, index: int = 0, name: str = "high") -> regional_pb2.SlotWhy:
    asked = regional_pb2.WhyRequest(tenant="acme", workload=name, index=index)
    (answer,) = views.why(world.state, asked, world.now_ms).slots
    return answer


def told(world: RegionalWorld, index: int = 0) -> str:
    """Behind what is the same of all; the last reason, after those of the filters."""
    *others, last = why(world, index).reasons
    assert [reason.code for reason in others] == ["InsufficientCpu"] and last.code == explain.STANDS_FAST
    return last.message.removeprefix(explain.SENTENCES[explain.STANDS_FAST] + ": ")


def test_a_budget_that_is_used_up_is_told_until_it_allows_the_next(world: RegionalWorld) -> None:
    session = full(world, type=SERVICE)
    world.share("high", task(replicas=2), priority=HIGH)
    (reserved,) = world.slots(objects_pb2.SLOT_STATE_RESERVED)
    waits = 1 - reserved.id.index
    assert told(world, waits) == f"on n0 room is being made for acme/high/main/{reserved.id.index} first"
    (stop,) = world.messages(session, "stop")
    world.close(session, *[s for s in world.slots() if (s.id.workload, s.id.index) == ("low", stop.slot.index)])
    assert told(world, waits) == "on n0 the disruption budget of acme/low/main is used up: 1 of 4 down, 1 may be"
    act = why(world, waits).next
    assert (act.actor, act.what) == ("region", "stops what gives way to it as soon as that may be stopped")
    world.advance(20_000, beating=[session])
    assert len(world.messages(session, "stop")) == 2, "the one that was stopped finds no room, and is down no longer"


@pytest.mark.parametrize(
    ("low", "kept"),
    [
        ({"gang": True, "type": JOB}, "acme/low/main is of a gang, of which nobody is stopped"),
        ({"run": False, "type": JOB}, "replicas of acme/low/main are only starting"),
    ],
)
def test_who_is_not_stopped_at_all_or_not_yet(world: RegionalWorld, low: dict[str, Any], kept: str) -> None:
    session = full(world, **low)
    world.share("high", task(), priority=HIGH)
    assert told(world) == f"on n0 {kept}" and not world.messages(session, "stop")


def test_what_ends_already_is_told(world: RegionalWorld) -> None:
    session = full(world, type=JOB)
    world.share("low", task(replicas=4), priority=LOW, type=JOB, removed=True, generation=2)
    world.share("high", task(), priority=HIGH)
    assert len(world.messages(session, "stop")) == 4
    assert told(world) == "on n0 replicas of acme/low/main are ending already"


def test_what_may_be_stopped_since_is_looked_at_again(world: RegionalWorld) -> None:
    session = full(world, run=False, type=JOB)
    world.share("high", task(), priority=HIGH)
    world.run(session, world.slots())
    assert told(world) == "on n0 it may be by now: that is looked at every 5 s"
    world.advance(6_000, beating=[session])
    assert why(world).reasons[-1].code == explain.PREEMPTING


def test_room_is_made_in_one_region_at_a_time(world: RegionalWorld) -> None:
    full(world, type=JOB)
    world.preempts = False
    world.share("high", task(), priority=HIGH)
    assert told(world) == "room is made for a workload in one region at a time"


def test_what_its_tenant_has_protected_is_told(world: RegionalWorld) -> None:
    world.grant("shop", Vector(100_000, 100_000), seq=1, protected=ROOM)
    session = world.join("n0", capacity=ROOM)
    world.share("low", task(replicas=4), tenant="shop", priority=LOW, type=JOB)
    world.run(session, world.slots())
    world.share("high", task(), priority=HIGH)
    assert told(world) == "on n0 it would take from what its tenant has protected, or stop too many at once"
    assert not world.messages(session, "stop")


@pytest.mark.parametrize(
    ("priority", "cpu"),
    [(LOW, 1_000), (HIGH, 5_000)],
    ids=["of the same priority", "more than the node has"],
)
def test_what_would_not_give_way_or_not_be_enough_is_no_reason(world: RegionalWorld, priority: int, cpu: int) -> None:
    full(world, type=JOB)
    world.share("high", task(cpu=cpu), priority=priority)
    assert [reason.code for reason in why(world).reasons] == ["InsufficientCpu"]


def test_what_finds_room_since_waits_for_its_turn_alone(world: RegionalWorld) -> None:
    full(world, run=False, type=JOB)
    other = world.join("n1", capacity=ROOM)
    world.tell(events.NodeStatus(other, agent_pb2.StatusReport(unfit="full")))
    world.share("high", task(), priority=HIGH)
    world.hold = True
    world.share("busy", task())
    world.tell(events.NodeStatus(other, agent_pb2.StatusReport(unfit="")))
    assert [reason.code for reason in why(world).reasons] == ["Queued"]
