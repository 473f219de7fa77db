"""Burst: low work goes on where quota ends, as far as burst goes and no further, and gives way to who has quota."""

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import views
from regional.core.node_changes import CORDON, DRAIN
from tests.support.regional_world import RegionalWorld, task

BEST_EFFORT, LOW, DEFAULT, HIGH = (
    objects_pb2.PRIORITY_BEST_EFFORT,
    objects_pb2.PRIORITY_LOW,
    objects_pb2.PRIORITY_DEFAULT,
    objects_pb2.PRIORITY_HIGH,
)
HARD, BURST = objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST
JOB, RESERVED = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.SLOT_STATE_RESERVED
UNIT = Vector(1_000, 1_024)


def one(replicas: int = 1, **fields: object) -> objects_pb2.Task:
    return task(replicas=replicas, cpu=1_000, memory=1_024, **fields)


def accounts(world: RegionalWorld, workload: str) -> list[int]:
    return sorted(slot.account for slot in world.slots() if slot.id.workload == workload)


def slot_of(world: RegionalWorld, name: objects_pb2.SlotId) -> objects_pb2.Slot:
    return next(slot for slot in world.slots() if slot.id == name)


def reasons(world: RegionalWorld, workload: str, tenant: str = "small") -> list[str]:
    asked = regional_pb2.WhyRequest(tenant=tenant, workload=workload, index=-1)
    return [reason.message for slot in views.why(world.state, asked, world.now_ms).slots for reason in slot.reasons]


def wanted(world: RegionalWorld, session: int) -> Vector:
    """Of burst, by the last acknowledgement."""
    world.advance(2_000, beating=[session])
    uses = {use.account: use for use in world.acks()[-1].slice_ack.uses}
    return Vector(uses[BURST].wanted.cpu_milli, uses[BURST].wanted.memory_mib) if BURST in uses else Vector()


def granted(world: RegionalWorld, tenant: str, hard: int, burst: int, seq: int = 1) -> None:
    world.grant(tenant, UNIT * hard, burst=UNIT * burst, seq=seq)


def test_low_work_goes_to_the_end_of_burst_and_default_work_to_the_end_of_quota(world: RegionalWorld) -> None:
    world.join("n0", capacity=UNIT * 100)
    granted(world, "small", 4, 2)
    world.share("low", one(10), tenant="small", priority=LOW)
    assert accounts(world, "low") == [HARD] * 4 + [BURST] * 2
    world.share("web", one(3), tenant="small")
    assert accounts(world, "web") == []
    (reason,) = set(reasons(world, "web"))
    assert "burst" not in reason and "missing of cpu 4" in reason
    (reason,) = set(reasons(world, "low")) - {""}
    assert "missing of cpu 4" in reason and "of burst cpu 2" in reason


@pytest.mark.parametrize("priority", [DEFAULT, HIGH])
def test_burst_never_pays_for_default_work_and_above(world: RegionalWorld, priority: int) -> None:
    world.join("n0", capacity=UNIT * 100)
    granted(world, "small", 2, 8)
    world.share("web", one(10), tenant="small", priority=priority)
    assert accounts(world, "web") == [HARD] * 2


def test_burst_pays_for_no_gang(world: RegionalWorld) -> None:
    world.join("n0", capacity=UNIT * 100)
    granted(world, "small", 2, 8)
    world.share("ring", one(4, gang=True), tenant="small", priority=LOW, type=JOB)
    assert accounts(world, "ring") == []


def test_each_account_is_credited_for_what_it_paid(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=UNIT * 100)
    granted(world, "small", 2, 2)
    world.share("low", one(4), tenant="small", priority=LOW, type=JOB)
    world.share("web", one(2), tenant="small")
    world.close(session, *[s for s in world.slots() if s.account == BURST], reason="Completed")
    assert accounts(world, "web") == [], "what burst has left pays for none of it"
    world.close(session, *[s for s in world.slots() if s.account == HARD], reason="Completed")
    assert accounts(world, "web") == [HARD] * 2


def test_a_lowered_burst_drains_as_a_lowered_quota_does(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=UNIT * 100)
    granted(world, "small", 2, 2)
    world.share("low", one(6), tenant="small", priority=LOW, type=JOB)
    world.grant("small", UNIT * 2, burst=UNIT * 2, burst_target=Vector(), seq=2)
    assert accounts(world, "low") == [HARD] * 2 + [BURST] * 2
    assert world.state.account("small").limit.burst == UNIT * 2, "C is what is in use"
    world.close(session, *[s for s in world.slots() if s.account == BURST], reason="Completed")
    assert world.state.account("small").limit.burst == Vector() and accounts(world, "low") == [HARD] * 2


def test_strict_tenants_pay_for_zombies_by_the_account_that_paid_for_them(world: RegionalWorld) -> None:
    world.join("n0", capacity=UNIT * 100)
    world.grant("small", UNIT * 1, burst=UNIT * 1, seq=1, mode=objects_pb2.QUOTA_MODE_STRICT)
    world.share("low", one(2), tenant="small", priority=LOW)
    assert accounts(world, "low") == [HARD, BURST]
    world.advance(60_000)
    account = world.state.account("small")
    assert account.zombie.hard == account.zombie.burst == UNIT
    world.join("n1", capacity=UNIT * 100)
    assert accounts(world, "low") == [], "neither pays for another one"


# ---- what is asked of the global plane


def test_a_region_asks_burst_for_what_waits_that_quota_does_not_pay_for(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=UNIT * 100)
    world.uplink()
    world.grant("small", Vector(4_000, 100_000), seq=1)
    world.share("low", one(10), tenant="small", priority=LOW)
    assert wanted(world, session) == UNIT * 6, "in whole replicas, though nothing but processors is lacking"
    world.grant("small", Vector(4_000, 100_000), burst=UNIT * 5, seq=2)
    assert accounts(world, "low") == [HARD] * 4 + [BURST] * 5 and wanted(world, session) == UNIT
    world.share("low", one(2), tenant="small", priority=LOW, generation=2)
    assert not wanted(world, session)


def test_default_work_and_gangs_ask_for_no_burst(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=UNIT * 100)
    world.uplink()
    granted(world, "small", 1, 0)
    world.share("web", one(4), tenant="small")
    world.share("ring", one(4, gang=True), tenant="small", priority=LOW, type=JOB)
    assert not wanted(world, session)


# ---- whose room is whose


def bursting(world: RegionalWorld, *, priority: int = LOW, room: int = 6) -> int:
    """A node that is full: 2 by the quota of tenant small, and the rest by its burst."""
    session = world.join("n0", capacity=UNIT * room)
    granted(world, "small", 2, room)
    world.share("low", one(room), tenant="small", priority=priority, type=JOB)
    world.run(session, world.slots())
    return session


@pytest.mark.parametrize("priority", [BEST_EFFORT, LOW, DEFAULT])
def test_work_within_its_quota_gets_the_room_of_burst_whatever_its_priority(
    world: RegionalWorld, priority: int
) -> None:
    session = bursting(world)
    world.share("web", one(), priority=priority)
    (reserved,) = world.slots(RESERVED)
    (victim,) = reserved.reservation.victims
    assert slot_of(world, victim.slot).account == BURST
    world.close(session, slot_of(world, victim.slot))
    assert accounts(world, "web") == [HARD]


def test_burst_stops_nothing_that_is_paid_for_by_quota(world: RegionalWorld) -> None:
    session = world.join("n0", capacity=UNIT * 2)
    world.share("idle", one(2), priority=BEST_EFFORT, type=JOB)
    world.run(session, world.slots())
    granted(world, "small", 0, 2)
    world.share("low", one(), tenant="small", priority=LOW)
    assert not world.slots(RESERVED) and accounts(world, "idle") == [HARD] * 2


def test_what_is_of_a_lower_priority_is_stopped_after_all_that_burst_pays_for(world: RegionalWorld) -> None:
    """Even where that is on another node."""
    first = world.join("n0", capacity=UNIT * 2)
    world.share("idle", one(2), priority=BEST_EFFORT, type=JOB)
    second = world.join("n1", capacity=UNIT * 2)
    granted(world, "small", 0, 2)
    world.share("low", one(2), tenant="small", priority=LOW, type=JOB)
    for session in (first, second):
        world.run(session, [slot for slot in world.slots() if slot.node == f"n{int(session == second)}"])
    world.share("web", one())
    victims = [slot_of(world, v.slot) for slot in world.slots(RESERVED) for v in slot.reservation.victims]
    assert victims and all(victim.account == BURST for victim in victims)


def test_a_tenant_stops_none_of_its_own_burst_for_what_is_less_important(world: RegionalWorld) -> None:
    session = bursting(world)
    world.close(session, *[s for s in world.slots() if s.account == HARD], reason="Completed")
    world.share("low2", one(2), tenant="small", priority=LOW, type=JOB)
    world.run(session, world.slots())
    granted(world, "small", 4, 6, seq=2)
    world.share("idle", one(), tenant="small", priority=BEST_EFFORT)
    assert not world.slots(RESERVED)
    world.share("web", one(), tenant="small")
    assert world.slots(RESERVED)


def test_what_is_protected_is_no_part_of_burst(world: RegionalWorld) -> None:
    """A part of the quota that is not in use is kept, and burst work does not hide behind it."""
    session = world.join("n0", capacity=UNIT * 6)
    world.grant("small", UNIT * 2, burst=UNIT * 6, protected=UNIT * 2, seq=1)
    world.share("low", one(6), tenant="small", priority=LOW, type=JOB)
    world.run(session, world.slots())
    world.share("web", one(5))
    reserved = world.slots(RESERVED)
    victims = [slot_of(world, v.slot) for slot in reserved for v in slot.reservation.victims]
    assert all(victim.account == BURST for victim in victims)
    while reserved := world.slots(RESERVED):
        world.close(session, *[slot_of(world, v.slot) for slot in reserved for v in slot.reservation.victims])
        world.advance(5_000, beating=[session])
    assert accounts(world, "web") == [HARD] * 4 and accounts(world, "low") == [HARD] * 2


def test_headroom_is_not_kept_from_quota_by_burst() -> None:
    world = RegionalWorld(headroom_percent=50)
    world.win()
    session = world.join("n0", capacity=UNIT * 8)
    world.grant("acme", UNIT * 4, seq=1)
    granted(world, "small", 0, 8)
    world.share("low", one(8), tenant="small", priority=LOW, type=JOB)
    assert accounts(world, "low") == [BURST] * 4
    world.run(session, world.slots())
    world.share("web", one(4))
    assert accounts(world, "web") == [HARD] * 4, "what burst holds counts as free"
    world.check()


def test_what_burst_holds_on_a_node_that_takes_no_work_leaves_the_headroom_alone() -> None:
    world = RegionalWorld(headroom_percent=50)
    world.win()
    session = world.join("n0", capacity=UNIT * 8)
    world.grant("acme", UNIT * 8, seq=1)
    granted(world, "small", 0, 8)
    world.share("low", one(4), tenant="small", priority=LOW)
    world.run(session, world.slots())
    world.join("n1", capacity=UNIT * 8)
    world.change_node("n0", duty=CORDON)
    world.share("web", one(8))
    assert accounts(world, "web") == [HARD] * 4
    world.check()


def test_quota_is_asked_to_pay_for_a_successor_that_burst_may_not_pay_for(world: RegionalWorld) -> None:
    world.uplink()
    sessions = [world.join(name, capacity=UNIT * 4) for name in ("n0", "n1")]
    granted(world, "small", 0, 1)
    world.share("api", one(), tenant="small", priority=LOW)
    (slot,) = world.slots()
    world.run(sessions[int(slot.node == "n1")], [slot])
    world.share("api", one(), tenant="small", priority=DEFAULT, generation=2)
    world.change_node(slot.node, duty=DRAIN, reason="kernel")
    world.advance(4_000, beating=sessions)
    uses = {use.account: use for use in world.acks()[-1].slice_ack.uses}
    assert uses[HARD].surge.cpu_milli == 1_000 and not uses[BURST].surge.cpu_milli
    world.advance(world.state.settings.surge_wait_ms + 4_000, beating=sessions)
    stopped = [message for session in sessions for message in world.messages(session, "stop")]
    assert not stopped, "what it leaves pays for nothing that may be bound"
