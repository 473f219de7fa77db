"""What a tenant has protected is there when it comes, and nobody else's work takes it or is stopped into it."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model import explain
from atoll.model.resources import NOTHING, Vector, total
from regional.core import protection, views
from regional.core.draining import ROOM
from regional.core.node_changes import DRAIN
from tests.support.obedient import Agents
from tests.support.regional_world import RegionalWorld, task

LOW, HIGH = objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_HIGH
JOB = objects_pb2.WORKLOAD_TYPE_JOB
LARGE, PART = Vector(1_000_000, 1_000_000), Vector(4_000, 2_048)
TEN = Vector(10_000, 102_400)


def begun(**settings: object) -> RegionalWorld:
    """Tenant acme has PART protected; globex has nothing."""
    world = RegionalWorld(**settings)
    world.win()
    world.grant("acme", LARGE, seq=1, protected=PART)
    world.grant("globex", LARGE, seq=1)
    return world


def held(world: RegionalWorld, tenant: str) -> int:
    return len([slot for slot in world.slots() if slot.id.tenant == tenant])


def codes(world: RegionalWorld) -> set[str]:
    return {reason.code for cls in world.state.queue.parked.values() for reason in cls.reasons}


def test_others_leave_it_free_and_its_tenant_takes_it() -> None:
    world = begun()
    world.join("n1", capacity=TEN)
    world.share("many", task(replicas=20), tenant="globex", priority=HIGH)
    assert held(world, "globex") == 6 and codes(world) == {explain.PROTECTED}
    (why,) = views.why(
        world.state, regional_pb2.WhyRequest(tenant="globex", workload="many", index=9), world.now_ms
    ).slots
    assert [(r.code, r.message.partition(": ")[2]) for r in why.reasons] == [(explain.PROTECTED, "cpu 1 missing")]
    world.share("web", task(replicas=4))
    assert held(world, "acme") == 4
    world.check()


def test_it_is_let_go_when_it_is_protected_no_more() -> None:
    world = begun()
    world.join("n1", capacity=TEN)
    world.share("many", task(replicas=20), tenant="globex")
    world.grant("acme", LARGE, seq=2, protected=Vector(1_000))
    assert held(world, "globex") == 9
    world.take_over()
    assert held(world, "globex") == 9
    world.grant("acme", LARGE, seq=3)
    world.join("n1", capacity=TEN)
    assert held(world, "globex") == 10
    world.check()


def test_a_node_that_holds_more_than_it_has_does_not_open_what_is_protected_on_another() -> None:
    world = begun()
    world.join("n1", capacity=TEN)
    world.share("many", task(replicas=6), tenant="globex")
    world.join("n1", capacity=Vector(2_000, 102_400))
    world.join("n2", capacity=Vector(5_000, 102_400))
    world.share("large", task(replicas=1, cpu=2_000), tenant="globex")
    assert held(world, "globex") == 6 and codes(world) == {explain.PROTECTED}
    world.share("small", task(replicas=1), tenant="globex")
    assert held(world, "globex") == 7
    world.check()


def test_work_that_ends_lets_others_in_up_to_it() -> None:
    world = begun()
    session = world.join("n1", capacity=TEN)
    world.share("job", task(replicas=6), tenant="globex", type=JOB)
    world.share("late", task(replicas=6), tenant="globex")
    assert codes(world) == {explain.PROTECTED}
    world.close(session, *world.slots()[:2], reason="Completed", code=0)
    assert len([slot for slot in world.slots() if slot.id.workload == "late"]) == 2
    world.check()


def test_a_gang_of_others_does_not_take_it() -> None:
    world = begun()
    world.join("n1", capacity=TEN)
    world.share("gang", task(replicas=7, gang=True), tenant="globex")
    assert not held(world, "globex") and codes(world) == {explain.PROTECTED}
    request = regional_pb2.WhyRequest(tenant="globex", workload="gang", index=3)
    ((reason,),) = [slot.reasons for slot in views.why(world.state, request, world.now_ms).slots]
    assert reason.message.endswith("cpu 1 missing"), "of all members at once"
    world.grant("acme", LARGE, seq=2, protected=Vector(3_000))
    world.advance(1_000)
    assert held(world, "globex") == 7
    world.check()


def test_others_stop_no_more_of_its_tenants_work_than_lies_beyond_it() -> None:
    world = begun()
    session = world.join("n1", capacity=TEN)
    world.share("low", task(replicas=10), priority=LOW, type=JOB)
    world.run(session, world.slots())
    world.share("high", task(replicas=10), tenant="globex", priority=HIGH)
    for _ in range(20):
        asked = {(stop.slot.workload, stop.slot.index) for stop in world.messages(session, "stop")}
        world.close(session, *[s for s in world.slots() if (s.id.workload, s.id.index) in asked])
        world.advance(2_000, beating=[session])
    assert (held(world, "globex"), held(world, "acme")) == (6, 4)
    world.check()


def test_others_get_no_more_by_stopping_than_they_free() -> None:
    """Six processors are freed, eight are asked for: two of the four that are protected would go."""
    world = begun()
    world.grant("corp", LARGE, seq=1)
    session = world.join("n1", capacity=TEN)
    world.share("low", task(cpu=6_000), tenant="corp", priority=LOW, type=JOB)
    world.run(session, world.slots())
    world.share("large", task(cpu=8_000), tenant="globex", priority=HIGH)
    world.advance(10_000, beating=[session])
    assert not world.messages(session, "stop")
    world.share("fitting", task(cpu=6_000), tenant="globex", priority=HIGH)
    assert len(world.messages(session, "stop")) == 1


def test_what_waits_beside_what_is_protected_stops_lower_work_for_its_room() -> None:
    world = begun()
    world.grant("corp", LARGE, seq=1)
    session = world.join("n1", capacity=TEN)
    world.share("low", task(replicas=6), tenant="corp", priority=LOW, type=JOB)
    world.run(session, world.slots())
    world.share("high", task(replicas=2), tenant="globex", priority=HIGH)
    assert len(world.messages(session, "stop")) == 1
    for _ in range(6):
        asked = {stop.slot.index for stop in world.messages(session, "stop")}
        world.close(session, *[s for s in world.slots() if s.id.workload == "low" and s.id.index in asked])
        world.advance(2_000, beating=[session])
    assert (held(world, "globex"), held(world, "corp")) == (2, 4)
    world.check()


def test_its_tenants_own_higher_priorities_may() -> None:
    world = begun()
    session = world.join("n1", capacity=Vector(4_000, 102_400))
    world.share("low", task(replicas=4), priority=LOW, type=JOB)
    world.run(session, world.slots())
    world.share("high", task(), priority=HIGH)
    assert len(world.messages(session, "stop")) == 1


shapes = st.tuples(st.sampled_from(["acme", "globex", "corp"]), st.integers(1, 4), st.integers(1, 6))


@settings(max_examples=25, deadline=None)
@given(st.lists(shapes, max_size=8), st.integers(0, 8), st.integers(0, 8), st.integers(1, 3))
def test_what_is_protected_and_not_in_use_is_free_as_long_as_it_once_was(
    wanted: list[tuple[str, int, int]], acme: int, globex: int, nodes: int
) -> None:
    world = RegionalWorld()
    world.win()
    parts = {"acme": Vector(acme * 1_000), "globex": Vector(globex * 1_000), "corp": NOTHING}
    for tenant, part in parts.items():
        world.grant(tenant, LARGE, seq=1, protected=part)
    for number in range(nodes):
        world.join(f"n{number}", capacity=TEN)
    fits = total(list(parts.values())).fits(TEN * nodes)
    for number, (tenant, cpu, replicas) in enumerate(wanted):
        world.share(f"w{number}", task(replicas=replicas, cpu=cpu * 1_000, memory=1), tenant=tenant)
        kept = total([protection.unused(account) for account in world.state.accounts.values()])
        free = Vector(*world.state.table.standing().capacity) - Vector(*world.state.table.open_use())
        assert kept.fits(free) or not fits
    world.check()


def test_a_gang_that_preempts_gets_what_it_frees_and_nothing_that_is_protected() -> None:
    world = begun()
    world.grant("corp", LARGE, seq=1)
    session = world.join("n1", capacity=TEN)
    world.share("low", task(replicas=6), tenant="corp", priority=LOW, type=JOB)
    world.run(session, world.slots())
    world.share("large", task(replicas=8, gang=True), tenant="globex", priority=HIGH)
    world.advance(10_000, beating=[session])
    assert not world.messages(session, "stop")
    world.share("large", removed=True, generation=2, tenant="globex")
    world.share("fitting", task(replicas=6, gang=True), tenant="globex", priority=HIGH)
    world.advance(10_000, beating=[session])
    assert len(world.messages(session, "stop")) == 6


def test_a_drain_moves_others_work_beside_what_is_protected_and_stops_none_in_vain() -> None:
    world = begun()
    agents = Agents(world, "n1", capacity=TEN)
    world.share("web", task(replicas=6), tenant="globex")
    agents.run()
    agents.sessions["n2"] = world.join("n2", capacity=Vector(6_000, 102_400))
    assert world.change_node("n1", duty=DRAIN, reason="kernel", deadline_s=120).answer
    for _ in range(60):
        _step(agents)
        assert held(world, "globex") >= 6
    assert (len(agents.on("n1")), len(agents.on("n2"))) == (4, 2), "six are free there, and four of them protected"
    asked: Any = world.change_node("n1", set_labels=[objects_pb2.Label(key="seen", value="yes")]).answer
    assert ROOM in asked.node.drain.progress
    agents.pass_time(65_000)
    for _ in range(10):
        _step(agents)
    assert not agents.on("n1") and codes(world) == {explain.PROTECTED}, "its deadline has passed"
    assert held(world, "globex") == 2
    world.check()


def _step(agents: Agents) -> None:
    agents.run()
    agents.pass_time(1_000)
    for name in agents.sessions:
        agents.obey(name)


def test_nothing_migrates_into_what_is_protected() -> None:
    world = begun(rebalance_after_ms=10_000, rebalance_rest_ms=30_000)
    agents = Agents(world, "n1", capacity=TEN)
    world.uplink()
    web = task(replicas=8, strategy="least-loaded")
    world.grant("acme", LARGE, seq=2, protected=Vector(2_000))
    world.share("web", web, tenant="globex")
    agents.run()
    agents.pass_time(31_000)
    agents.sessions["n2"] = world.join("n2", capacity=TEN)
    world.grant("acme", LARGE, seq=3, protected=Vector(12_000))
    for _ in range(60):
        _step(agents)
        assert held(world, "globex") == 8 == len(agents.on("n1"))
    assert not world.state.surging
    world.grant("acme", LARGE, seq=4, protected=Vector(10_000))
    for _ in range(60):
        _step(agents)
        kept = protection.unused(world.state.account("acme"))
        assert kept.fits(Vector(*world.state.table.standing().capacity) - Vector(*world.state.table.open_use()))
    assert len(agents.on("n2")) > 1, "with a little more room they move, one after the other"
    world.check()
