"""Second copies of stragglers: when, how many, whose result counts; and that every account stays exact."""

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.accounts import NONE
from atoll.model.resources import Vector
from atoll.model.slots import SECOND_COPY
from tests.support.regional_world import RegionalWorld, status, task

DONE = objects_pb2.SLOT_STATE_DONE
JOB = objects_pb2.WORKLOAD_TYPE_JOB
BIG = Vector(100_000, 100_000)
RUNNING = agent_pb2.ATTEMPT_PHASE_RUNNING


def _job(world: RegionalWorld, replicas: int = 4, most: int = 1, estimate_ms: int = 0, **fields: object) -> list[int]:
    """Two nodes, and a job whose replicas run; the sessions."""
    world.uplink()
    sessions = [world.join(name, capacity=BIG) for name in ("n1", "n2")]
    policy = objects_pb2.Speculation(percent=200, most=most)
    world.share("job", task(replicas=replicas, speculation=policy, **fields), type=JOB, estimate_ms=estimate_ms)
    _run(world, sessions)
    return sessions


def _run(world: RegionalWorld, sessions: list[int], *slots: objects_pb2.Slot) -> None:
    for slot in slots or world.slots():
        running = status(slot, RUNNING, ready=True)
        running.started_ms = world.now_ms
        world.report(_session(sessions, slot), running)


def _session(sessions: list[int], slot: objects_pb2.Slot) -> int:
    return sessions[0] if slot.node == "n1" else sessions[1]


def _complete(world: RegionalWorld, sessions: list[int], slot: objects_pb2.Slot, reason: str = "Completed") -> None:
    ended = status(
        slot, agent_pb2.ATTEMPT_PHASE_CLOSED, exit=objects_pb2.Exit(reason=reason, code=int(reason != "Completed"))
    )
    world.report(_session(sessions, slot), ended)


def _straggler(world: RegionalWorld, sessions: list[int]) -> tuple[objects_pb2.Slot, objects_pb2.Slot]:
    """The last replica, after all others took ten seconds, and its second copy."""
    *others, last = world.slots()
    world.advance(10_000, beating=sessions)
    for slot in others:
        _complete(world, sessions, slot)
    assert world.slots() == [last]
    world.advance(9_000, beating=sessions)
    assert world.slots() == [last], "not twice the median yet"
    world.advance(3_000, beating=sessions)
    first, copy = sorted(world.slots(), key=lambda slot: slot.id.index)
    assert first == last and copy.id.index == last.id.index + SECOND_COPY and copy.node != last.node
    return first, copy


def _succeeded(world: RegionalWorld) -> int:
    world.advance(1_000)
    return world.reports("job")[-1].counts.succeeded


def test_the_copy_wins_and_the_first_is_stopped(world: RegionalWorld) -> None:
    sessions = _job(world)
    first, copy = _straggler(world, sessions)
    assert "SecondCopy" in world.kinds("workload/acme/job")
    _run(world, sessions, copy)
    _complete(world, sessions, copy)
    assert _succeeded(world) == 4
    assert [stop.slot.index for s in sessions for stop in world.messages(s, "stop")] == [first.id.index]
    _complete(world, sessions, first, "Stopped")
    assert not world.slots() and _succeeded(world) == 4
    assert world.state.accounts["acme"].bound == NONE


def test_the_first_wins_and_the_copy_is_stopped(world: RegionalWorld) -> None:
    sessions = _job(world)
    first, copy = _straggler(world, sessions)
    _run(world, sessions, copy)
    _complete(world, sessions, first)
    assert [stop.slot.index for s in sessions for stop in world.messages(s, "stop")] == [copy.id.index]
    _complete(world, sessions, copy, "Stopped")
    assert not world.slots() and _succeeded(world) == 4
    assert all(slot.id.index < SECOND_COPY for slot in world.slots(DONE)), "nothing is left of the copy"


def test_two_results_count_once(world: RegionalWorld) -> None:
    sessions = _job(world)
    first, copy = _straggler(world, sessions)
    _run(world, sessions, copy)
    _complete(world, sessions, copy)
    _complete(world, sessions, first)
    assert _succeeded(world) == 4 and not world.slots()


def test_two_results_count_once_of_a_task_that_is_stopped_too(world: RegionalWorld) -> None:
    sessions = _job(world)
    first, copy = _straggler(world, sessions)
    _run(world, sessions, copy)
    _complete(world, sessions, copy)
    policy = objects_pb2.Speculation(percent=200, most=1)
    share = world.share("job", task(replicas=4, speculation=policy), type=JOB, tell=False)
    share.stopped.append("main")
    world.tell_share(share)
    assert _succeeded(world) == 4
    _complete(world, sessions, first)
    assert _succeeded(world) == 4


def test_a_copy_that_fails_while_its_job_is_resumed_is_not_queued_again(world: RegionalWorld) -> None:
    sessions = _job(world)
    first, copy = _straggler(world, sessions)
    policy = objects_pb2.Speculation(percent=200, most=1)
    world.share("job", task(replicas=4, speculation=policy), type=JOB, generation=2, resumed=2)
    _complete(world, sessions, copy, "Failed")
    world.advance(2_000, beating=sessions)
    assert world.slots() == [first]
    _complete(world, sessions, first)
    assert not world.slots() and _succeeded(world) == 4


def test_a_replica_that_waits_stays_the_one_that_is_wanted(world: RegionalWorld) -> None:
    sessions = _job(world, replicas=3)
    policy = objects_pb2.Speculation(percent=200, most=1)
    _, second, third = world.slots()
    spec = task(replicas=2, speculation=policy, retries=objects_pb2.RetryPolicy(limit=3, backoff_ms=1_000))
    world.share("job", spec, type=JOB, generation=2)
    _complete(world, sessions, second, "Failed")
    _complete(world, sessions, third, "Stopped")
    world.advance(5_000, beating=sessions)
    assert [slot.id.index for slot in world.slots()] == [0, 1]
    assert world.slots()[1].attempt != second.attempt


def test_a_copy_that_fails_costs_nothing_and_has_no_successor(world: RegionalWorld) -> None:
    sessions = _job(world)
    first, copy = _straggler(world, sessions)
    _complete(world, sessions, copy, "Failed")
    world.advance(60_000, beating=sessions)
    assert world.slots() == [first]
    assert world.reports("job")[-1].counts.failed == 0
    _complete(world, sessions, first)
    assert _succeeded(world) == 4


def test_who_won_survives_a_takeover(world: RegionalWorld) -> None:
    sessions = _job(world)
    first, copy = _straggler(world, sessions)
    _run(world, sessions, copy)
    _complete(world, sessions, copy)
    world.take_over()
    world.uplink()
    sessions = [world.join(name, capacity=BIG) for name in ("n1", "n2")]
    assert _succeeded(world) == 4
    listed = [stop.slot.index for s in sessions for sync in world.messages(s, "sync") for stop in sync.stops]
    assert listed == [first.id.index]
    _complete(world, sessions, first, "Stopped")
    assert not world.slots()


def test_a_bound_copy_goes_on_under_another_leader(world: RegionalWorld) -> None:
    sessions = _job(world)
    _, copy = _straggler(world, sessions)
    world.take_over()
    world.uplink()
    sessions = [world.join(name, capacity=BIG) for name in ("n1", "n2")]
    assert len(world.slots()) == 2
    _complete(world, sessions, copy)
    assert _succeeded(world) == 4


def test_no_more_copies_than_the_budget_and_by_the_estimate_first(world: RegionalWorld) -> None:
    sessions = _job(world, replicas=6, most=2, estimate_ms=5_000)
    world.advance(9_000, beating=sessions)
    assert len(world.slots()) == 6
    world.advance(5_000, beating=sessions)
    copies = [slot for slot in world.slots() if slot.id.index >= SECOND_COPY]
    assert len(copies) == 2
    _complete(world, sessions, copies[0])
    world.advance(3_000, beating=sessions)
    assert len([slot for slot in world.slots() if slot.id.index >= SECOND_COPY]) == 2, "the next one's turn"


def test_a_copy_takes_no_more_than_the_parallelism(world: RegionalWorld) -> None:
    world.uplink()
    sessions = [world.join(name, capacity=BIG) for name in ("n1", "n2")]
    spec = task(replicas=2, speculation=objects_pb2.Speculation(percent=200, most=1))
    share = world.share("job", spec, type=JOB, estimate_ms=1_000, tell=False)
    share.parallel.add(task="main", replicas=2)
    world.tell_share(share)
    _run(world, sessions)
    world.advance(10_000, beating=sessions)
    first, second = world.slots()
    _complete(world, sessions, first)
    world.advance(1_000, beating=sessions)
    assert len(world.slots()) == 2, "as soon as there is a place"
    _complete(world, sessions, second)
    assert _succeeded(world) == 2
