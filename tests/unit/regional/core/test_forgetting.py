"""What nobody wants any more leaves memory too."""

from regional.core.commands import Commit
from tests.support.regional_world import ROOT, RegionalWorld, task


def test_a_task_that_the_share_names_no_more_is_forgotten_with_its_last_slot(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task("old"), task("main"))
    world.share("web", task("main"), generation=2)
    (web,) = world.state.workloads.values()
    assert set(web.tasks) == {"main", "old"}
    world.close(session, *(slot for slot in world.slots() if slot.id.task == "old"))
    assert set(web.tasks) == {"main"}
    world.share("web", task("main"), task("old"), generation=3)
    assert {slot.id.task for slot in world.slots()} == {"main", "old"}


def test_a_tenant_without_work_and_slice_is_forgotten(world: RegionalWorld) -> None:
    world.share("web", task(), tenant="nobody")
    assert "nobody" in world.state.accounts
    world.share("web", task(), tenant="nobody", generation=2, removed=True)
    assert "nobody" not in world.state.accounts
    assert "acme" in world.state.accounts, "its slice is still in force"


def remove_many(world: RegionalWorld, workloads: int) -> None:
    """So many workloads are removed and their last slots end; what is committed from the first FORGET on is held."""
    session = world.join("n1")
    for i in range(workloads):
        world.share(f"w{i}", task(replicas=2, cpu=1, memory=1))
        world.share(f"w{i}", generation=2, removed=True)
    world.hold = True
    world.close(session, *world.slots())
    while not forgets(world):
        world.settle(world.held.pop(0))


def forgets(world: RegionalWorld) -> list[Commit]:
    return [c for c in world.issued if isinstance(c, Commit) and c.plan.operation == "FORGET"]


def test_removed_workloads_are_forgotten_together_as_far_as_a_transaction_takes_them(world: RegionalWorld) -> None:
    remove_many(world, 50)
    world.release_held()
    first, second = forgets(world)
    assert sum(write.key.startswith(ROOT + b"workload/") for write in first.plan.writes) == 41, "three operations each"
    assert len(first.plan.writes) == 82 and len(second.plan.writes) == 18
    assert not world.slots() and not world.state.workloads


def test_a_refused_forget_is_tried_again_one_workload_at_a_time_and_slot_by_slot(world: RegionalWorld) -> None:
    remove_many(world, 5)
    world.release_held(lose="before")
    lost, *again = forgets(world)
    assert len(lost.plan.writes) == 10
    assert [len(one.plan.writes) for one in again] == [3] * 5, "its two slots and its own record"
    assert not world.slots() and not world.state.workloads


def test_a_new_leader_looks_for_what_is_to_be_forgotten_a_few_workloads_at_a_time() -> None:
    world = RegionalWorld(round_looks=2)
    world.win()
    for index in range(6):
        world.share(f"w{index}", task())
    world.take_over()
    left = len(world.state.forgettable)
    assert 0 < left < 6
    while left:
        assert (world.machine.next_deadline() or 0) <= world.now_ms + 1
        world.advance(1)
        assert len(world.state.forgettable) < left
        left = len(world.state.forgettable)
    world.check()
