"""Who acts next for a slot, in every state it can be in: nobody, where only time has to pass or all is well."""

from typing import Any

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import views
from tests.support.regional_world import SMALL_NODE, RegionalWorld, status, task

PHASE = agent_pb2.AttemptPhase
ACCEPTED, STARTING, RUNNING, BACKOFF, STOPPING, CLOSED = (
    PHASE.Value(f"ATTEMPT_PHASE_{name}")
    for name in ("ACCEPTED", "STARTING", "RUNNING", "BACKOFF", "STOPPING", "CLOSED")
)
JOB, EXCLUSIVE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.RUN_CLASS_EXCLUSIVE


def placed(world: RegionalWorld, *, nodes: tuple[str, ...] = ("n1",), **spec: Any) -> tuple[int, objects_pb2.Slot]:
    """One replica of `web`, and the session of the node it is bound to."""
    sessions = [world.join(name) for name in nodes]
    world.share("web", task(cpu=100), **spec)
    (slot,) = world.slots()
    return sessions[nodes.index(slot.node)], slot


def acts(world: RegionalWorld, workload: str = "web", index: int = 0, tenant: str = "acme") -> tuple[str, str]:
    request = regional_pb2.WhyRequest(tenant=tenant, workload=workload, index=index)
    (slot,) = views.why(world.state, request, world.now_ms).slots
    return slot.next.actor, slot.next.what


def test_an_agent_acts_until_the_replica_serves_and_then_nobody_does(world: RegionalWorld) -> None:
    session, slot = placed(world)
    assert acts(world) == ("agent", "starts it")
    for phase in (ACCEPTED, STARTING):
        world.report(session, status(slot, phase))
        assert acts(world) == ("agent", "starts it")
    world.report(session, status(slot, RUNNING))
    assert acts(world) == ("agent", "probes it until it is ready")
    world.report(session, status(slot, RUNNING, ready=True))
    assert acts(world) == ("agent", "asks its endpoint until it answers")
    world.report(session, status(slot, RUNNING, ready=True, serving=True))
    assert acts(world) == ("nobody", "it serves")
    world.report(session, status(slot, BACKOFF))
    assert acts(world) == ("agent", "starts it again after a pause")
    world.report(session, status(slot, STOPPING))
    assert acts(world) == ("agent", "stops it")


def test_a_job_runs_to_its_end_and_has_ended_then(world: RegionalWorld) -> None:
    session, slot = placed(world, type=JOB)
    world.report(session, status(slot, RUNNING))
    assert acts(world) == ("nobody", "it runs to its end")
    world.hold = True
    world.close(session, slot, reason="Completed")
    assert acts(world) == ("region", "is writing what becomes of it")
    world.release_held()
    assert acts(world) == ("nobody", "it has ended")


def test_what_failed_is_placed_again_by_the_region_after_its_pause(world: RegionalWorld) -> None:
    session, slot = placed(world)
    world.close(session, slot, reason="Failed", code=1)
    (waiting,) = world.slots(objects_pb2.SLOT_STATE_WAITING)
    left_s = -(-(waiting.not_before_ms - world.now_ms) // 1_000)
    assert acts(world) == ("region", f"places it again in {left_s} s")


def test_a_node_that_is_silent_leaves_it_to_the_region(world: RegionalWorld) -> None:
    session, slot = placed(world)
    world.run(session, [slot])
    world.advance(4 * 3_000)
    assert acts(world) == ("region", "goes on when n1 is heard again, or places it elsewhere once n1 counts as lost")


def test_exclusive_work_of_a_silent_node_waits_until_it_has_surely_stopped(world: RegionalWorld) -> None:
    session, slot = placed(world, run_class=EXCLUSIVE)
    world.run(session, [slot])
    world.advance(16_000)
    assert world.node("n1").state == objects_pb2.NODE_STATE_LOST
    assert acts(world) == (
        "region",
        "goes on when n1 is heard again, or places it elsewhere once it has surely stopped there",
    )


def test_a_drain_is_the_regions_and_what_is_asked_to_stop_the_agents(world: RegionalWorld) -> None:
    session, slot = placed(world, nodes=("n1",))
    world.report(session, status(slot, RUNNING, ready=True, serving=True, healthy=True))
    world.change_node("n1", duty=regional_pb2.NODE_DUTY_DRAIN, reason="kernel", deadline_s=60)
    drained = "node n1 is drained: kernel"
    assert acts(world) == ("region", f"moves it when its task and another node allow it: {drained}")
    other = world.join("n2")
    world.advance(1_000, beating=(session,))
    assert acts(world) == ("region", f"stops it when main/1, made in its place, is up: {drained}")
    world.run(other, [one for one in world.slots() if one.node == "n2"])
    world.advance(1_000, beating=(session,))
    assert acts(world) == ("agent", f"stops it: {drained}")


def test_a_job_on_a_node_that_drains_is_left_to_its_end(world: RegionalWorld) -> None:
    session, slot = placed(world, type=JOB)
    world.report(session, status(slot, RUNNING))
    world.change_node("n1", duty=regional_pb2.NODE_DUTY_DRAIN, reason="kernel", deadline_s=60)
    assert acts(world) == ("nobody", "it runs to its end")


def test_what_waits_is_the_regions_or_for_want_of_quota_the_global_planes(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task(replicas=3, cpu=100), tenant="small")
    assert acts(world, tenant="small")[0] == "global"
    world.grant("small", Vector(200, 100_000, 100_000), seq=1)
    (waiting,) = {0, 1, 2} - {slot.id.index for slot in world.slots()}
    assert acts(world, index=waiting, tenant="small")[0] == "global"
    world.grant("small", Vector(300, 100_000, 100_000), seq=2)
    assert acts(world, index=waiting, tenant="small") == ("agent", "starts it")
    world.share("large", task(cpu=SMALL_NODE.cpu_milli + 1))
    assert acts(world, "large") == ("region", "places it when what keeps it waiting has changed")


def test_a_binding_under_way_is_the_regions(world: RegionalWorld) -> None:
    world.join("n1")
    world.hold = True
    world.share("web", task(cpu=100))
    while not any(commit.plan.operation == "BIND" for commit in world.held):
        world.settle(world.held.pop(0))
    assert acts(world) == ("region", "is writing where it goes")
    world.release_held()
    assert acts(world) == ("agent", "starts it")


def test_fewer_at_once_than_wanted_wait_for_the_others(world: RegionalWorld) -> None:
    world.join("n1")
    share = world.share("web", task(replicas=2, cpu=100), tell=False, type=JOB)
    share.parallel.add(task="main", replicas=1)
    world.tell_share(share)
    waiting = {slot.id.index for slot in world.slots()} ^ {0, 1}
    assert acts(world, index=waiting.pop()) == ("region", "places it when another one of its task has ended")


def test_victims_are_stopped_by_their_agents_before_the_reserved_one_is_bound(world: RegionalWorld) -> None:
    session = world.join("n1")
    low = task(replicas=4, cpu=1_000)
    world.share("low", low, priority=objects_pb2.PRIORITY_LOW, type=JOB)
    world.report(session, *(status(slot, RUNNING) for slot in world.slots()))
    world.share("web", task(cpu=1_000), priority=objects_pb2.PRIORITY_HIGH)
    world.advance(2_000, beating=(session,))
    assert acts(world) == ("agent", "stops 1 replica on n1 to make room for it")
