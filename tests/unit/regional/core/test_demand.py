"""What waits and what is bound follows the workloads, one marked at a time."""

import pytest

from atoll.api.v1.objects_pb2 import PRIORITY_LOW as LOW
from atoll.errors import InvariantBroken
from atoll.model.resources import Vector
from regional.core import bursting, demand, events
from regional.core.demand import Demand, Sums
from regional.core.records import WorkloadEntry
from tests.support.regional_world import RegionalWorld, task


def test_only_what_was_marked_is_counted_anew() -> None:
    world = RegionalWorld()
    world.win()
    world.uplink()
    world.grant("acme", Vector(3_000, 1_000_000), seq=1)
    world.join("n1")
    world.share("web", task(replicas=5, cpu=1_000))
    known, place = Demand(), ("acme", "web")
    known.refresh(world.state.workloads)
    assert known.all == Sums()
    with pytest.raises(InvariantBroken):
        known.check(world.state.workloads)
    known.mark(place)
    known.check(world.state.workloads)
    assert (known.all.bound, known.all.waiting, known.all.asked.cpu_milli) == (3, 2, 2_000)
    assert known.waiting == {"acme": 2}
    known.mark(place)
    known.refresh({})
    assert (known.all, known.waiting) == (Sums(), {})


def granted(cpu_milli: int, memory_mib: int) -> RegionalWorld:
    world = RegionalWorld()
    world.win()
    world.uplink()
    world.grant("acme", Vector(cpu_milli, memory_mib), seq=1)
    return world


def test_what_may_burst_is_summed_by_what_one_asks_for_and_never_looked_through() -> None:
    world = granted(0, 0)
    for name in ("a", "b", "c"):
        world.share(name, task(replicas=2, cpu=1_000, memory=10), priority=LOW)
    world.share("d", task(replicas=1, cpu=500, memory=10), priority=LOW)
    world.share("web", task(replicas=9, cpu=1_000, memory=10))
    bursting.look(world.state)
    assert world.state.demand.bursting == {"acme": {Vector(500, 10): 1, Vector(1_000, 10): 6}}
    assert world.state.account("acme").wanted == Vector(6_500, 70)
    world.state.workloads.clear()
    bursting.look(world.state)
    assert world.state.account("acme").wanted == Vector(6_500, 70)


def test_what_is_about_to_be_bound_waits_for_burst_no_more() -> None:
    world = granted(0, 0)
    world.join("n1")
    world.share("low", task(replicas=3, cpu=1_000, memory=10), priority=LOW)
    bursting.look(world.state)
    assert world.state.account("acme").wanted == Vector(3_000, 30)
    world.hold = True
    world.grant("acme", Vector(1_000, 10), seq=2)
    while not any(commit.plan.operation == "BIND" for commit in world.held):
        world.settle(world.held.pop(0))
    bursting.look(world.state)
    assert world.state.account("acme").wanted == Vector(2_000, 20), "one of three is charged to the quota"
    world.release_held(lose="before")
    bursting.look(world.state)
    assert world.state.account("acme").wanted == Vector(2_000, 20)
    world.check()


def test_a_takeover_counts_as_it_reads_and_a_welcome_counts_no_more_than_a_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many workloads there are: else no lease would be renewed meanwhile."""
    world, counted, count = RegionalWorld(round_looks=3), [0], demand.sums_of

    def counting(workload: WorkloadEntry) -> Sums:
        counted[0] += 1
        return count(workload)

    world.win()
    for number in range(12):
        world.share(f"w{number}", task())
    monkeypatch.setattr(demand, "MUCH", 3)
    monkeypatch.setattr(demand, "sums_of", counting)
    world.take_over()
    assert counted[0] >= 12
    while world.machine.next_deadline() == world.now_ms:
        world.tell(events.Woke())
    counted[0] = 0
    world.uplink()
    assert counted[0] < demand.MUCH
    assert {message.workload.workload for message in world.up if message.HasField("workload")} >= {"w0", "w11"}
    world.check()
