"""Preemption: who is stopped for whom, what is kept for whom, and that it ends, whatever dies on the way."""

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import commands, events, preemption, views
from regional.core.making_room import Room, Search
from regional.core.queue import MAY_PREEMPT
from regional.core.records import TaskEntry
from tests.support.regional_world import RegionalWorld, task

LOW, HIGH, REAL_TIME = objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_HIGH, objects_pb2.PRIORITY_REAL_TIME
JOB = objects_pb2.WORKLOAD_TYPE_JOB
RESERVED, WAITING = objects_pb2.SLOT_STATE_RESERVED, objects_pb2.SLOT_STATE_WAITING
ROOM = Vector(4_000, 8_192)


def stopped(world: RegionalWorld, session: int) -> list[tuple[str, int]]:
    return [(stop.slot.workload, stop.slot.index) for stop in world.messages(session, "stop")]


def of(world: RegionalWorld, name: str) -> list[objects_pb2.Slot]:
    return [slot for slot in world.slots() if slot.id.workload == name]


def full(world: RegionalWorld, name: str = "n0", replicas: int = 4, **fields: object) -> int:
    """A node filled with four replicas of a job of low priority."""
    session = world.join(name, capacity=ROOM)
    world.share("low", task(replicas=replicas), priority=LOW, **({"type": JOB} | fields))
    world.run(session, world.slots())
    return session


def test_a_higher_priority_gets_the_room_of_a_lower_one(world: RegionalWorld) -> None:
    session = full(world)
    world.share("high", task(), priority=HIGH)
    (victim,) = stopped(world, session)
    (reserved,) = world.slots(RESERVED)
    assert reserved.id.workload == "high" and len(of(world, "low")) == 4
    assert [v.slot.index for v in reserved.reservation.victims] == [victim[1]]
    (stop,) = world.messages(session, "stop")
    assert stop.grace_ms == 10_000 and "preempted by acme/high/main/0" in stop.reason
    world.close(session, *[slot for slot in of(world, "low") if slot.id.index == victim[1]])
    assert [slot.attempt for slot in of(world, "high")] == [reserved.attempt]
    assert world.kinds("workload/acme/low")[-1] == "Preempted"


@pytest.mark.parametrize("lose", ["", "before", "after"])
def test_a_victim_that_ends_before_it_is_known_to_be_one_is_released(world: RegionalWorld, lose: str) -> None:
    session = full(world)
    world.hold = True
    world.share("high", task(), priority=HIGH)
    world.settle(world.held.pop())  # ADMIT-SHARE
    (reserve,) = world.held
    assert reserve.plan.operation == "RESERVE" and not stopped(world, session)
    world.close(session, *of(world, "low"))
    world.release_held(lose=lose)
    assert len(of(world, "high")) == 1 and len(of(world, "low")) == 3
    world.advance(20_000, beating=[session])
    assert len(of(world, "low")) == 3, "the fourth finds no room"


def test_a_victim_whose_node_is_lost_before_it_is_known_to_be_one_goes_elsewhere() -> None:
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(100_000, 100_000), seq=1)
    full(world)
    world.hold = True
    world.share("high", task(), priority=HIGH)
    while world.held[0].plan.operation != "RESERVE":
        world.settle(world.held.pop(0))
    reserve = world.held.pop(0)
    settled = world.apply(reserve)
    world.hold = False
    world.advance(60_000)
    assert len(world.zombies()) == 3 and len(world.slots()) == 1
    world.tell(events.PlanSettled(reserve.plan_id, settled, world.now_ms))
    assert len(world.zombies()) == 4 and not world.slots()
    world.check()


def test_what_becomes_free_is_kept_for_the_preemptor(world: RegionalWorld) -> None:
    session = full(world)
    world.share("high", task(cpu=2_000), priority=HIGH)
    victims = stopped(world, session)
    assert len(victims) == 2
    world.share("small", task(cpu=500, replicas=4), priority=HIGH)
    first = next(slot for slot in of(world, "low") if slot.id.index == victims[0][1])
    world.close(session, first)
    world.advance(2_000, beating=[session])
    assert not of(world, "high") and not of(world, "small")
    second = next(slot for slot in of(world, "low") if slot.id.index == victims[1][1])
    world.close(session, second)
    assert len(of(world, "high")) == 1 and not of(world, "small")


@pytest.mark.parametrize("priority", [LOW, objects_pb2.PRIORITY_BEST_EFFORT])
def test_nobody_is_stopped_for_an_equal_or_a_lower_one(world: RegionalWorld, priority: int) -> None:
    session = full(world)
    world.share("other", task(), priority=priority)
    world.advance(700_000, beating=[session], step_ms=2_000)  # it ages past their band
    assert stopped(world, session) == []


def test_a_region_without_the_leave_to_preempt_does_not(world: RegionalWorld) -> None:
    session = full(world)
    world.preempts = False
    world.share("high", task(), priority=HIGH)
    assert stopped(world, session) == []


def test_a_service_keeps_its_disruption_budget(world: RegionalWorld) -> None:
    session = full(world, type=objects_pb2.WORKLOAD_TYPE_SERVICE)
    world.share("high", task(replicas=2), priority=HIGH)
    assert len(stopped(world, session)) == 1
    world.share("large", task(cpu=3_000), priority=HIGH)
    world.advance(6_000, beating=[session])
    assert len(stopped(world, session)) == 1


def test_a_service_that_asks_for_more_than_fits_gives_way_one_after_the_other(world: RegionalWorld) -> None:
    session = full(world, replicas=6, type=objects_pb2.WORKLOAD_TYPE_SERVICE)
    world.share("high", task(replicas=3), priority=HIGH)
    for count in range(1, 4):
        told = stopped(world, session)
        assert len(told) == count, "within the budget, whatever waits"
        world.close(session, *[slot for slot in of(world, "low") if ("low", slot.id.index) in told])
        world.run(session, of(world, "high"))
        world.advance(2_000, beating=[session])
        assert len(stopped(world, session)) == count, "the last one has its pause, and may find room elsewhere"
        world.advance(18_000, beating=[session])
    assert len(of(world, "high")) == 3 and len(of(world, "low")) == 1


def test_one_room_may_need_more_of_a_service_than_its_budget(world: RegionalWorld) -> None:
    session = full(world, type=objects_pb2.WORKLOAD_TYPE_SERVICE)
    world.share("high", task(cpu=2_000, replicas=2), priority=HIGH)
    assert len(stopped(world, session)) == 2, "for one replica; the other one waits for its turn"


def test_quota_is_never_made_by_preemption(world: RegionalWorld) -> None:
    session = full(world)
    world.grant("acme", Vector(4_000, 1_000_000), seq=2)
    world.share("high", task(), priority=HIGH)
    assert stopped(world, session) == []


def test_a_victim_comes_back_after_its_penalty_at_the_head_of_its_class(world: RegionalWorld) -> None:
    session = full(world)
    world.share("high", task(), priority=HIGH, type=JOB)
    ((_, index),) = stopped(world, session)
    world.share("later", task(), priority=LOW)
    world.close(session, next(slot for slot in of(world, "low") if slot.id.index == index))
    (waiting,) = world.slots(WAITING)
    assert 10_000 <= waiting.not_before_ms - world.now_ms <= 12_500 and waiting.tries == 0
    answer = views.why(world.state, regional_pb2.WhyRequest(tenant="acme", workload="low", index=index), world.now_ms)
    assert answer.slots[0].reasons[0].code == "Preempted"
    assert "acme/high/main/0" in answer.slots[0].reasons[0].message
    world.advance(13_000, beating=[session])
    world.run(session, of(world, "high"))
    world.close(session, *of(world, "high"), reason="Completed")
    world.advance(1_000, beating=[session])
    assert len(of(world, "low")) == 4 and not of(world, "later")


def test_a_reservation_is_swept_when_it_is_late_or_unwanted(world: RegionalWorld) -> None:
    session = full(world)
    world.share("high", task(), priority=HIGH)
    assert world.slots(RESERVED)
    world.advance(75_000, beating=[session])
    first = [c.plan.operation for c in world.issued if isinstance(c, commands.Commit)].count("SWEEP")
    assert first == 1, "its victim never closed"
    world.share("high", task(), priority=HIGH, generation=2, removed=True)
    world.advance(1_000, beating=[session])
    assert not world.slots(RESERVED)


def test_a_preemptor_that_becomes_a_member_of_a_gang_is_placed_with_the_others(world: RegionalWorld) -> None:
    session = full(world)
    world.share("high", task(), priority=HIGH)
    assert len(stopped(world, session)) == 1
    world.share("high", task(gang=True, replicas=2), priority=HIGH, generation=2)
    (victim,) = [slot for slot in of(world, "low") if ("low", slot.id.index) in stopped(world, session)]
    world.close(session, victim)
    for _ in range(4):
        world.advance(6_000, beating=[session])
        again = [slot for slot in of(world, "low") if ("low", slot.id.index) in stopped(world, session)]
        world.close(session, *again)
    assert len(of(world, "high")) == 2 and not world.slots(RESERVED)
    world.check()


def test_a_cordoned_node_binds_nothing_any_more(world: RegionalWorld) -> None:
    session = full(world)
    world.share("high", task(), priority=HIGH)
    world.change_node("n0", duty=2)
    world.advance(1_000, beating=[session])
    assert not world.slots(RESERVED)


@pytest.mark.parametrize("lose", ["", "before", "after"])
@pytest.mark.parametrize("steps", range(1, 5))
def test_a_leader_that_dies_between_any_two_steps(world: RegionalWorld, steps: int, lose: str) -> None:
    session = full(world)
    low = of(world, "low")
    world.hold = True
    share = world.share("high", task(), priority=HIGH)
    closed: list[objects_pb2.Slot] = []

    def end_victims(session: int) -> None:
        for name, index in stopped(world, session):
            slot = next(s for s in low if (s.id.workload, s.id.index) == (name, index))
            if slot not in closed:
                closed.append(slot)
                world.close(session, slot)

    for step in range(steps):
        if world.held:
            world.settle(world.held.pop(0), lose=lose if step == steps - 1 else "")
        end_victims(session)
    world.hold = False
    world.take_over()
    session = world.join("n0", capacity=ROOM)
    world.run(session, [slot for slot in of(world, "low") if slot not in closed])
    world.tell(events.ShareArrived(share))
    for slot in closed:
        world.close(session, slot)
    for _ in range(3):
        world.advance(6_000, beating=[session])
        end_victims(session)
    assert len(of(world, "high")) == 1
    assert len(closed) == 1, "one victim, whoever led"


def test_the_cheapest_node_is_taken(world: RegionalWorld) -> None:
    """Fewest workloads, then fewest replicas: two of one workload rather than one of each of two."""
    first = world.join("n0", capacity=ROOM)
    world.share("a", task(cpu=2_000), priority=LOW)
    world.share("b", task(cpu=2_000), priority=LOW)
    second = world.join("n1", capacity=ROOM)
    world.share("c", task(cpu=1_000, replicas=4), priority=LOW, type=JOB)
    world.run(first, [slot for slot in world.slots() if slot.node == "n0"])
    world.run(second, [slot for slot in world.slots() if slot.node == "n1"])
    world.share("high", task(cpu=4_000), priority=REAL_TIME)
    assert stopped(world, first) == []
    assert [name for name, _ in stopped(world, second)] == ["c"] * 4


# ---- GPUs


def with_gpus(world: RegionalWorld, *tasks: objects_pb2.Task) -> int:
    """A node with two devices of one model and one of another, filled by work of low priority."""
    session = world.join("n0", capacity=ROOM, gpus=("A100", "A100", "T4"))
    for number, one in enumerate(tasks):
        world.share(f"low{number}", one, priority=LOW, type=JOB)
    world.run(session, world.slots())
    return session


def devices(world: RegionalWorld) -> dict[int, int]:
    world.check()
    return world.state.table.gpus.used(0)


def test_a_device_is_freed_by_those_who_hold_it(world: RegionalWorld) -> None:
    """A whole A100: two halves share the first, one replica holds the second and one the T4."""
    session = with_gpus(
        world,
        task(replicas=2, cpu=100, gpu=500, gpu_models=["A100"]),
        task(cpu=100, gpu=1_000, gpu_models=["A100"]),
        task(cpu=100, gpu=1_000, gpu_models=["T4"]),
    )
    world.share("high", task(cpu=100, gpu=1_000, gpu_models=["A100"]), priority=HIGH)
    assert stopped(world, session) == [("low1", 0)], "one rather than two"
    (reserved,) = world.slots(RESERVED)
    assert list(reserved.gpus) == [1] and devices(world) == {0: 1_000, 1: 2_000, 2: 1_000}
    world.share("other", task(cpu=100, gpu=1_000), priority=HIGH)
    world.close(session, *of(world, "low1"))
    assert [list(slot.gpus) for slot in of(world, "high")] == [[1]]
    assert world.messages(session, "assign")[-1].gpus == [1]
    world.advance(6_000, beating=[session])
    assert stopped(world, session)[1:] == [("low2", 0)], "then the other one has its turn, on any model"
    world.close(session, *of(world, "low2"))
    assert [list(slot.gpus) for slot in of(world, "other")] == [[2]] and devices(world) == dict.fromkeys(
        range(3), 1_000
    )


def test_a_part_of_a_device_needs_one_with_enough(world: RegionalWorld) -> None:
    session = with_gpus(world, *[task(cpu=100, gpu=600)] * 3)
    world.share("high", task(cpu=100, gpu=700), priority=HIGH)
    assert len(stopped(world, session)) == 1, "though there is enough in sum"
    world.close(session, *of(world, stopped(world, session)[0][0]))
    assert len(of(world, "high")) == 1
    devices(world)


def test_another_leader_finds_the_promised_devices(world: RegionalWorld) -> None:
    with_gpus(world, task(cpu=100, gpu=3_000))
    share = world.share("high", task(cpu=100, gpu=2_000), priority=HIGH)
    assert list(world.slots(RESERVED)[0].gpus) == [0, 1]
    world.take_over()
    session = world.join("n0", capacity=ROOM, gpus=("A100", "A100", "T4"))
    world.tell(events.ShareArrived(share))
    assert devices(world) == {0: 2_000, 1: 2_000, 2: 1_000}
    world.run(session, of(world, "low0"))
    world.advance(2_000, beating=[session])
    assert stopped(world, session)
    world.close(session, *of(world, "low0"))
    assert [list(slot.gpus) for slot in of(world, "high")] == [[0, 1]] and devices(world)[0] == 1_000


def test_nobody_is_stopped_where_what_stays_holds_the_devices(world: RegionalWorld) -> None:
    session = with_gpus(world, task(cpu=100, gpu=500))
    world.share("equal", task(replicas=3, cpu=100, gpu=600), priority=HIGH)
    before = stopped(world, session)
    world.share("high", task(cpu=100, gpu=1_000), priority=HIGH)
    world.advance(6_000, beating=[session])
    assert stopped(world, session) == before


def test_of_jobs_that_began_together_the_one_with_the_shortest_estimate_left_goes(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=ROOM)
    for name, estimate_s in (("none", 0), ("long", 7_200), ("short", 3_600), ("longer", 9_000)):
        world.share(name, task(), priority=LOW, type=JOB, estimate_ms=estimate_s * 1_000)
    world.run(session, world.slots())
    world.share("high", task(), priority=HIGH)
    assert [name for name, _ in stopped(world, session)] == ["short"]


def test_so_many_that_find_no_room_are_looked_at_before_other_events(
    world: RegionalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, they are all looked at, and heartbeats are answered meanwhile."""
    full(world)
    searched: list[str] = []
    next_room = Search.next_room

    def counting(search: Search, wanting: TaskEntry) -> Room | None:
        searched.append(wanting.owner.name)
        return next_room(search, wanting)

    monkeypatch.setattr(Search, "next_room", counting)
    waiting = [f"w{number:02}" for number in range(4 * preemption.LOOKS + 1)]
    for name in waiting:
        world.share(name, task(), priority=LOW)  # equals: none of them gets room
    searched.clear()
    world.state.roomless.update(dict.fromkeys(world.state.queue.parking.under(*MAY_PREEMPT)))
    handle, most = world.machine.handle, [0]

    def watched(event: events.Event, now_ms: int) -> list[commands.Command]:
        before = len(searched)
        issued = handle(event, now_ms)
        most[0] = max(most[0], len(searched) - before)
        return issued

    monkeypatch.setattr(world.machine, "handle", watched)
    while world.state.roomless:
        due_ms = world.machine.next_deadline()
        assert due_ms is not None and due_ms <= world.now_ms + 1, "it goes on at once"
        world.now_ms += 1
        world.tell(events.Woke())
    assert most == [2 * preemption.LOOKS], "it is asked before others take turns, and after them"
    assert sorted(searched) == waiting
