"""Hard topology spread over whole histories: no decision puts a domain more than `max_skew` above the one that has the
fewest and counts, whatever nodes, replicas, operators and leaders do, and also where others are stopped for it.
"""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import commands, events
from regional.core.machine import Machine
from regional.core.node_table import NODE
from regional.core.records import NodeEntry
from regional.core.state import State
from regional.core.transactions import Bind, Binding
from tests.properties.regional.test_histories import NEVER_MS, NO_EXECUTE, Agent, History
from tests.support.regional_world import REGION, RegionalWorld, task

ZONES = ("a", "a", "b", "b", "c")
RULES = (("high", "zone", 1), ("low", NODE, 1), ("jobs", "zone", 2))
PRIORITIES = {"high": objects_pb2.PRIORITY_HIGH, "low": objects_pb2.PRIORITY_LOW}
TAINT = objects_pb2.Taint(key="k", effect=NO_EXECUTE)
JOB, SERVICE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.WORKLOAD_TYPE_SERVICE


class Watched(Machine):
    """Looks at what each event has decided, right after."""

    def handle(self, event: events.Event, now_ms: int) -> list[commands.Command]:
        done = super().handle(event, now_ms)
        if self.state:
            plans = [self.state.in_flight[c.plan_id] for c in done if isinstance(c, commands.Commit)]
            look(self.state, [b for plan in plans if isinstance(plan, Bind) for b in plan.bindings])
        return done


def look(state: State, bindings: list[Binding]) -> None:
    """Takes what was placed away, and puts it back one by one."""
    for one in {id(b.task): b.task for b in bindings}.values():
        mine = [b for b in bindings if b.task is one]
        (rule,) = one.request.topology
        domains = {name: found for name, node in state.nodes.items() if (found := domain_of(node, rule.within))}
        before = Counter(one.copies)
        before.subtract(b.row for b in mine)
        counts = {domains[name]: 0 for name, node in state.nodes.items() if counts_for(state, node)}
        for row, copies in before.items():
            if (domain := domains[state.table.names[row]]) in counts:
                counts[domain] += copies
        for b in mine:
            here = domains[b.record.node]
            assert here in counts and counts[here] + 1 - min(counts.values()) <= rule.max_skew, (one.owner.name, counts)
            counts[here] += 1
            Zoned.placed += 1


def domain_of(node: NodeEntry, within: str) -> str:
    if within == NODE:
        return node.name
    return next((label.value for label in node.record.metadata.labels if label.key == within), "")


def counts_for(state: State, node: NodeEntry) -> bool:
    """Whether the node could be used if it had room."""
    record, row = node.record, node.row
    off = record.cordoned or record.draining or state.table.resting[row] or record.taints
    return bool(state.table.ready[row]) and not off


class Zones(RegionalWorld):
    def win(self) -> None:
        self.machine = Watched(REGION, self.settings)
        super().win()


class Zoned(History):
    """Three workloads with rules on five nodes in three zones, with too little room for all of them."""

    quota = Vector(1_000_000, 1_000_000)
    world_type = Zones
    placed = 0

    def __init__(self, lanes: int) -> None:
        super().__init__(lanes)
        self.agents = [Agent(f"n{number}") for number in range(len(ZONES))]
        for agent in self.agents:
            self._hello(agent)
        for number in range(len(RULES)):
            self._share(number, 6)
        self._agents_act(1)

    def step(self, kind: int, a: int, b: int) -> None:
        world, agent = self.world, self.agents[a % len(self.agents)]
        match kind:
            case 0 | 1:
                self._share(a, b)
            case 2:
                world.hold = True
            case 3 | 4 if world.held:
                world.settle(world.held.pop(a % len(world.held)), lose=("", "before", "after")[b % 3])
            case 5 | 6:
                world.release_held()
            case 7:
                world.advance(1_000 * (b + 1), beating=self._beating())
            case 8:  # long enough for a node to be lost
                world.advance(20_000, beating=[s for s in self._beating() if s != agent.session])
            case 9:
                self._end_one(agent, b)
            case 10:
                world.ask_node(agent.name, duty=regional_pb2.NodeDuty.ValueType(b % 4), reason="r", deadline_s=60)
            case 11 if b % 2:
                world.ask_node(agent.name, set_taints=[TAINT])
            case 11:
                world.ask_node(agent.name, remove_taints=[TAINT])
            case 12 if b % 4 == 0:
                self._take_over()
            case 12 | 13:
                self._hello(agent)
        self._agents_act(b)
        world.check()

    def _beating(self) -> list[int]:
        return [agent.session for agent in self.agents if agent.session]

    def _hello(self, agent: Agent) -> None:
        agent.heard = 0
        zone = ZONES[self.agents.index(agent)] if agent in self.agents else ""
        agent.session = self.world.join(
            agent.name,
            capacity=Vector(3_000, 8_192),
            labels={"zone": zone},
            inventory=agent.inventory(),
            expires_ms=NEVER_MS,
        )

    def _share(self, a: int, b: int) -> None:
        self.generation += 1
        name, within, skew = RULES[a % len(RULES)]
        rule = objects_pb2.TopologySpread(within=within, max_skew=skew)
        self.shares[name] = self.world.share(
            name,
            task(replicas=b, command=[str(b % 2)], topology_spread=[rule]),
            generation=self.generation,
            type=JOB if name == "jobs" else SERVICE,
            priority=PRIORITIES.get(name, objects_pb2.PRIORITY_DEFAULT),
        )


steps = st.lists(st.tuples(st.integers(0, 13), st.integers(0, 11), st.integers(0, 11)), min_size=5, max_size=40)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 2), steps)
def test_the_skew_is_kept_by_every_decision_of_any_history(lanes: int, steps: list[tuple[int, int, int]]) -> None:
    before = Zoned.placed
    history = Zoned(lanes)
    for kind, a, b in steps:
        history.step(kind, a, b)
    assert Zoned.placed >= before + 10, "it looks at something"
