"""Rounds of decisions are bounded: what is heard between them is handled, and nothing is passed over."""

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.core import events
from tests.support.regional_world import RegionalWorld, task


def parked_for_a_zone(workloads: int, **settings: int) -> RegionalWorld:
    """All of them looked at, and parked, one by one."""
    world = RegionalWorld(**settings)
    world.win()
    world.grant("acme", Vector(10**9, 10**9, 10**9), seq=1)
    world.join("n1", labels={"zone": "a"})
    for i in range(workloads):
        world.share(f"w{i}", task(node_selector=[objects_pb2.Label(key="zone", value="c")]))
        world.tell(events.Woke())
    assert len(world.state.queue.parked) == workloads
    return world


def test_a_round_stops_after_so_many_classes_and_goes_on_when_woken() -> None:
    world = parked_for_a_zone(10, round_evaluations=6)
    session = world.join("n2", labels={"zone": "b"})  # might have cured all
    assert len(world.state.queue.parked) == 6
    assert world.machine.next_deadline() == world.now_ms, "it is to be woken at once"
    world.tell(events.NodeHeartbeat(session, 1))
    assert len(world.messages(session, "ack")) == 1
    assert len(world.state.queue.parked) == 6, "what comes between is handled alone"
    for parked in (9, 10):  # at two nodes, three classes a round
        world.tell(events.Woke())
        assert len(world.state.queue.parked) == parked
    assert world.machine.next_deadline() != world.now_ms
    world.check()


def test_what_comes_last_in_a_long_round_is_reached_though_nodes_change_all_the_time() -> None:
    world = parked_for_a_zone(12, round_evaluations=4)
    world.join("b", labels={"zone": "b"})
    world.now_ms += 10
    world.share("last", task())  # younger than the others, while others are still to be looked at
    assert not world.slots()
    for i in range(13):
        world.join(f"b{i}", labels={"zone": "b"})
        world.tell(events.Woke())
    assert [s.id.workload for s in world.slots()] == ["last"]
    world.check()


def test_a_round_is_bounded_however_few_the_nodes_are() -> None:
    world = parked_for_a_zone(10, round_looks=4)
    world.join("n2", labels={"zone": "b"})  # might have cured all
    assert len(world.state.queue.parked) == 4
    for parked in (8, 10):
        world.tell(events.Woke())
        assert len(world.state.queue.parked) == parked
    world.check()
