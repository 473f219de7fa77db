"""Ends of attempts: jobs, failures, scaling, rolling updates."""

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.accounts import NONE
from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld, status, task

DONE, WAITING = objects_pb2.SLOT_STATE_DONE, objects_pb2.SLOT_STATE_WAITING
CLOSED = agent_pb2.ATTEMPT_PHASE_CLOSED
JOB = objects_pb2.WORKLOAD_TYPE_JOB


def test_a_job_that_completed_is_done_and_stays_so(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1")
    world.share("job", task(), type=JOB)
    world.close(session, *world.slots(), reason="Completed")
    world.advance(2_000, beating=[session])
    assert not world.slots()
    assert len(world.slots(DONE)) == 1
    assert world.reports("job")[-1].counts.succeeded == 1
    assert world.state.accounts["acme"].bound == NONE


def test_a_failed_replica_backs_off_and_goes_elsewhere(world: RegionalWorld) -> None:
    session = world.join("n1")
    other = world.join("n2")
    world.share("web", task())
    (first,) = world.slots()
    assert first.node == "n1"
    world.close(session, first, reason="Failed", code=1)
    (waiting,) = world.slots(WAITING)
    assert (waiting.tries, waiting.exit.code) == (1, 1)
    assert not world.slots()
    world.advance(1_500, beating=[session, other])
    (second,) = world.slots()
    assert (second.node, second.tries) == ("n2", 1)


def test_a_failed_replica_goes_back_where_there_is_no_other_node(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task())
    for tries in range(1, 4):
        world.close(session, *world.slots(), reason="Failed", code=1)
        world.advance(700 << (tries - 1), beating=[session])
        assert not world.slots()
        world.advance(600 << (tries - 1), beating=[session])
        assert [s.tries for s in world.slots()] == [tries]


def test_what_is_ready_and_not_for_long_is_not_counted_on_and_not_stopped_first(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task(replicas=2, cpu=100))
    world.run(session, world.slots())
    world.share("web", task(replicas=2, cpu=200), generation=2)
    stops = world.messages(session, "stop")
    assert len(stops) == 1
    (first,) = [slot for slot in world.slots() if slot.attempt == stops[0].token.attempt]
    world.close(session, first)
    (fresh,) = [slot for slot in world.slots() if slot.generation == 2]
    running = agent_pb2.ATTEMPT_PHASE_RUNNING
    world.report(session, status(fresh, running, ready=True))
    assert len(world.messages(session, "stop")) == 1, "it may crash again at once"
    world.run(session, [fresh])
    assert len(world.messages(session, "stop")) == 2


def test_back_off_survives_a_takeover(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.join("n2")
    world.share("web", task())
    world.close(session, *world.slots(), reason="Failed", code=1)
    world.take_over()
    other = world.join("n2")
    world.join("n1")
    assert not world.slots()
    world.advance(1_500, beating=[other])
    assert [s.node for s in world.slots()] == ["n2"]


def test_a_job_is_given_up_after_its_tries(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(), type=JOB)
    for _ in range(world.settings.job_tries):
        world.close(session, *world.slots(), reason="Failed", code=3)
        world.advance(40_000, beating=[session])
    assert not world.slots()
    assert [s.exit.code for s in world.slots(DONE)] == [3]


def test_a_replica_that_is_never_restarted_is_done_when_it_fails(world: RegionalWorld) -> None:
    session = world.join("n1")
    never = objects_pb2.RestartPolicy(mode=objects_pb2.RESTART_MODE_NEVER)
    world.share("web", task(restart=never))
    world.close(session, *world.slots(), reason="Failed", code=1)
    assert len(world.slots(DONE)) == 1


def test_scaling_down_closes_the_highest_indices_and_forgets_them(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task(replicas=4))
    slots = world.slots()
    world.share("web", task(replicas=2), generation=2)
    assert [s.slot.index for s in world.messages(session, "stop")] == [2, 3]
    world.close(session, *slots[2:])
    assert [s.id.index for s in world.slots()] == [0, 1]
    assert not world.slots(DONE)
    assert world.slots() == slots[:2], "scaling moves nothing else"


def test_scaling_up_again_while_the_old_replica_still_stops(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task(replicas=2))
    slots = world.slots()
    world.share("web", task(replicas=1), generation=2)
    world.share("web", task(replicas=2), generation=3)
    assert len(world.slots()) == 2
    world.close(session, slots[1])
    again = world.slots()[1]
    assert again.attempt.n > slots[1].attempt.n
    assert again.generation == 3


def test_a_rolling_update_keeps_three_quarters_up(world: RegionalWorld) -> None:
    session = world.join("n1", capacity=Vector(100_000, 100_000))
    world.share("web", task(replicas=8))
    world.run(session, world.slots())
    world.share("web", task(replicas=8, command=["new"]), generation=2)
    stopped = 0
    for _ in range(20):
        stops = world.messages(session, "stop")[stopped:]
        if not stops:
            break
        assert len(stops) <= 2
        stopped += len(stops)
        old = [s for s in world.slots() if s.generation == 1 and any(s.id == stop.slot for stop in stops)]
        world.close(session, *old)
        world.run(session, [s for s in world.slots() if s.generation == 2])
    assert [s.generation for s in world.slots()] == [2] * 8


def test_outdated_replicas_that_serve_nobody_are_replaced_at_once(world: RegionalWorld) -> None:
    session = world.join("n1", capacity=Vector(100_000, 100_000))
    world.share("web", task(replicas=8))
    world.report(session, *(status(s, agent_pb2.ATTEMPT_PHASE_BACKOFF) for s in world.slots()))
    world.share("web", task(replicas=8, command=["fixed"]), generation=2)
    assert len(world.messages(session, "stop")) == 8


def test_an_outdated_assignment_that_never_arrived_is_never_started(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    (old,) = world.slots()
    world.share("web", task(command=["new"]), generation=2)
    again = world.join("n1")
    (sync,) = world.messages(again, "sync")
    assert not sync.assignments
    assert [s.token.attempt for s in sync.stops] == [old.attempt]
    world.close(again, old)
    assert [a.generation for a in world.messages(again, "assign")] == [2]


def test_what_is_outdated_is_known_after_a_takeover(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task(replicas=2))
    old = world.slots()
    world.run(session, old)
    world.share("web", task(replicas=2, command=["new"]), generation=2)
    world.take_over()
    running = [status(s, agent_pb2.ATTEMPT_PHASE_RUNNING, ready=True, healthy=True) for s in old]
    again = world.join("n1", inventory=running)
    (sync,) = world.messages(again, "sync")
    assert [a.HasField("task") for a in sync.assignments] == [False], "go on, but start nothing of it"
    assert [s.reason for s in sync.stops] == ["outdated"], "one at a time"


def test_a_recreated_workload_of_the_same_name_is_another_one(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task())
    (old,) = world.slots()
    world.run(session, [old])
    world.share("web", task(), removed=True)
    world.close(session, old)
    world.share("web", task())
    assert [s.attempt.n for s in world.slots()] == [2]


def test_a_stopped_replica_nobody_asked_to_stop_is_bound_again_at_once(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task())
    world.close(session, *world.slots(), reason="Stopped")
    assert [s.tries for s in world.slots()] == [0]


def test_a_late_status_after_the_certificate_changes_nothing(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(), type=JOB)
    (slot,) = world.slots()
    world.hold = True
    world.share("other", task(replicas=0))
    world.close(session, slot, reason="Completed")
    world.run(session, [slot])
    world.release_held()
    assert [s.exit.reason for s in world.slots(DONE)] == ["Completed"]


def test_what_ended_while_unwanted_is_bound_again_when_wanted_and_counts_as_waiting_until_then() -> None:
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(100_000, 100_000), seq=1)
    world.uplink()
    session = world.join("n1")
    world.share("web", task(replicas=2))
    slots = world.slots()
    world.share("web", task(replicas=0), generation=2)
    world.hold = True
    ends = zip(slots, ("Stopped", "Completed"), strict=True)
    world.report(session, *(status(s, CLOSED, exit=objects_pb2.Exit(reason=reason)) for s, reason in ends))
    world.share("web", task(replicas=2), generation=3)  # admitted before the records are forgotten
    assert [commit.plan.operation for commit in world.held] == ["RELEASE", "ADMIT-SHARE"]
    for _ in range(2):
        world.settle(world.held.pop(0))
    assert [s.exit.reason for s in world.slots(DONE)] == ["Stopped", "Completed"]
    world.advance(500, beating=[session])
    counts = world.reports("web")[-1].counts
    assert (counts.desired, counts.waiting, counts.failed, counts.succeeded) == (2, 2, 0, 0)
    world.release_held()
    assert len(world.slots()) == 2
    world.check()
