"""Interactive work goes before other work, and other work leaves it room."""

import pytest

from atoll.api.v1 import objects_pb2
from atoll.lane import Committed
from atoll.model.resources import Vector
from regional.core.commands import Commit
from tests.support.regional_world import ROOT, RegionalWorld, task

HIGH = objects_pb2.PRIORITY_HIGH


def world_of(lanes: int) -> RegionalWorld:
    world = RegionalWorld(lanes=lanes)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    world.join("n1", capacity=Vector(1_000_000, 1_000_000))
    world.share("before", small(0))
    return world


def small(replicas: int) -> objects_pb2.Task:
    return task(replicas=replicas, cpu=1, memory=1)


def slots_of(commit: Commit, workload: str = "") -> int:
    return sum(write.key.startswith(ROOT + f"slot/acme/{workload}".encode()) for write in commit.plan.writes)


def binds(world: RegionalWorld) -> list[Commit]:
    return [commit for commit in world.held if commit.plan.operation == "BIND"]


def settle_next(world: RegionalWorld, operation: str) -> None:
    commit = next(commit for commit in world.held if commit.plan.operation == operation)
    world.held.remove(commit)
    assert isinstance(world.settle(commit), Committed)


def test_without_interactive_work_every_lane_takes_the_largest_batches() -> None:
    world = world_of(lanes=2)
    world.share("batch", small(500), tell=True)
    assert [slots_of(commit) > 100 for commit in world.issued if isinstance(commit, Commit)].count(True) == 4
    world.hold = True
    world.share("more", small(500))
    settle_next(world, "ADMIT-SHARE")
    assert sorted(commit.lane for commit in binds(world)) == [0, 1]
    assert all(slots_of(commit) > 100 for commit in binds(world))


def test_beside_interactive_work_others_leave_a_lane_and_take_small_batches() -> None:
    world = world_of(lanes=2)
    world.share("asked", small(1), priority=HIGH)
    world.hold = True
    world.share("batch", small(500))
    settle_next(world, "ADMIT-SHARE")
    assert [(commit.lane, slots_of(commit)) for commit in binds(world)] == [(1, 20)]
    world.share("prompt", small(30), priority=HIGH)
    settle_next(world, "ADMIT-SHARE")
    prompt = next(commit for commit in binds(world) if commit.lane == 0)
    assert slots_of(prompt) == slots_of(prompt, "prompt") == 30, "at once, alone, and all of it"
    world.release_held()
    world.hold = False
    world.advance(world.settings.interactive_hold_ms, beating=())
    world.release_held()
    world.hold = True
    world.share("later", small(500))
    settle_next(world, "ADMIT-SHARE")
    assert all(slots_of(commit) > 20 for commit in binds(world)), "nobody waits any more"


def test_interactive_work_is_admitted_before_a_flood() -> None:
    world = world_of(lanes=1)
    world.hold = True
    world.share("first", small(0))
    for i in range(100):
        world.share(f"flood-{i}", small(0))
    world.share("prompt", small(1), priority=HIGH)
    settle_next(world, "ADMIT-SHARE")
    (admission,) = world.held
    assert [write.key for write in admission.plan.writes] == [ROOT + b"workload/acme/prompt"]


@pytest.mark.parametrize(("kib", "first"), [(512, 60), (1, 1)])
def test_shares_are_admitted_together_as_far_as_they_fit(kib: int, first: int) -> None:
    world = RegionalWorld(admission_batch_kib=kib)
    world.win()
    world.share("before", small(0))
    world.hold = True
    world.share("one", small(0))
    for i in range(100):
        world.share(f"more-{i}", objects_pb2.Task(name="main", command=["x" * 2_000]))
    settle_next(world, "ADMIT-SHARE")
    (admission,) = world.held
    assert len(admission.plan.writes) == first
    world.hold = False
    world.release_held()
    assert len(world.state.workloads) == 102 and not world.state.unsettled_shares
    assert all(workload.mod_revision for workload in world.state.workloads.values())


def test_on_a_lane_of_their_own_admissions_do_not_hold_up_bindings() -> None:
    world = world_of(lanes=2)
    world.share("seen", small(1), priority=HIGH)
    world.hold = True
    done = []
    for i in range(6):
        world.share(f"one-{i}", small(1), priority=HIGH)
        world.share(f"two-{i}", small(1), priority=HIGH)
        commit = next(commit for commit in world.held if commit.lane == 0)
        world.held.remove(commit)
        done.append(commit.plan.operation)
        world.settle(commit)
    assert done == ["ADMIT-SHARE", "BIND"] * 3
