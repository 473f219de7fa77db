"""Evening out: when it begins and ends, who moves and who never does, and what is left when it cannot go on."""

from collections.abc import Iterator
from typing import Any

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.core import commands
from regional.core.node_changes import DRAIN
from tests.support.obedient import Agents
from tests.support.regional_world import RegionalWorld, task

JOB, EXCLUSIVE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.RUN_CLASS_EXCLUSIVE
AFTER_MS, REST_MS = 20_000, 60_000
NODE = Vector(4_000, 8_192)


def settled(**settings: Any) -> RegionalWorld:
    world = RegionalWorld(rebalance_after_ms=AFTER_MS, rebalance_rest_ms=REST_MS, **settings)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    return world


@pytest.fixture
def world() -> Iterator[RegionalWorld]:
    world = settled()
    yield world
    world.check()


def web(replicas: int = 8, cpu: int = 450, strategy: str = "least-loaded", **fields: Any) -> objects_pb2.Task:
    return task(replicas=replicas, cpu=cpu, strategy=strategy, **fields)


def uneven(world: RegionalWorld, template: objects_pb2.Task | None = None, **share: Any) -> Agents:
    """One full node with `web`, old enough to move; then an empty one joins."""
    agents = Agents(world, "n1", capacity=NODE)
    world.uplink()
    world.share("web", template or web(), **share)
    agents.run()
    agents.pass_time(REST_MS)
    agents.sessions["n2"] = world.join("n2", capacity=NODE)
    return agents


def go_on(agents: Agents, ms: int) -> None:
    for _ in range(ms // 5_000):
        agents.run()
        agents.pass_time(5_000)
        for name in agents.sessions:
            agents.obey(name)


def told(world: RegionalWorld, kind: str) -> list[str]:
    announced = [command.event for command in world.issued if isinstance(command, commands.Announce)]
    return [event.message for event in announced if event.type == kind]


def test_replicas_move_until_the_imbalance_is_half_of_what_began_it(world: RegionalWorld) -> None:
    agents = uneven(world)
    fewest = 8
    for _ in range(40):
        go_on(agents, 5_000)
        fewest = min(fewest, len(world.slots()))
    assert fewest == 8, "made before broken"
    on = len(agents.on("n1")), len(agents.on("n2"))
    assert on == (5, 3), "57 % and 34 %: 11 % above the mean"
    assert len(told(world, "Migrated")) == 3
    assert told(world, "Migrating")[0] == (
        "main/0: node n1 is used to 90 %, the mean of the region is 45 %: another one is made first"
    )


def test_it_begins_only_after_a_while(world: RegionalWorld) -> None:
    agents = uneven(world)
    go_on(agents, AFTER_MS - 5_000)
    assert not told(world, "Migrating")
    go_on(agents, 15_000)
    assert told(world, "Migrating")


def test_few_move_at_once_and_few_a_minute(world: RegionalWorld) -> None:
    agents = Agents(world, "n1", capacity=NODE)
    for number in range(8):
        world.share(f"web{number}", web(1))
    agents.run()
    agents.pass_time(REST_MS)
    agents.sessions["n2"] = world.join("n2", capacity=Vector(40_000, 80_000))
    agents.pass_time(AFTER_MS + 20_000)
    assert len(agents.on("n2")) == 2, "as many as are on their way at once: they are not up yet"
    go_on(agents, 60_000)
    assert len(told(world, "Migrating")) <= 2 + 6


@pytest.mark.parametrize(
    ("template", "share"),
    [
        (web(strategy="bin-pack"), {}),
        (web(), {"migratable": False}),
        (web(), {"type": JOB}),
        (web(), {"run_class": EXCLUSIVE}),
    ],
    ids=["packed", "not migratable", "job", "exclusive"],
)
def test_these_stay(world: RegionalWorld, template: objects_pb2.Task, share: dict[str, Any]) -> None:
    agents = uneven(world, template, **share)
    go_on(agents, 120_000)
    assert len(agents.on("n1")) == 8
    assert not told(world, "Migrating")


def test_what_began_of_late_stays(world: RegionalWorld) -> None:
    agents = Agents(world, "n1", capacity=NODE)
    world.share("web", web())
    agents.run()
    agents.sessions["n2"] = world.join("n2", capacity=NODE)
    go_on(agents, REST_MS - 10_000)
    assert not told(world, "Migrating")
    go_on(agents, 20_000)
    assert told(world, "Migrating")


def test_none_moves_while_one_of_its_task_is_down(world: RegionalWorld) -> None:
    agents = uneven(world)
    world.close(agents.sessions["n1"], agents.on("n1")[0], reason="Failed", code=1)
    for _ in range(20):
        agents.pass_time(5_000)
    assert not told(world, "Migrating")


def test_what_fits_nowhere_else_stays(world: RegionalWorld) -> None:
    agents = uneven(world, web(1, cpu=3_900))
    agents.sessions["n3"] = world.join("n3", capacity=Vector(3_000, 8_192))
    go_on(agents, 120_000)
    assert len(agents.on("n1")) == 1, "n2 would be as full as n1 is"


def test_without_quota_for_both_it_stays_and_rests(world: RegionalWorld) -> None:
    agents = Agents(world, "n1", capacity=NODE)
    world.uplink()
    world.grant("acme", Vector(3_600, 10_000), seq=2)
    world.share("web", web())
    agents.run()
    agents.pass_time(REST_MS)
    agents.sessions["n2"] = world.join("n2", capacity=NODE)
    go_on(agents, AFTER_MS + 10_000)
    assert world.acks()[-1].slice_ack.uses[0].surge.cpu_milli == 450
    go_on(agents, 60_000)
    assert len(agents.on("n1")) == 8 and not told(world, "Migrating")
    assert not world.acks()[-1].slice_ack.uses[0].surge.cpu_milli


def test_a_new_leader_gives_up_what_was_under_way_and_begins_anew(world: RegionalWorld) -> None:
    agents = uneven(world)
    agents.pass_time(AFTER_MS + 10_000)
    assert len(world.slots()) == 9
    world.take_over()
    for name in ("n1", "n2"):
        agents.sessions[name] = world.join(name, capacity=NODE)
    go_on(agents, AFTER_MS - 5_000)
    assert len(world.slots()) == len(agents.on("n1")) == 8
    assert not world.state.surging
    go_on(agents, 60_000)
    assert len(agents.on("n2")) > 1


def test_a_leader_that_dies_after_the_hand_over_stops_nothing_else() -> None:
    world = settled(rebalance_at_once=1)
    agents = uneven(world)
    agents.pass_time(AFTER_MS + 10_000)
    agents.run()
    agents.pass_time(1_000)
    (asked,) = agents.asked("n1")
    world.take_over()
    sessions = {name: world.join(name, capacity=NODE) for name in ("n1", "n2")}
    stopping = [slot for slot in agents.on("n1") if (slot.attempt.term, slot.attempt.n) == asked]
    agents.sessions = sessions
    world.run(sessions["n1"], [slot for slot in agents.on("n1") if (slot.attempt.term, slot.attempt.n) != asked])
    world.run(sessions["n2"], agents.on("n2"))
    agents.pass_time(5_000)
    assert not agents.asked("n2"), "its successor waits to hear of it"
    world.close(sessions["n1"], *stopping)
    agents.pass_time(5_000)
    assert (len(agents.on("n1")), len(agents.on("n2"))) == (7, 1)
    assert not agents.asked("n1") and not agents.asked("n2")


def test_a_drain_of_its_node_takes_it_along(world: RegionalWorld) -> None:
    agents = uneven(world)
    agents.pass_time(AFTER_MS + 10_000)
    world.change_node("n1", duty=DRAIN, reason="kernel")
    go_on(agents, 120_000)
    assert (len(agents.on("n1")), len(agents.on("n2"))) == (0, 8)
    assert not world.state.balance.migrations
