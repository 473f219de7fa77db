"""Records that nobody wants any more: the FORGET of a workload's slots, one by one or as a range."""

from atoll.api.v1 import objects_pb2
from atoll.lane import Rejected
from atoll.model.resources import Vector
from atoll.store.store import Delete
from regional.core import commands, events, transactions
from tests.support.regional_world import RegionalWorld, task

JOB = objects_pb2.WORKLOAD_TYPE_JOB


def ended(world: RegionalWorld, replicas: int, *names: str) -> None:
    """Jobs all of whose replicas have completed."""
    session = world.join("n1", capacity=Vector(1_000_000, 1_000_000))
    for name in names or ("job",):
        world.share(name, task(replicas=replicas, cpu=1, memory=1), type=JOB)
        world.close(session, *world.slots(), reason="Completed")
    assert not world.slots()


def forgets(world: RegionalWorld) -> list[commands.Commit]:
    return [c for c in world.issued if isinstance(c, commands.Commit) and c.plan.operation == "FORGET"]


def test_a_removed_workload_goes_whole_in_one_transaction(world: RegionalWorld) -> None:
    ended(world, 300)
    world.share("job", removed=True, generation=2)
    (commit,) = forgets(world)
    assert len(commit.plan.writes) == 2
    assert not world.state.workloads and not world.slots(objects_pb2.SLOT_STATE_DONE)


def test_a_workload_of_a_like_name_keeps_its_slots(world: RegionalWorld) -> None:
    ended(world, 3, "job", "job-2")
    world.share("job", removed=True, generation=2)
    assert {slot.id.workload for slot in world.slots(objects_pb2.SLOT_STATE_DONE)} == {"job-2"}


def test_a_range_that_is_not_as_known_is_compared_slot_by_slot(world: RegionalWorld) -> None:
    ended(world, 5)
    world.hold = True
    world.share("job", removed=True, generation=2)
    world.settle(world.held.pop(0))  # ADMIT-SHARE
    doubtful = world.held.pop(0)
    assert doubtful.plan.operation == "FORGET"
    world.tell(events.PlanSettled(doubtful.plan_id, Rejected("stale"), world.now_ms))
    world.hold = False
    world.advance(2_000)
    careful = forgets(world)[-1]
    assert len(careful.plan.compares) == len(careful.plan.writes) == 6
    assert all(isinstance(write, Delete) and not write.range_end for write in careful.plan.writes)
    assert not world.state.workloads


def test_more_than_a_deletion_takes_goes_one_by_one_first() -> None:
    world = RegionalWorld(forget_batch_slots=100)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    ended(world, 250)
    world.share("job", removed=True, generation=2)
    assert [len(commit.plan.writes) for commit in forgets(world)] == [transactions.COMPARES - 1] * 2 + [2]
    assert not world.state.workloads
