"""Room that comes free is kept for what has waited longest for it; what passes it never delays it."""

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import views
from tests.support.regional_world import RegionalWorld, task

JOB = objects_pb2.WORKLOAD_TYPE_JOB
LOW, HIGH = objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_HIGH
MINUTE_MS = 60_000


def of(world: RegionalWorld, name: str) -> list[objects_pb2.Slot]:
    return [slot for slot in world.slots() if slot.id.workload == name]


def waiting(world: RegionalWorld) -> int:
    """Two jobs of two processors each run on a node of four, for 10 and 20 minutes; a large one waits for all four."""
    session = world.join("n0", capacity=Vector(4_000, 8_192))
    for name, minutes in (("a", 10), ("b", 20)):
        world.share(name, task(cpu=2_000), type=JOB, estimate_ms=minutes * MINUTE_MS)
    for slot in world.slots():
        world.report(session, _running(slot, world.now_ms))
    world.share("large", task(cpu=4_000), type=JOB)
    world.advance(40_000, beating=[session])
    world.close(session, *of(world, "a"), reason="Completed")
    return session


def _running(slot: objects_pb2.Slot, started_ms: int):  # type: ignore[no-untyped-def]
    from atoll.api.v1 import agent_pb2
    from tests.support.regional_world import status

    said = status(slot, agent_pb2.ATTEMPT_PHASE_RUNNING, ready=True)
    said.started_ms = started_ms
    return said


def test_small_work_does_not_take_the_room_that_comes_free(world: RegionalWorld) -> None:
    session = waiting(world)
    world.share("small", task(cpu=1_000))
    world.share("long", task(cpu=1_000), type=JOB, estimate_ms=30 * MINUTE_MS)
    world.advance(5_000, beating=[session])
    assert not of(world, "small") and not of(world, "long")
    why = views.why(world.state, regional_pb2.WhyRequest(tenant="acme", workload="small", index=0), world.now_ms)
    assert [reason.code for reason in why.slots[0].reasons] == ["RoomKept"]
    asked = regional_pb2.WhyRequest(tenant="acme", workload="large", index=0, node="n0")
    (holder,) = views.why(world.state, asked, world.now_ms).slots
    assert [reason.code for reason in (*holder.reasons, *holder.on_node)] == ["InsufficientCpu"] * 2, "kept for it"
    assert "keeps 1 node for it" in holder.next.what
    assert not of(world, "small"), "to ask opens nothing"
    world.close(session, *of(world, "b"), reason="Completed")
    assert len(of(world, "large")) == 1


def test_what_ends_before_passes(world: RegionalWorld) -> None:
    session = waiting(world)
    world.share("short", task(cpu=2_000), type=JOB, estimate_ms=15 * MINUTE_MS)
    assert len(of(world, "short")) == 1
    world.close(session, *of(world, "short"), *of(world, "b"), reason="Completed")
    assert len(of(world, "large")) == 1


def test_burst_keeps_no_room_from_who_has_quota(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=Vector(4_000, 8_192))
    world.grant("small", Vector(), burst=Vector(8_000, 8_192), seq=1)
    for name, minutes in (("a", 10), ("b", 20)):
        world.share(name, task(cpu=2_000), type=JOB, estimate_ms=minutes * MINUTE_MS)
    for slot in world.slots():
        world.report(session, _running(slot, world.now_ms))
    world.share("large", task(cpu=4_000), tenant="small", type=JOB, priority=LOW)
    world.advance(40_000, beating=[session])
    world.close(session, *of(world, "a"), reason="Completed")
    world.share("paid", task(cpu=1_000), priority=LOW)
    assert len(of(world, "paid")) == 1


def test_a_higher_priority_passes(world: RegionalWorld) -> None:
    waiting(world)
    world.share("urgent", task(cpu=1_000), priority=HIGH)
    assert len(of(world, "urgent")) == 1


def test_other_nodes_are_free_to_all(world: RegionalWorld) -> None:
    waiting(world)
    world.join("n1", capacity=Vector(2_000, 8_192))
    world.share("small", task(cpu=1_000))
    assert [slot.node for slot in of(world, "small")] == ["n1"]


def test_the_hold_ends_with_its_holder(world: RegionalWorld) -> None:
    session = waiting(world)
    world.share("small", task(cpu=1_000))
    world.share("large", task(cpu=4_000), type=JOB, generation=2, removed=True)
    world.advance(2_000, beating=[session])
    assert len(of(world, "small")) == 1
    assert world.state.hold is None


def test_the_next_holder_of_the_same_node_is_tried_at_once(world: RegionalWorld) -> None:
    sessions = [waiting(world), world.join("n1", capacity=Vector(2_000, 8_192))]
    world.share("c", task(cpu=2_000), type=JOB, estimate_ms=20 * MINUTE_MS)
    world.report(sessions[1], *[_running(slot, world.now_ms) for slot in of(world, "c")])
    world.share("small", task(cpu=2_000))
    world.advance(40_000, beating=sessions)
    assert not of(world, "small")
    world.share("large", task(cpu=4_000), type=JOB, generation=2, removed=True)
    world.advance(2_000, beating=sessions)
    assert [slot.node for slot in of(world, "small")] == ["n0"]


def test_nothing_is_kept_where_nobody_knows_when_there_is_room(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=Vector(4_000, 8_192))
    world.share("service", task(cpu=3_000))
    world.run(session, world.slots())
    world.share("large", task(cpu=4_000), type=JOB)
    world.advance(40_000, beating=[session])
    world.share("small", task(cpu=1_000))
    assert len(of(world, "small")) == 1


def test_nothing_is_kept_for_what_quota_holds_back(world: RegionalWorld) -> None:
    session = waiting(world)
    world.grant("acme", Vector(3_000, 1_000_000), seq=2)
    world.share("small", task(cpu=1_000))
    world.advance(2_000, beating=[session])
    assert len(of(world, "small")) == 1


# ---- gangs


def waiting_gang(world: RegionalWorld, **fields: object) -> list[int]:
    """Two nodes of four processors: a job holds all of one for 10 minutes, another half of the other for 20; a gang
    waits for three times two processors, and is expected to have them in 10 minutes, on both."""
    sessions = [world.join(f"n{i}", capacity=Vector(4_000, 8_192)) for i in range(2)]
    for name, cpu, minutes in (("a", 4_000, 10), ("b", 2_000, 20)):
        world.share(name, task(cpu=cpu), type=JOB, estimate_ms=minutes * MINUTE_MS)
    for slot in world.slots():
        world.report(sessions[int(slot.node[1:])], _running(slot, world.now_ms))
    world.share("g", task(cpu=2_000, replicas=3, gang=True), **({"type": JOB} | fields))
    world.advance(40_000, beating=sessions)
    return sessions


def test_room_is_kept_for_a_gang_on_all_its_nodes(world: RegionalWorld) -> None:
    sessions = waiting_gang(world)
    world.share("small", task(cpu=1_000))
    world.share("long", task(cpu=1_000), type=JOB, estimate_ms=11 * MINUTE_MS)
    world.share("short", task(cpu=1_000), type=JOB, estimate_ms=5 * MINUTE_MS)
    world.advance(5_000, beating=sessions)
    assert not of(world, "small") and not of(world, "long")
    (short,) = of(world, "short")
    world.close(sessions[int(short.node[1:])], short, reason="Completed")
    (a,) = of(world, "a")
    world.close(sessions[int(a.node[1:])], a, reason="Completed")
    assert len(of(world, "g")) == 3
    world.advance(2_000, beating=sessions)
    assert world.state.hold is None and not of(world, "small"), "there is no room left"


def test_the_promise_to_a_gang_is_not_put_off_by_what_passes(world: RegionalWorld) -> None:
    sessions = waiting_gang(world)
    assert world.state.hold is not None
    promised_ms = world.state.hold.start_ms
    for number in range(3):  # none of them is ever seen to start
        world.share(f"short{number}", task(cpu=500), type=JOB, estimate_ms=9 * MINUTE_MS)
        world.advance(30_000, beating=sessions)
        assert world.state.hold.start_ms == promised_ms
    assert [len(of(world, f"short{number}")) for number in range(3)] == [1, 0, 0]


def test_nothing_is_kept_for_a_gang_that_could_never_fit(world: RegionalWorld) -> None:
    sessions = waiting_gang(world)
    world.share("g", task(cpu=2_000, replicas=5, gang=True), type=JOB, generation=2)
    world.advance(40_000, beating=sessions)
    world.share("small", task(cpu=1_000))
    assert len(of(world, "small")) == 1 and world.state.hold is None


def test_devices_are_counted_one_by_one(world: RegionalWorld) -> None:
    """Two whole devices of a model: those of the first job come free before those of the second."""
    session = world.join("n0", capacity=Vector(8_000, 8_192), gpus=("A100", "A100", "T4", "T4"))
    for name, model, minutes in (("a", "A100", 20), ("t", "T4", 10)):
        world.share(name, task(cpu=100, gpu=2_000, gpu_models=[model]), type=JOB, estimate_ms=minutes * MINUTE_MS)
    world.report(session, *[_running(slot, world.now_ms) for slot in world.slots()])
    started_ms = world.now_ms
    world.share("g", task(cpu=100, gpu=1_000, replicas=2, gpu_models=["A100"], gang=True), type=JOB)
    world.advance(40_000, beating=[session])
    assert world.state.hold is not None and world.state.hold.start_ms == started_ms + 20 * MINUTE_MS
