"""Tries of a job's replicas: how many, how far apart, which ends count; parallelism; what is stopped or resumed."""

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld, task

DONE, WAITING = objects_pb2.SLOT_STATE_DONE, objects_pb2.SLOT_STATE_WAITING
JOB = objects_pb2.WORKLOAD_TYPE_JOB
BIG = Vector(100_000, 100_000)


def _retries(limit: int, **fields: object) -> objects_pb2.RetryPolicy:
    return objects_pb2.RetryPolicy(limit=limit, backoff_ms=1_000, backoff_max_ms=4_000, **fields)  # type: ignore[arg-type]


def _fail(world: RegionalWorld, session: int, code: int = 1, reason: str = "Failed") -> None:
    world.close(session, *world.slots(), reason=reason, code=code)


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_replica_has_so_many_tries_after_its_first(world: RegionalWorld, limit: int) -> None:
    session = world.join("n1")
    world.share("job", task(retries=_retries(limit)), type=JOB)
    for _ in range(limit):
        _fail(world, session)
        assert [slot.state for slot in world.slots(WAITING)] == [WAITING]
        world.advance(6_000, beating=[session])
    _fail(world, session, code=7)
    (done,) = world.slots(DONE)
    assert (done.exit.code, done.tries) == (7, limit + 1)
    world.advance(60_000, beating=[session])
    assert not world.slots()


def test_pauses_double_up_to_the_longest_and_differ_by_slot(world: RegionalWorld) -> None:
    session = world.join("n1", capacity=BIG)
    world.share("job", task(replicas=20, retries=_retries(9)), type=JOB)
    for longest in (1_000, 2_000, 4_000, 4_000):
        now_ms = world.now_ms
        _fail(world, session)
        pauses = [slot.not_before_ms - now_ms for slot in world.slots(WAITING)]
        assert all(longest * 0.75 <= pause <= longest * 1.25 for pause in pauses) and len(set(pauses)) > 10
        world.advance(6_000, beating=[session])


def test_a_fatal_exit_code_ends_it_at_once(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(retries=_retries(5, fatal_codes=[2, 64])), type=JOB)
    _fail(world, session, code=64)
    assert [slot.exit.code for slot in world.slots(DONE)] == [64]


def test_an_ignored_exit_code_and_a_lost_node_do_not_count(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(retries=_retries(0, ignored_codes=[75])), type=JOB)
    for _ in range(4):
        _fail(world, session, code=75)
        assert [slot.tries for slot in world.slots(WAITING)] == [0]
        world.advance(2_000, beating=[session])
    other = world.join("n2")
    world.advance(60_000, beating=[other])  # n1 falls silent and is lost
    (slot,) = world.slots()
    assert (slot.node, slot.tries) == ("n2", 0)


def test_tries_survive_a_takeover(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(retries=_retries(1)), type=JOB)
    _fail(world, session)
    world.take_over()
    session = world.join("n1")
    world.advance(6_000, beating=[session])
    _fail(world, session)
    assert len(world.slots(DONE)) == 1


def test_a_resumed_job_tries_again_what_failed_and_nothing_else(world: RegionalWorld) -> None:
    session = world.join("n1", capacity=BIG)
    spec = task(replicas=2, retries=_retries(0))
    world.share("job", spec, type=JOB)
    good, bad = world.slots()
    world.close(session, good, reason="Completed")
    world.close(session, bad, reason="Failed", code=1)
    world.share("job", spec, type=JOB, generation=2)
    assert not world.slots(), "another generation alone tries nothing again"
    world.share("job", spec, type=JOB, generation=3, resumed=3)
    (again,) = world.slots()
    assert (again.id.index, again.tries) == (1, 0)
    world.close(session, again, reason="Failed", code=1)
    assert not world.slots() and len(world.slots(DONE)) == 2


def test_another_run_class_moves_what_runs_and_does_nothing_again(world: RegionalWorld) -> None:
    session = world.join("n1", capacity=BIG)
    spec = task(replicas=4, retries=_retries(0))
    world.share("job", spec, type=JOB)
    good, bad, late, last = world.slots()
    world.close(session, good, reason="Completed")
    world.close(session, bad, reason="Failed", code=1)
    exclusive = objects_pb2.RUN_CLASS_EXCLUSIVE
    world.share("job", spec, type=JOB, generation=2, run_class=exclusive)
    world.close(session, late, reason="Completed")
    world.close(session, last, reason="Stopped")
    world.take_over()
    world.advance(2_000, beating=[world.join("n1", capacity=BIG)])
    (slot,) = world.slots()
    assert (slot.id.index, slot.run_class, slot.generation) == (last.id.index, exclusive, 2)
    assert {slot.id.index: slot.exit.reason for slot in world.slots(DONE)} == {
        0: "Completed",
        1: "Failed",
        2: "Completed",
    }
    spec.args[:] = ["another"]
    world.share("job", spec, type=JOB, generation=3, run_class=exclusive)
    assert {slot.id.index for slot in world.slots()} > {0, 1, 2}


def _parallel(world: RegionalWorld, replicas: int, part: int) -> None:
    share = world.share("job", task(replicas=replicas), type=JOB, tell=False)
    share.parallel.add(task="main", replicas=part)
    world.tell_share(share)


def test_no_more_run_at_once_than_the_parallelism(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1", capacity=BIG)
    _parallel(world, 5, 2)
    ended = 0
    while slots := world.slots():
        assert len(slots) == min(2, 5 - ended)
        assert world.reports("job")[-1].tasks[0].unplaced == 0, "they wait for each other, not for room"
        world.close(session, slots[0], reason="Completed")
        ended += 1
        world.advance(500, beating=[session])
    assert ended == 5 and world.reports("job")[-1].tasks[0].succeeded == 5


def test_parallelism_survives_a_takeover_and_follows_the_share(world: RegionalWorld) -> None:
    world.join("n1", capacity=BIG)
    _parallel(world, 5, 2)
    world.take_over()
    world.join("n1", capacity=BIG)
    assert len(world.slots()) == 2
    _parallel(world, 5, 4)
    assert len(world.slots()) == 4
    _parallel(world, 5, 0)
    assert len(world.slots()) == 4, "what runs goes on"


def test_what_runs_beyond_a_part_is_told_with_the_share_it_is_about(world: RegionalWorld) -> None:
    def said() -> tuple[int, int]:
        world.advance(500, beating=[session])
        report = world.reports("job")[-1]
        return report.share_revision, report.tasks[0].surplus

    world.uplink()
    session = world.join("n1", capacity=BIG)
    _parallel(world, 5, 2)
    first = said()
    assert first[0] > 0 and first[1] == 0
    _parallel(world, 5, 1)
    second = said()
    assert second[0] > first[0] and second[1] == 1
    world.close(session, world.slots()[0], reason="Completed")
    assert said() == (second[0], 0) and len(world.slots()) == 1


def test_of_a_stopped_task_only_what_has_ended_stays(world: RegionalWorld) -> None:
    session = world.join("n1", capacity=BIG)
    share = world.share("job", task(replicas=4), type=JOB, tell=False)
    share.parallel.add(task="main", replicas=3)
    world.tell_share(share)
    first, *others = world.slots()
    world.close(session, first, reason="Completed")
    share = world.share("job", task(replicas=1), type=JOB, tell=False)
    share.stopped.append("main")
    world.tell_share(share)
    assert len(world.messages(session, "stop")) == 3
    world.close(session, *world.slots())
    assert not world.slots() and not world.slots(WAITING)
    assert [slot.id.index for slot in world.slots(DONE)] == [0]
    assert "TaskStopped" in world.kinds("workload/acme/job")
    assert len(others) == 2


def test_what_never_could_start_is_a_try_too(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(retries=_retries(0)), type=JOB)
    _fail(world, session, code=-1, reason="StartFailed")
    assert [s.exit.reason for s in world.slots(DONE)] == ["StartFailed"]


@pytest.mark.parametrize("spread", [False, True])
def test_a_decision_tells_which_of_the_nodes_that_could_was_left_out(world: RegionalWorld, spread: bool) -> None:
    sessions = {name: world.join(name, labels={"zone": name}) for name in ("n1", "n2", "n3")}
    rules = [objects_pb2.TopologySpread(within="zone", max_skew=2)] if spread else []
    world.share("job", task(retries=_retries(9), topology_spread=rules), type=JOB)
    (first,) = world.slots()
    _fail(world, sessions[first.node])
    world.advance(6_000, beating=sessions.values())
    before, after = (d for d in world.decisions() if d.result == "Bound")
    assert not before.avoided and after.avoided == first.node
    assert after.feasible == 3 and {score.node for score in after.scores} == set(sessions) - {first.node}


def test_the_only_node_that_could_is_not_left_out(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(retries=_retries(9)), type=JOB)
    _fail(world, session)
    world.advance(6_000, beating=[session])
    assert [(d.avoided, d.node) for d in world.decisions() if d.result == "Bound"] == [("", "n1")] * 2
