"""When a replica is healthy: ready without a break for its minimum time; when it starts again."""

from agent.config import Timing
from agent.core import commands, events
from agent.core.health import INTERVAL_MS
from agent.core.replica import Replica
from agent.core.runs import Exit, Rank, RunName
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.slots import AttemptId, SlotName
from tests.support.agent_core import RUNNING, World, assign, of, run

PROBED = objects_pb2.Task(
    command=["x"],
    min_ready_ms=5_000,
    readiness=objects_pb2.Probe(command=objects_pb2.CommandCheck(command=["true"]), failure_threshold=1),
)


def healthy(world: World) -> bool:
    (replica,) = world.machine._slots.replicas(run().slot)
    return replica.status().healthy


def probe(world: World, ok: bool) -> None:
    """The probe that is under way is answered so, and the next one is begun."""
    world.post(events.ProbeAnswered(world.machine._slots._probe_id, ok))
    (asked,) = of(world.wait(INTERVAL_MS), commands.ProbeReplica)
    assert asked.probe_id == world.machine._slots._probe_id


def test_without_a_probe_it_is_a_second_after_its_start_and_that_is_told() -> None:
    world = World().boot().running(assign())
    assert not healthy(world)
    (status,) = world.wait_for_report(1_500)
    assert (status.phase, status.ready, status.healthy) == (RUNNING, True, True)


def serving(task: objects_pb2.Task, after_ms: int, *, job: bool = False) -> bool:
    world = World().boot().running(assign(task=task, job=job))
    world.wait(after_ms)
    (replica,) = world.machine._slots.replicas(run().slot)
    return replica.status().serving


def test_what_nothing_asks_serves_once_it_has_run_for_its_minimum_time() -> None:
    plain = objects_pb2.Task(command=["x"])
    assert [serving(plain, after_ms) for after_ms in (900, 1_000)] == [False, True]
    assert serving(plain, 0, job=True), "a job's replica may end at once"
    assert not serving(objects_pb2.Task(command=["x"], min_ready_ms=5_000), 4_900)
    ported = objects_pb2.Task(command=["x"], ports=[objects_pb2.Port(number=80)])
    assert not serving(ported, 1_000), "its port has not answered"


def test_a_crash_loop_is_never_healthy_between_two_crashes() -> None:
    task = objects_pb2.Task(command=["x"])
    task.restart.local_limit, task.restart.backoff_ms = 100, 500
    world = World().boot().running(assign(task=task))
    for _ in range(5):
        world.wait(900)
        assert not healthy(world)
        world.exited(1)
        done = world.wait(60_000)
        (start,) = of(done, commands.StartReplica)
        world.post(events.DriverStarted(start.run))
    world.wait(1_000)
    assert healthy(world)


def test_replicas_that_fail_together_start_again_apart() -> None:
    policy = objects_pb2.RestartPolicy(backoff_ms=10_000, backoff_max_ms=60_000, local_limit=9)
    assigned = agent_pb2.Assign(task=objects_pb2.Task(command=["x"], restart=policy))
    pauses = set()
    for index in range(50):
        name = RunName(SlotName("acme", "web", "main", index), Rank(1, AttemptId(7, index)))
        replica = Replica(name, assigned)
        assert replica.ended(Exit(1, "Failed"), 5, Timing()) is None
        pauses.add(replica.next_start_ms - 5)
    assert 7_500 <= min(pauses) < 8_500 and 11_500 < max(pauses) <= 12_500 and len(pauses) > 40


def test_readiness_that_breaks_begins_to_count_again() -> None:
    world = World().boot().running(assign(task=PROBED))
    for ok in (True, True, False, True, True):  # each two seconds before the next
        probe(world, ok)
        assert not healthy(world)
    probe(world, True)
    assert healthy(world)
