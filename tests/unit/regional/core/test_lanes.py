"""Two lanes: transactions of one leader that overtake each other, and the guards that make it harmless."""

import pytest

from atoll.api.v1 import objects_pb2
from atoll.lane import Committed, Rejected
from atoll.model.resources import Vector
from regional.core import commands, events
from tests.support.regional_world import START_MS, RegionalWorld, task


@pytest.fixture
def world() -> RegionalWorld:
    """A leader with two lanes, one node, and a workload that wants nothing yet."""
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(100_000, 100_000), seq=1)
    world.join("n1")
    world.share("web", task(replicas=0))
    return world


def bind_in_flight(world: RegionalWorld) -> commands.Commit:
    """Generation 2 is admitted and its BIND sent; further commits are held."""
    world.hold = True
    world.share("web", task(replicas=2, command=["two"]), generation=2)
    world.settle(world.held.pop())
    bind = world.held.pop()
    assert bind.plan.operation == "BIND"
    return bind


def test_no_bind_of_an_older_generation_applies_after_a_newer_one_is_admitted(world: RegionalWorld) -> None:
    bind = bind_in_flight(world)
    world.share("web", task(replicas=2, command=["three"]), generation=3)
    world.settle(world.held.pop())
    assert isinstance(world.settle(bind), Rejected)
    world.release_held()
    assert [s.generation for s in world.slots()] == [3, 3]
    world.check()


def test_a_bind_that_applied_before_but_is_answered_after_is_stopped_unstarted(world: RegionalWorld) -> None:
    session = 1
    bind = bind_in_flight(world)
    applied = world.apply(bind)
    assert isinstance(applied, Committed)
    world.share("web", task(replicas=2, command=["three"]), generation=3)
    world.settle(world.held.pop())
    world.tell(events.PlanSettled(bind.plan_id, applied, world.now_ms))
    assert not world.messages(session, "assign")
    assert len(world.messages(session, "stop")) == 2
    world.release_held()
    world.close(session, *world.slots())
    assert [a.generation for a in world.messages(session, "assign")] == [3, 3]
    world.check()


def test_nothing_is_bound_to_a_node_that_was_taken_for_lost_meanwhile(world: RegionalWorld) -> None:
    other = world.join("n2", capacity=Vector(1_000, 512))
    bind = bind_in_flight(world)
    while not any(c.plan.operation == "NODE" for c in world.held):
        while world.held:
            world.settle(world.held.pop())
        world.advance(500, beating=[other])
        assert world.now_ms < START_MS + 20_000
    world.settle(world.held.pop())
    assert world.node("n1").state == objects_pb2.NODE_STATE_LOST
    assert isinstance(world.settle(bind), Rejected)
    world.release_held()
    world.advance(2_000, beating=[other])
    assert [s.node for s in world.slots()] == ["n2"]
    world.check()


def test_a_refused_lane_rests_and_the_other_one_goes_on(world: RegionalWorld) -> None:
    bind = bind_in_flight(world)
    world.tell(events.PlanSettled(bind.plan_id, Rejected("denied: no permission"), world.now_ms))
    (retry,) = world.held
    assert (retry.plan.operation, retry.lane) == ("BIND", 1 - bind.lane)
    world.tell(events.PlanSettled(retry.plan_id, Rejected("denied: no permission"), world.now_ms))
    assert world.held == [retry], "both rest"
    deadline = world.machine.next_deadline()
    assert deadline is not None
    assert deadline > world.now_ms, "no busy waiting"


def test_a_workload_removed_under_a_bind_in_flight_is_closed(world: RegionalWorld) -> None:
    world.uplink()
    bind = bind_in_flight(world)
    world.share("web", removed=True, generation=3)
    world.settle(world.held.pop())
    assert isinstance(world.settle(bind), Rejected)
    world.release_held()
    world.advance(2_000)
    assert ("acme", "web") not in world.state.workloads
    assert world.reports("web")[-1].closed
    world.check()


def test_what_was_bound_before_a_loss_but_answered_after_is_replaced(world: RegionalWorld) -> None:
    other = world.join("n2", capacity=Vector(1_000, 512))
    bind = bind_in_flight(world)
    applied = world.apply(bind)
    while not any(c.plan.operation == "NODE" for c in world.held):
        while world.held:
            world.settle(world.held.pop())
        world.advance(500, beating=[other])
        assert world.now_ms < START_MS + 20_000
    world.settle(world.held.pop())
    while world.held:
        world.settle(world.held.pop())
    world.hold = False
    world.tell(events.PlanSettled(bind.plan_id, applied, world.now_ms))
    world.advance(2_000, beating=[other])
    assert [z.node for z in world.zombies()].count("n1") >= 1
    assert not [s for s in world.slots() if s.node == "n1"]
    world.check()
