"""Replicas that are placed and not well: what is told of them, and that it ends with its cause."""

from typing import Any

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import views
from tests.support.regional_world import RegionalWorld, status, task

BACKOFF, RUNNING = agent_pb2.ATTEMPT_PHASE_BACKOFF, agent_pb2.ATTEMPT_PHASE_RUNNING
ACCEPTED, CLOSED = agent_pb2.ATTEMPT_PHASE_ACCEPTED, agent_pb2.ATTEMPT_PHASE_CLOSED
MISSING = objects_pb2.Exit(code=-1, reason="StartFailed", message="ImageMissing: x:1 is not here: no route: refused")


def placed(world: RegionalWorld, replicas: int = 1, **spec: Any) -> int:
    """A workload `web` on the node n1; its session."""
    session = world.join("n1")
    world.grant("acme", Vector(100_000, 100_000, 100_000), seq=1)
    world.uplink()
    world.share("web", task(replicas=replicas, cpu=100), **spec)
    assert len(world.slots()) == replicas
    return session


def pending(world: RegionalWorld) -> dict[str, str]:
    world.advance(2_000)
    return {reason.code: reason.message for reason in world.reports("web")[-1].pending}


def why(world: RegionalWorld) -> dict[str, str]:
    request = regional_pb2.WhyRequest(tenant="acme", workload="web", index=0)
    (slot,) = views.why(world.state, request, world.now_ms).slots
    return {reason.code: reason.message for reason in slot.reasons}


def test_a_start_that_fails_is_told_by_the_agents_word_until_it_runs(world: RegionalWorld) -> None:
    session = placed(world)
    (slot,) = world.slots()
    world.report(session, status(slot, BACKOFF, exit=MISSING, restarts=2))
    expected = {"ImageMissing": "x:1 is not here: no route: refused; restarted 2 times"}
    assert why(world) == pending(world) == expected
    world.report(session, status(slot, RUNNING, ready=True, serving=True, exit=MISSING, restarts=3))
    assert why(world) == pending(world) == {}
    assert [kind for kind in world.kinds("workload/acme/web") if kind != "Bound"] == ["Ailing", "Well"]


def test_many_that_fail_alike_are_one_reason_and_one_event(world: RegionalWorld) -> None:
    session = placed(world, replicas=3)
    ends = objects_pb2.Exit(code=7, reason="Failed")
    world.report(session, *(status(slot, BACKOFF, exit=ends) for slot in world.slots()))
    assert pending(world) == {"Failed": "3 replicas, the first: it ended with code 7"}
    assert world.kinds("workload/acme/web").count("Ailing") == 1


def test_one_that_is_not_ready_or_not_started_says_so_and_one_that_is_coming_up_says_nothing(
    world: RegionalWorld,
) -> None:
    session = placed(world)
    (slot,) = world.slots()
    world.report(session, status(slot, ACCEPTED))
    assert why(world) == {}
    world.report(session, status(slot, ACCEPTED, message="StorageFailed: not started: the disk is full"))
    assert why(world) == {"StorageFailed": "not started: the disk is full"}
    world.report(session, status(slot, RUNNING, message="readiness: connection refused"))
    assert why(world) == {"NotReady": "readiness: connection refused"}


def test_one_that_waits_for_its_next_try_says_how_it_ended(world: RegionalWorld) -> None:
    session = placed(world)
    (slot,) = world.slots()
    world.report(session, status(slot, CLOSED, exit=MISSING))
    assert list(why(world)) == ["ImageMissing", "BackOff"]
    world.advance(60_000, beating=(session,))
    assert world.slots(), "it was tried again"
    assert why(world) == {}


def test_one_that_failed_for_good_says_how_and_what_was_asked_to_stop_is_well(world: RegionalWorld) -> None:
    session = placed(world, replicas=2, type=objects_pb2.WORKLOAD_TYPE_JOB)
    for _ in range(20):
        world.close(session, *world.slots(), reason="Failed", code=3)
        world.advance(120_000, beating=(session,))
    assert not world.slots()
    assert why(world) == {"Failed": "it ended with code 3; tried 6 times"}


def test_a_new_leader_knows_it_from_the_hello(world: RegionalWorld) -> None:
    session = placed(world)
    (slot,) = world.slots()
    world.report(session, status(slot, BACKOFF, exit=MISSING))
    world.take_over()
    again = world.join("n1")
    world.report(again, status(slot, BACKOFF, exit=MISSING))
    assert list(why(world)) == ["ImageMissing"]
