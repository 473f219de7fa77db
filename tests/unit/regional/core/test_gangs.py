"""Gangs: all or none, whatever happens: too little room, changes, failures, a leader that dies between two steps."""

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from atoll.store import keys
from regional.core import commands, events
from tests.support.regional_world import ROOT, RegionalWorld, task

JOB = objects_pb2.WORKLOAD_TYPE_JOB
RESERVED, WAITING = objects_pb2.SLOT_STATE_RESERVED, objects_pb2.SLOT_STATE_WAITING
ROOM = Vector(4_000, 8_192)


def operations(world: RegionalWorld) -> list[str]:
    """The names of what was committed, but for bookkeeping."""
    names = [c.plan.operation for c in world.issued if isinstance(c, commands.Commit)]
    return [name for name in names if name not in ("TOUCH", "NODE", "APPLY-SLICE", "ADMIT-SHARE", "NOTE-GLOBAL")]


def is_committed(world: RegionalWorld, name: str = "g", tenant: str = "acme") -> bool:
    return world.store.get(keys.gang(ROOT, tenant, name)) is not None


def member(replicas: int, cpu: int = 1_000, **fields: object) -> objects_pb2.Task:
    return task(replicas=replicas, cpu=cpu, gang=True, **fields)


def nodes(world: RegionalWorld, count: int) -> list[int]:
    """And a workload without replicas, so that the global plane is known."""
    world.share("first", task(replicas=0))
    return [world.join(f"n{i}", capacity=ROOM) for i in range(count)]


def test_a_gang_that_fits_is_reserved_committed_and_bound(world: RegionalWorld) -> None:
    sessions = nodes(world, 2)
    world.share("g", member(6), type=JOB)
    assert operations(world) == ["RESERVE", "GANG-COMMIT", "BIND-RESERVED"]
    assert len(world.slots()) == 6 and is_committed(world)
    assert sum(len(world.messages(s, "assign")) for s in sessions) == 6
    decisions = [d for d in world.decisions() if d.result == "Bound"]
    assert [len(d.placed) for d in decisions] == [6]
    assert decisions[0].feasible == decisions[0].nodes == len(decisions[0].scores) > 0 and decisions[0].quota


def test_a_gang_that_does_not_fit_whole_holds_nothing(world: RegionalWorld) -> None:
    nodes(world, 2)
    world.share("g", member(9), type=JOB)
    assert operations(world) == []
    assert not world.slots() and not world.slots(RESERVED)
    (parked,) = world.decisions()
    assert parked.filters[0].code == "GangNeedsRoom"
    assert "there is room for 8 of 9" in parked.filters[0].message
    world.join("n2", capacity=ROOM)
    assert len(world.slots()) == 9


def test_a_gang_waits_for_its_part_of_a_parallelism(world: RegionalWorld) -> None:
    nodes(world, 2)
    share = world.share("g", member(2, parallelism=2), type=JOB, tell=False)
    share.parallel.add(task="main", replicas=0)
    world.tell_share(share)
    assert operations(world) == [], "another region may run it still"
    share = world.share("g", member(2, parallelism=2), type=JOB, tell=False)
    share.parallel.add(task="main", replicas=2)
    world.tell_share(share)
    assert len(world.slots()) == 2


def test_quota_for_a_part_is_none(world: RegionalWorld) -> None:
    nodes(world, 2)
    world.grant("acme", Vector(3_000, 1_000_000), seq=2)
    world.share("g", member(4), type=JOB)
    assert not world.slots() and operations(world) == []
    assert [r.code for r in world.decisions()[-1].filters] == ["QuotaExhausted"]
    world.grant("acme", Vector(4_000, 1_000_000), seq=3)
    assert len(world.slots()) == 4


def test_all_tasks_of_a_workload_that_say_so_are_one_gang(world: RegionalWorld) -> None:
    nodes(world, 1)
    workers = task("workers", replicas=3, gang=True)
    world.share("g", workers, task("driver", cpu=2_000, gang=True), task("logs", cpu=100), type=JOB)
    assert {slot.id.task for slot in world.slots()} == {"logs"}, "there is room for all but one"
    world.join("n1", capacity=ROOM)
    assert len(world.slots()) == 5


def test_a_large_gang_takes_several_transactions(world: RegionalWorld) -> None:
    world.join("big", capacity=Vector(1_000_000, 1_000_000))
    world.share("g", member(300, cpu=100), type=JOB)
    assert operations(world) == ["RESERVE"] * 3 + ["GANG-COMMIT"] + ["BIND-RESERVED"] * 3
    assert len(world.slots()) == 300


def test_nothing_runs_before_the_commit(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.hold = True
    world.share("g", member(2), type=JOB)
    for name in ("ADMIT-SHARE", "RESERVE", "GANG-COMMIT"):
        (commit,) = world.held
        assert commit.plan.operation == name
        world.held.clear()
        world.settle(commit)
        assert not world.messages(session, "assign")
    world.release_held()
    assert len(world.messages(session, "assign")) == 2


@pytest.mark.parametrize("lose", ["", "before", "after"])
@pytest.mark.parametrize("steps", range(1, 5))
def test_a_leader_that_dies_between_any_two_steps(world: RegionalWorld, steps: int, lose: str) -> None:
    """Before the commit everything is swept and starts anew; after it everything is rolled forward."""
    nodes(world, 2)
    world.hold = True
    share = world.share("g", member(5), type=JOB)
    for step in range(steps):
        commit = world.held.pop(0)
        world.settle(commit, lose=lose if step == steps - 1 else "")
    committed = is_committed(world)
    before = {(slot.id.index, slot.attempt.n) for slot in (*world.slots(), *world.slots(RESERVED))}
    world.hold = False
    world.take_over()
    sessions = nodes(world, 2)
    world.tell(events.ShareArrived(share))  # as the global plane does when the new leader says hello
    world.advance(3_000, beating=sessions)
    assert len(world.slots()) == 5 and is_committed(world)
    after = {(slot.id.index, slot.attempt.n) for slot in world.slots()}
    assert not committed or before == after, "what was committed is rolled forward, not placed anew"


def test_a_refused_member_goes_elsewhere_or_all_is_swept() -> None:
    """n0 is cordoned, at the store before the second of two RESERVEs."""
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    nodes(world, 0)
    first = world.join("n0", capacity=Vector(200_000, 200_000))
    world.hold = True
    world.share("g", member(150, memory=64), type=JOB)
    world.settle(world.held.pop(0))  # the share
    one, two = world.held
    assert {one.plan.operation, two.plan.operation} == {"RESERVE"}
    world.held.clear()
    world.settle(one)
    world.ask_node("n0", duty=2)
    (cordon,) = [commit for commit in world.held if commit.plan.operation == "CHANGE-NODE"]
    world.held.clear()
    world.settle(cordon)
    assert world.slots(RESERVED)
    world.hold = False
    world.settle(two)
    world.advance(1_000, beating=[first])
    assert "SWEEP" in operations(world)
    assert not world.slots(RESERVED) and not is_committed(world)
    second = world.join("n1", capacity=Vector(200_000, 200_000))
    world.advance(60_000, beating=[first, second])
    assert len(world.slots()) == 150
    world.check()


def test_a_change_before_the_commit_sweeps_what_was_reserved() -> None:
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    nodes(world, 1)
    world.hold = True
    world.share("g", member(2), type=JOB)
    world.settle(world.held.pop(0))  # the share
    world.settle(world.held.pop(0))  # RESERVE
    assert len(world.slots(RESERVED)) == 2
    world.share("g", member(3), type=JOB, generation=2)
    commit, admission = world.held
    assert [commit.plan.operation, admission.plan.operation] == ["GANG-COMMIT", "ADMIT-SHARE"]
    world.held.clear()
    world.settle(admission)
    world.hold = False
    world.settle(commit)
    world.release_held()
    assert operations(world).count("SWEEP") == 1
    assert len(world.slots()) == 3
    world.check()


def test_the_workload_may_be_deleted_at_any_moment(world: RegionalWorld) -> None:
    nodes(world, 1)
    world.hold = True
    world.share("g", member(2), type=JOB)
    world.settle(world.held.pop(0))
    world.settle(world.held.pop(0))
    world.hold = False
    world.held.clear()
    world.take_over()
    session = world.join("n0", capacity=ROOM)
    world.share("g", member(2), type=JOB, generation=2, removed=True)
    world.close(session, *world.slots())
    world.advance(5_000, beating=[session])
    assert not world.slots() and not world.slots(RESERVED) and not is_committed(world)
    assert ("acme", "g") not in world.state.workloads


def test_the_record_of_a_deleted_workload_stands_until_no_member_is_bound(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("g", member(2))
    slots = world.slots()
    world.share("g", member(2), generation=2, removed=True)
    assert is_committed(world)
    world.close(session, *slots)
    assert not is_committed(world) and ("acme", "g") not in world.state.workloads


def test_a_failed_member_of_a_job_starts_the_whole_gang_again(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("g", member(3), type=JOB)
    slots = world.slots()
    world.run(session, slots)
    world.close(session, slots[0], reason="Failed", code=1)
    stops = world.messages(session, "stop")
    assert [stop.slot.index for stop in stops] == [1, 2]
    assert "main/0 Failed" in stops[0].reason
    world.close(session, slots[1])
    world.advance(10_000, beating=[session])
    assert len(world.slots()) == 1, "nobody starts again before all have ended"
    world.close(session, slots[2])
    world.advance(10_000, beating=[session])
    assert len(world.slots()) == 3
    assert operations(world).count("GANG-DISSOLVE") == 1
    assert sorted(slot.tries for slot in world.slots()) == [0, 0, 1]


def test_what_has_completed_stays_so(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("g", member(3), type=JOB)
    slots = world.slots()
    world.run(session, slots)
    world.close(session, slots[2], reason="Completed")
    world.close(session, slots[0], reason="Failed", code=1)
    world.close(session, slots[1])
    world.advance(10_000, beating=[session])
    assert [slot.id.index for slot in world.slots()] == [0, 1]


def test_a_gang_starts_again_though_the_last_of_the_others_completes(world: RegionalWorld) -> None:
    """It was being stopped because another member failed, and completed before it heard of that."""
    (session,) = nodes(world, 1)
    world.share("g", member(3), type=JOB)
    slots = world.slots()
    world.run(session, slots)
    world.close(session, slots[1], reason="Failed", code=1)
    world.close(session, slots[0], reason="Completed")
    world.close(session, slots[2], reason="Completed")
    world.advance(10_000, beating=[session])
    assert [slot.id.index for slot in world.slots()] == [1]


def test_a_member_of_a_service_is_replaced_alone(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("g", member(3))
    slots = world.slots()
    world.run(session, slots)
    world.close(session, slots[0], reason="Failed", code=1)
    world.advance(10_000, beating=[session])
    assert len(world.slots()) == 3
    assert not world.messages(session, "stop")
    assert operations(world)[-1] == "BIND"


def test_a_service_that_lost_all_members_starts_as_one(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("g", member(3))
    world.run(session, world.slots())
    world.share("other", task(cpu=2_000), tenant="acme")
    for slot in world.slots():
        if slot.id.workload == "g":
            world.close(session, slot, reason="Failed", code=1)
    world.advance(10_000, beating=[session])
    assert operations(world).count("GANG-DISSOLVE") == 1
    bound = [slot.id.workload for slot in world.slots()]
    assert bound == ["other"], "two of three would fit"
    world.join("n1", capacity=ROOM)
    world.advance(10_000, beating=[session])
    assert len(world.slots()) == 4


def test_two_gangs_never_hold_room_that_the_other_waits_for(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("a", member(3), type=JOB)
    world.share("b", member(3), type=JOB)
    assert len(world.slots()) == 3 and not world.slots(RESERVED)
    first = world.slots()
    for slot in first:
        world.close(session, slot, reason="Completed")
    world.advance(5_000, beating=[session])
    assert {slot.id.workload for slot in world.slots()} == {"b"}


def test_an_update_of_a_service_gang_rolls(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("g", member(3))
    world.run(session, world.slots())
    world.share("g", member(3, command=["other"]), generation=2)
    for _ in range(6):
        stopping = {stop.slot.index for stop in world.messages(session, "stop")}
        olds = [slot for slot in world.slots() if slot.generation == 1 and slot.id.index in stopping]
        if olds:
            world.close(session, *olds)
        world.run(session, [slot for slot in world.slots() if slot.generation == 2])
    assert {slot.generation for slot in world.slots()} == {2} and len(world.slots()) == 3


def test_a_service_that_becomes_a_gang_starts_anew_together(world: RegionalWorld) -> None:
    (session,) = nodes(world, 1)
    world.share("g", task(replicas=2))
    olds = world.slots()
    world.run(session, olds)
    world.share("g", member(2), generation=2)
    assert len(world.messages(session, "stop")) == 2
    world.close(session, *olds)
    assert len(world.slots()) == 2 and is_committed(world)


def test_a_gang_that_becomes_none_is_dissolved(world: RegionalWorld) -> None:
    nodes(world, 1)
    world.share("g", member(2))
    world.share("g", task(replicas=2), generation=2)
    assert not is_committed(world)


def test_what_was_about_to_be_bound_when_it_became_a_member_waits_for_the_others() -> None:
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    nodes(world, 1)
    world.hold = True
    world.share("g", task(replicas=3), type=JOB)
    world.settle(world.held.pop(0))
    (bind,) = world.held
    assert bind.plan.operation == "BIND"
    world.held.clear()
    world.share("g", member(5), type=JOB, generation=2)
    (admission,) = world.held
    world.held.clear()
    world.settle(admission)
    world.settle(bind)
    world.release_held()
    assert not world.slots() and not world.slots(RESERVED), "there is room for four"
    world.join("n1", capacity=ROOM)
    assert len(world.slots()) == 5 and is_committed(world)
    world.check()
