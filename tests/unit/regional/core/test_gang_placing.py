"""Room made for gangs: for all members or none, nobody stopped before all are reserved, and it expires as one."""

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import events, views
from tests.support.regional_world import RegionalWorld, task
from tests.unit.regional.core.test_gangs import is_committed, member, operations

LOW, HIGH = objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_HIGH
JOB, SERVICE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.WORKLOAD_TYPE_SERVICE
RESERVED = objects_pb2.SLOT_STATE_RESERVED
ROOM = Vector(4_000, 8_192)


def full(world: RegionalWorld, count: int = 2, cpu: int = 1_000, **fields: object) -> list[int]:
    """Nodes filled with replicas of low priority."""
    sessions = [world.join(f"n{i}", capacity=ROOM) for i in range(count)]
    world.share("low", task(cpu=cpu, replicas=count * 4_000 // cpu), **({"type": JOB, "priority": LOW} | fields))
    run(world, sessions)
    return sessions


def run(world: RegionalWorld, sessions: list[int]) -> None:
    for i, session in enumerate(sessions):
        world.run(session, [slot for slot in world.slots() if slot.node == f"n{i}"])


def of(world: RegionalWorld, name: str) -> list[objects_pb2.Slot]:
    return [slot for slot in world.slots() if slot.id.workload == name]


def victims(world: RegionalWorld, sessions: list[int]) -> list[objects_pb2.Slot]:
    """Those that were told to stop and hold their room still."""
    stops = [(stop.slot, stop.token.attempt) for session in sessions for stop in world.messages(session, "stop")]
    return [slot for slot in world.slots() if (slot.id, slot.attempt) in stops]


def close_all(world: RegionalWorld, sessions: list[int]) -> int:
    closing = victims(world, sessions)
    for slot in closing:
        world.close(sessions[int(slot.node[1:])], slot)
    return len(closing)


def test_all_members_get_the_room_of_lower_ones_at_once(world: RegionalWorld) -> None:
    sessions = full(world)
    before = len(operations(world))
    world.share("g", member(3, cpu=2_000), type=JOB, priority=HIGH)
    assert operations(world)[before:] == ["RESERVE"]
    assert len(world.slots(RESERVED)) == 3 and len(victims(world, sessions)) == 6
    first, *others = victims(world, sessions)
    for slot in others:
        world.close(sessions[int(slot.node[1:])], slot)
    assert not of(world, "g") and not is_committed(world), "one holds its room still"
    answer = views.why(world.state, regional_pb2.WhyRequest(tenant="acme", workload="g", index=0), world.now_ms)
    assert "3 of 3 reserved; it gets the room of 1 replica of acme/low" in answer.slots[0].reasons[0].message
    world.close(sessions[int(first.node[1:])], first)
    assert len(of(world, "g")) == 3 and is_committed(world)
    assert world.kinds("workload/acme/low").count("Preempted") == 6
    assert world.kinds("workload/acme/g").count("Preempts") == 1
    assert not world.state.victims
    world.check()


def test_nobody_is_stopped_for_a_part_of_a_gang(world: RegionalWorld) -> None:
    sessions = full(world)
    before = len(operations(world))
    for replicas in (3, 2):  # room for two members of three thousand could be made
        world.share("g", member(replicas, cpu=3_000), type=JOB, priority=HIGH, generation=4 - replicas)
        world.advance(6_000, beating=sessions)
        assert bool(world.slots(RESERVED)) == (replicas == 2)
        assert not world.state.victims
    assert operations(world)[before:] == ["RESERVE"] and len(victims(world, sessions)) == 6


def test_what_a_victim_frees_beyond_need_is_for_the_next_member(world: RegionalWorld) -> None:
    sessions = full(world, cpu=4_000)
    world.share("g", member(2, cpu=2_000), type=JOB, priority=HIGH)
    assert len(victims(world, sessions)) == 1
    close_all(world, sessions)
    assert len({slot.node for slot in of(world, "g")}) == 1


def test_free_room_comes_first(world: RegionalWorld) -> None:
    sessions = [*full(world), world.join("n2", capacity=ROOM)]
    world.share("g", member(5), type=JOB, priority=HIGH)
    assert len(victims(world, sessions)) == 1


def test_a_service_keeps_its_disruption_budget_over_all_nodes(world: RegionalWorld) -> None:
    sessions = full(world, type=SERVICE)
    world.share("g", member(2), type=JOB, priority=HIGH)
    assert not victims(world, sessions) and not world.slots(RESERVED)
    world.share("g", member(1), type=JOB, priority=HIGH, generation=2)
    assert len(victims(world, sessions)) == 1


@pytest.mark.parametrize("fields", [{"priority": LOW}, {"priority": HIGH, "region_may": False}])
def test_a_gang_without_the_right_to_preempt_waits(world: RegionalWorld, fields: dict[str, object]) -> None:
    sessions = full(world)
    world.preempts = bool(fields.pop("region_may", True))
    world.share("g", member(2), type=JOB, **fields)
    world.advance(6_000, beating=sessions)
    assert not victims(world, sessions)


def test_devices_are_freed_for_all_members(world: RegionalWorld) -> None:
    sessions = [world.join(f"n{i}", capacity=ROOM, gpus=("A100", "A100")) for i in range(2)]
    world.share("low", task(cpu=100, replicas=4, gpu=1_000), type=JOB, priority=LOW)
    run(world, sessions)
    world.share("g", member(3, cpu=100, gpu=1_000), type=JOB, priority=HIGH)
    assert len(victims(world, sessions)) == 3
    world.check()
    close_all(world, sessions)
    assert len(of(world, "g")) == 3
    world.check()


def test_nobody_is_asked_before_the_last_member_is_reserved() -> None:
    world = RegionalWorld(bind_batch_slots=2)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    sessions = full(world)
    world.hold = True
    world.share("g", member(6), type=JOB, priority=HIGH)
    world.settle(world.held.pop(0))  # the share
    for reserved in range(0, 6, 2):
        assert len(world.slots(RESERVED)) == reserved and not victims(world, sessions)
        world.settle(world.held.pop(0))
    assert len(victims(world, sessions)) == 6


def test_it_expires_as_one(world: RegionalWorld) -> None:
    sessions = full(world)
    world.share("g", member(2, cpu=2_000), type=JOB, priority=HIGH)
    for slot in victims(world, sessions)[1:]:
        world.close(sessions[int(slot.node[1:])], slot)
    world.advance(69_000, beating=sessions, step_ms=1_000)
    assert len(world.slots(RESERVED)) == 2
    world.advance(2_000, beating=sessions)
    assert not world.slots(RESERVED) and not of(world, "g") and not is_committed(world)
    assert not world.state.victims


def test_a_share_that_changes_before_they_are_asked_stops_nobody(world: RegionalWorld) -> None:
    sessions = full(world)
    world.hold = True
    world.share("g", member(2, cpu=2_000), type=JOB, priority=HIGH)
    world.settle(world.held.pop(0))
    world.share("g", member(2, cpu=2_000), type=JOB, priority=HIGH, generation=2, removed=True)
    world.release_held()
    world.advance(2_000, beating=sessions)
    assert not victims(world, sessions) and not world.slots(RESERVED) and not world.state.victims
    world.check()


@pytest.mark.parametrize("lose", ["", "before", "after"])
@pytest.mark.parametrize("steps", range(1, 7))
def test_a_leader_that_dies_between_any_two_steps(steps: int, lose: str) -> None:
    """Two RESERVEs, releases, GANG-COMMIT, BIND-RESERVED: never more victims than are needed, whoever leads."""
    world = RegionalWorld(bind_batch_slots=2, release_batch_slots=2)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    sessions = full(world)
    low = of(world, "low")
    world.hold = True
    share = world.share("g", member(4), type=JOB, priority=HIGH)
    asked: list[objects_pb2.Slot] = []

    def close(sessions: list[int]) -> None:
        for slot in victims(world, sessions):
            if slot not in asked:
                asked.append(slot)
                world.close(sessions[int(slot.node[1:])], slot)

    for step in range(steps):
        if world.held:
            world.settle(world.held.pop(0), lose=lose if step == steps - 1 else "")
        close(sessions)
    world.hold = False
    world.take_over()
    sessions = [world.join(f"n{i}", capacity=ROOM) for i in range(2)]
    run(world, sessions)
    world.tell(events.ShareArrived(share))
    for slot in asked:
        world.close(sessions[int(slot.node[1:])], slot)
    for _ in range(4):
        close(sessions)
        world.advance(3_000, beating=sessions)
    assert len(of(world, "g")) == 4 and is_committed(world)
    assert len(asked) == 4 and all(slot in low for slot in asked)
    world.check()
