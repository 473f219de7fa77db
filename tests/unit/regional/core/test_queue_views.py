"""What people see of the queue."""

from atoll.api.v1 import objects_pb2
from atoll.api.v1.regional_pb2 import ListQueueRequest, ListQueueResponse
from atoll.model.resources import Vector
from regional.core.queue_views import list_queue
from tests.support.regional_world import RegionalWorld, task

HIGH, DEFAULT = objects_pb2.PRIORITY_HIGH, objects_pb2.PRIORITY_DEFAULT


def queue_of(world: RegionalWorld, **asked: str) -> ListQueueResponse:
    return list_queue(world.state, ListQueueRequest(**asked), world.now_ms)


def test_nothing_waits(world: RegionalWorld) -> None:
    assert queue_of(world) == ListQueueResponse()


def test_what_has_no_room_is_parked_with_its_reasons(world: RegionalWorld) -> None:
    world.join("n1", capacity=Vector(1_000, 4_096))
    world.share("web", task(replicas=3, cpu=2_000, memory=10), priority=HIGH)
    world.advance(5_000)
    answer = queue_of(world)
    (view,), (item,) = answer.queues, answer.items
    assert (view.tenant, view.priority, view.replicas, view.parked, view.head) == ("acme", HIGH, 3, 3, "")
    assert (item.workload, item.task, item.replicas, item.position, item.priority) == ("web", "main", 3, 0, HIGH)
    assert item.waiting_ms == view.oldest_ms >= 5_000
    assert [reason.code for reason in item.reasons] == ["InsufficientCpu"]
    assert not queue_of(world, tenant="other").items and not queue_of(world, workload="no").items


def test_lines_come_in_the_order_of_their_turns(world: RegionalWorld) -> None:
    """The highest priority, then the tenant that holds least for its weight; within a line by position."""
    world.grant("poor", Vector(100_000, 100_000), seq=1)
    world.join("n1", capacity=Vector(1_000, 4_096))
    world.share("held", task(cpu=500, memory=10))
    world.share("big", task(cpu=5_000, memory=10))
    world.share("big", task(cpu=5_000, memory=10), tenant="poor")
    world.share("urgent", task(cpu=5_000, memory=10), priority=HIGH)
    answer = queue_of(world)
    assert [(v.tenant, v.priority) for v in answer.queues] == [("acme", HIGH), ("poor", DEFAULT), ("acme", DEFAULT)]
    shares = [view.weighted_share for view in answer.queues]
    assert shares == [0.5, 0.0, 0.5]


def test_a_place_in_line() -> None:
    world = RegionalWorld(bind_batch_slots=1)
    world.win()
    world.grant("acme", Vector(100_000, 100_000), seq=1)
    world.join("n1")
    world.share("first", task(replicas=0))
    world.hold = True
    world.share("web", task(replicas=3, cpu=10, memory=10))
    world.settle(world.held.pop())  # its share is admitted, and the first of three is about to be bound
    (view,), (item,) = queue_of(world).queues, queue_of(world).items
    assert (view.replicas, view.parked, view.head) == (2, 0, "web/main")
    assert (item.replicas, item.position, list(item.reasons)) == (2, 1, [])


def test_a_replica_that_failed_backs_off(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(), type=objects_pb2.WORKLOAD_TYPE_JOB)
    world.close(session, *world.slots(), reason="Failed", code=1)
    (item,) = queue_of(world).items
    assert (item.replicas, item.backing_off, item.position) == (0, 1, 0)
    assert [reason.code for reason in item.reasons] == ["BackOff"]


def test_a_gang_is_one_item_of_all_its_members(world: RegionalWorld) -> None:
    """As many wait as the region's summary and `atoll status` say."""
    session = world.join("n1", capacity=Vector(1_000, 4_096))
    tasks = [task(name=name, replicas=2, cpu=100, memory=10, gang=True) for name in ("left", "right")]
    world.share("ring", *tasks, type=objects_pb2.WORKLOAD_TYPE_JOB)
    assert len(world.slots()) == 4 and not queue_of(world).items
    world.close(session, world.slots()[0], reason="Failed", code=1)
    for slot in world.slots():
        world.close(session, slot, reason="Stopped")
    (item,) = queue_of(world).items
    assert (item.task, item.replicas, item.backing_off) == ("", 0, 4)
    world.share("wide", task(replicas=3, cpu=500, memory=10, gang=True), type=objects_pb2.WORKLOAD_TYPE_JOB)
    (item,) = queue_of(world, workload="wide").items
    assert (item.task, item.replicas, item.backing_off) == ("", 3, 0)
    assert [reason.code for reason in item.reasons][:1] == ["GangNeedsRoom"]
    (view,) = queue_of(world, workload="wide").queues
    assert (view.replicas, view.parked) == (3, 3)


def test_the_summary_tells_what_waits_of_each_tenant_and_the_bound() -> None:
    world = RegionalWorld(queue_slots=5)
    world.win()
    world.uplink()
    for tenant, replicas in (("poor", 2), ("acme", 3)):
        world.grant(tenant, Vector(100_000, 100_000), seq=1)
        world.share("web", task(replicas=replicas), tenant=tenant)
    world.advance(2_000)
    told = [m.summary for m in world.up if m.WhichOneof("body") == "summary"][-1]
    assert (told.queue_limit, told.slots_waiting) == (5, 5)
    assert [(queue.tenant, queue.waiting) for queue in told.queues] == [("acme", 3), ("poor", 2)]


def test_a_weight_that_changes_moves_the_turn_at_once(world: RegionalWorld) -> None:
    limit = Vector(100_000, 100_000)
    world.grant("poor", limit, seq=1)
    world.join("n1", capacity=Vector(1_000, 4_096))
    for tenant, cpu in (("acme", 400), ("poor", 200)):
        world.share("held", task(cpu=cpu, memory=10), tenant=tenant)
        world.share("big", task(cpu=5_000, memory=10), tenant=tenant)
    assert [(v.tenant, v.weighted_share) for v in queue_of(world).queues] == [("poor", 0.2), ("acme", 0.4)]
    world.grant("acme", limit, seq=2, weight=4)
    assert [(v.tenant, v.weighted_share) for v in queue_of(world).queues] == [("acme", 0.1), ("poor", 0.2)]
