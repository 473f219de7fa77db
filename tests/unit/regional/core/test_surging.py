"""Replicas that leave their node are made elsewhere first, whatever happens meanwhile, and none is left over."""

from typing import Any

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.resources import Vector
from regional.core import commands, events
from regional.core.node_changes import CORDON, DRAIN
from tests.support.obedient import Agents
from tests.support.regional_world import RegionalWorld, task

LOST_AFTER_MS = 30_000
JOB = objects_pb2.WORKLOAD_TYPE_JOB


def nodes_of(world: RegionalWorld) -> list[str]:
    return sorted(slot.node for slot in world.slots())


def drain(world: RegionalWorld, name: str, **fields: Any) -> None:
    assert world.change_node(name, duty=DRAIN, reason="kernel", **fields).answer


@pytest.fixture
def agents(world: RegionalWorld) -> Agents:
    """`web` has three replicas on n1, of which one is being made on n2 because n1 is drained."""
    made = Agents(world, "n1")
    world.uplink()
    world.share("web", task(replicas=3, cpu=100))
    made.run()
    for name in ("n2", "n3"):
        made.sessions[name] = world.join(name)
    world.change_node("n3", duty=CORDON)
    drain(world, "n1", deadline_s=3_600)
    made.pass_time(1_000)
    assert nodes_of(world) == ["n1", "n1", "n1", "n2"]
    return made


def test_it_is_counted_only_when_it_takes_over(world: RegionalWorld, agents: Agents) -> None:
    agents.pass_time(2_000)
    counts = world.reports("web")[-1].counts
    assert (counts.desired, counts.bound, counts.ready, counts.waiting) == (3, 3, 3, 0)
    agents.settle("n1")
    assert nodes_of(world) == ["n2", "n2", "n2"]
    counts = world.reports("web")[-1].counts
    assert (counts.desired, counts.bound, counts.ready, counts.waiting) == (3, 3, 3, 0)


def test_it_is_given_up_when_the_drain_ends(world: RegionalWorld, agents: Agents) -> None:
    world.change_node("n1", duty=CORDON)
    agents.pass_time(1_000)
    assert agents.obey("n2") == 1
    agents.settle("n2")
    assert nodes_of(world) == ["n1", "n1", "n1"]
    assert not world.state.surging


def test_a_new_leader_goes_on_with_it(world: RegionalWorld, agents: Agents) -> None:
    world.take_over()
    for name in ("n1", "n2"):
        agents.sessions[name] = world.join(name)
    agents.pass_time(3_000)
    assert nodes_of(world) == ["n1", "n1", "n1", "n2"], "it is neither stopped nor made twice"
    assert not agents.asked("n1") and not agents.asked("n2")
    agents.settle("n1")
    assert nodes_of(world) == ["n2", "n2", "n2"]


def test_a_new_leader_keeps_none_of_what_is_removed(world: RegionalWorld, agents: Agents) -> None:
    world.take_over()
    world.share("web", removed=True)
    for name in ("n1", "n2"):
        agents.sessions[name] = world.join(name)
        (sync,) = world.messages(agents.sessions[name], "sync")
        assert len(sync.stops) == len(agents.on(name)) and not sync.assignments


def test_a_smaller_count_takes_first_what_leaves(world: RegionalWorld, agents: Agents) -> None:
    world.share("web", task(replicas=2, cpu=100), generation=2)
    agents.settle("n1")
    assert nodes_of(world) == ["n2", "n2"]
    world.share("web", task(replicas=4, cpu=100), generation=3)
    assert nodes_of(world) == ["n2", "n2", "n2", "n2"]


def test_a_larger_count_has_indices_of_its_own(world: RegionalWorld, agents: Agents) -> None:
    world.share("web", task(replicas=5, cpu=100), generation=2)
    assert len(world.slots()) == 6
    agents.settle("n1")
    assert nodes_of(world) == ["n2"] * 5


def test_an_update_replaces_what_leaves_by_itself(world: RegionalWorld, agents: Agents) -> None:
    world.share("web", task(replicas=3, cpu=200), generation=2)
    for name in ("n1", "n2") * 10:
        agents.settle(name)
    assert nodes_of(world) == ["n2", "n2", "n2"]
    assert {slot.generation for slot in world.slots()} == {2}


def test_when_its_own_node_is_drained_it_goes_elsewhere(world: RegionalWorld, agents: Agents) -> None:
    world.change_node("n3", duty=CORDON - 1)
    drain(world, "n2")
    for _ in range(3):
        agents.settle("n1")
        agents.settle("n2")
    assert nodes_of(world) == ["n3", "n3", "n3"]


def test_what_is_for_a_lost_replica_takes_its_place(world: RegionalWorld, agents: Agents) -> None:
    agents.run()
    (surge,) = agents.on("n2")
    alive = [agents.sessions["n2"], agents.sessions["n3"]]
    world.tell(events.NodeSessionEnded(agents.sessions.pop("n1")))
    world.advance(LOST_AFTER_MS, beating=alive)
    agents.settle("n2")
    assert nodes_of(world) == ["n2", "n2", "n2"]
    assert surge.attempt in [slot.attempt for slot in world.slots()], "it served all the time"
    assert not world.state.surging


def test_one_that_is_never_ready_holds_the_drain_up_until_its_deadline(world: RegionalWorld, agents: Agents) -> None:
    (surge,) = agents.on("n2")
    for _ in range(3):
        world.close(agents.sessions["n2"], surge, reason="Failed", code=1)
        agents.pass_time(10_000)
        (surge,) = agents.on("n2")
    assert not agents.asked("n1")
    assert len(agents.on("n1")) == 3
    agents.pass_time(3_600_000)
    assert len(agents.asked("n1")) == 3
    agents.obey("n1")
    assert nodes_of(world) == ["n2", "n2", "n2"]


@pytest.fixture
def full(world: RegionalWorld) -> Agents:
    """Three replicas on n1, which is drained, in a slice that holds three; n2 takes them."""
    made = Agents(world, "n1")
    world.uplink()
    world.grant("acme", Vector(300, 10_000), seq=2)
    world.share("web", task(replicas=3, cpu=100))
    made.run()
    made.sessions["n2"] = world.join("n2")
    drain(world, "n1")
    made.pass_time(2_000)
    return made


def wished(world: RegionalWorld) -> int:
    """CPU for surges, as last asked of the global plane."""
    return int(world.acks()[-1].slice_ack.uses[0].surge.cpu_milli)


def moved(world: RegionalWorld) -> list[str]:
    announced = [command.event for command in world.issued if isinstance(command, commands.Announce)]
    return [event.message for event in announced if event.type == "Moved"]


def test_quota_for_both_is_asked_for_and_waited_for(world: RegionalWorld, full: Agents) -> None:
    assert wished(world) == 100, "for as many as may be on their way at a time"
    full.pass_time(20_000)
    assert not full.asked("n1") and len(world.slots()) == 3
    world.grant("acme", Vector(400, 10_000), seq=3)
    full.pass_time(1_000)
    assert nodes_of(world) == ["n1", "n1", "n1", "n2"]
    full.settle("n1")
    assert nodes_of(world) == ["n2", "n2", "n2"]
    assert wished(world) == 0
    assert len(moved(world)) == 3 and all("has taken its place" in message for message in moved(world))


def test_without_quota_for_both_the_old_one_goes_first_and_that_is_said(world: RegionalWorld, full: Agents) -> None:
    full.pass_time(30_000)
    assert len(full.asked("n1")) == 1 and len(world.slots()) == 3
    full.settle("n1")
    assert nodes_of(world) == ["n2", "n2", "n2"]
    assert len(moved(world)) == 3 and all("quota has no room for one more" in message for message in moved(world))
    assert wished(world) == 0


@pytest.mark.parametrize("waited_ms", [0, 1_800_000], ids=["fresh", "aged beyond its band"])
def test_the_quota_that_comes_back_is_for_what_ran(world: RegionalWorld, full: Agents, waited_ms: int) -> None:
    due_ms = world.now_ms + 7_200_000
    world.share("urgent", task(replicas=3, cpu=100), type=JOB, deadline_ms=due_ms, estimate_ms=1_000)
    world.share("first", task(replicas=3, cpu=100))
    if waited_ms:
        world.change_node("n1", duty=CORDON)
        full.pass_time(waited_ms)
        drain(world, "n1")
    full.pass_time(32_000)
    full.settle("n1")
    assert {slot.id.workload for slot in world.slots()} == {"web"}
    assert nodes_of(world) == ["n2", "n2", "n2"]


def test_a_higher_priority_of_the_tenant_has_its_quota_first(world: RegionalWorld, full: Agents) -> None:
    world.share("high", task(replicas=1, cpu=100), priority=objects_pb2.PRIORITY_HIGH)
    full.pass_time(32_000)
    full.settle("n1")
    assert sorted(slot.id.workload for slot in world.slots()) == ["high", "web", "web"]


def test_quota_that_is_gone_meanwhile_gives_it_up(world: RegionalWorld) -> None:
    agents = Agents(world, "n1", capacity=Vector(1_000, 8_192))
    world.grant("acme", Vector(400, 10_000), seq=2)
    world.share("web", task(replicas=3, cpu=100))
    agents.run()
    agents.sessions["n2"] = world.join("n2", capacity=Vector(1_000, 8_192))
    world.hold = True
    drain_asked = world.ask_node("n1", duty=DRAIN, reason="kernel")
    world.hold = False
    for commit in list(world.held):
        world.held.remove(commit)
        world.settle(commit)
    assert world.reply(drain_asked).answer
    world.share("api", task(replicas=1, cpu=100))
    agents.pass_time(30_000)
    agents.settle("n1")
    assert nodes_of(world) == ["n2"] * 3 + ["n2"]
    assert not world.state.surging


@pytest.mark.parametrize("run_class", [objects_pb2.RUN_CLASS_EXCLUSIVE, objects_pb2.RUN_CLASS_BOUNDED])
def test_two_of_these_never_run_at_a_time(world: RegionalWorld, run_class: Any) -> None:
    agents = Agents(world, "n1")
    world.share("db", task(), run_class=run_class, bounded_s=10)
    agents.run()
    agents.sessions["n2"] = world.join("n2")
    drain(world, "n1")
    agents.pass_time(5_000)
    assert nodes_of(world) == ["n1"]
    assert len(agents.asked("n1")) == 1


def test_what_does_not_serve_is_moved_at_once(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("web", task(replicas=3, cpu=100))
    starting = agent_pb2.ATTEMPT_PHASE_STARTING
    for slot in world.slots():
        status = agent_pb2.AttemptStatus(slot=slot.id, attempt=slot.attempt, phase=starting)
        world.report(agents.sessions["n1"], status)
    agents.sessions["n2"] = world.join("n2")
    drain(world, "n1")
    agents.pass_time(1_000)
    assert len(agents.asked("n1")) == 3
