"""A leader dies at each transaction of a drain and of a migration, before the store has it or after: the next one goes
on or rolls back, no replica is stopped before its successor is up, and in the end as many run as were asked for."""

import pytest

from atoll.model.resources import Vector
from regional.core import commands
from regional.core.node_changes import DRAIN
from tests.support.obedient import Agents
from tests.support.regional_world import RegionalWorld, task

NODE = Vector(4_000, 8_192)
REPLICAS = 4
AFTER_MS, REST_MS = 2_000, 10_000
NODES = ("n1", "n2", "n3")
MOST_TRANSACTIONS = 40


class Mortal(RegionalWorld):
    """Its leader dies at transaction number `dies_at`, once counting has begun."""

    def __init__(self, dies_at: int, *, applied: bool) -> None:
        super().__init__(rebalance_after_ms=AFTER_MS, rebalance_rest_ms=REST_MS, rebalance_per_minute=60)
        self._left, self._applied = dies_at, applied
        self.counting = self.dead = self.died = False

    def _carry_out(self, command: commands.Command) -> None:
        if self.dead:
            return
        if self.counting and isinstance(command, commands.Commit) and command.plan.operation != "TOUCH":
            self._left -= 1
            if self._left == 0:
                if self._applied:
                    self.apply(command)
                self.dead = self.died = True
                return
        super()._carry_out(command)


def begin(dies_at: int, *, applied: bool) -> tuple[Mortal, Agents]:
    """All replicas are on n1, long enough to move."""
    world = Mortal(dies_at, applied=applied)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    agents = Agents(world, "n1", capacity=NODE)
    world.share("web", task(replicas=REPLICAS, cpu=900, strategy="least-loaded"))
    agents.run()
    agents.pass_time(REST_MS)
    for name in NODES[1:]:
        agents.sessions[name] = world.join(name, capacity=NODE)
    world.counting = True
    return world, agents


def live(world: Mortal, agents: Agents, ms: int) -> None:
    for _ in range(ms // 1_000):
        agents.run()
        agents.pass_time(1_000)
        if world.dead:
            world.dead = False
            world.take_over()
            for name in NODES:
                agents.sessions[name] = world.join(name, capacity=NODE)
            continue
        up = sum((slot.attempt.term, slot.attempt.n) in agents.began_ms for slot in world.slots())
        assert up >= REPLICAS, "made before broken"
        for name in NODES:
            agents.obey(name)


@pytest.mark.parametrize("applied", [False, True], ids=["before it applies", "after it applied"])
def test_a_drain_survives_its_leader(applied: bool) -> None:
    for dies_at in range(1, MOST_TRANSACTIONS):
        world, agents = begin(dies_at, applied=applied)
        world.ask_node("n1", request_id="drain", duty=DRAIN, reason="kernel")
        if world.dead:
            live(world, agents, 1_000)
            world.ask_node("n1", request_id="drain", duty=DRAIN, reason="kernel")
        live(world, agents, 20_000)
        assert len(world.slots()) == REPLICAS and not agents.on("n1"), dies_at
        assert not world.state.surging
        world.check()
        if not world.died:
            assert dies_at > 2 * REPLICAS, "each replica is bound and released"
            return
    pytest.fail("a drain takes more transactions than that")


@pytest.mark.parametrize("applied", [False, True], ids=["before it applies", "after it applied"])
def test_migrations_survive_their_leader(applied: bool) -> None:
    for dies_at in range(1, MOST_TRANSACTIONS):
        world, agents = begin(dies_at, applied=applied)
        live(world, agents, 50_000)
        assert len(world.slots()) == REPLICAS, dies_at
        assert len(agents.on("n1")) <= 2, "two of three nodes were empty"
        assert not world.state.surging and not world.state.balance.migrations
        world.check()
        if not world.died:
            assert dies_at > 2 * 2
            return
    pytest.fail("migrations take more transactions than that")
