"""Random histories full of priorities and gangs, on nodes with too little room, while commits are lost and leaders die.

At every moment: only work of lower priorities is stopped to make room, on its own node; what is bound there is never
more than the node has, nor than the quota; gangs are bound all or none (the auditor's I12); and what is reserved fits
when the victims are gone. In the end nothing is reserved, and nobody is marked as a victim.
"""

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector, total, vector
from tests.properties.regional.test_histories import History
from tests.support.regional_world import task

BOUND, RESERVED = objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_RESERVED
JOB, SERVICE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.WORKLOAD_TYPE_SERVICE
NODE = Vector(3_000, 8_192, 0, 3_000)
NAMES = 4


class Crowded(History):
    """Four workloads of four priorities; each second one is a gang, as the numbers say. Room is lacking, not quota."""

    quota = Vector(1_000_000, 1_000_000, 0, 1_000_000)

    def __init__(self, lanes: int) -> None:
        super().__init__(lanes)
        for agent in self.agents:
            self._hello(agent)
        self.shares["w1"] = self.world.share("w1", task(replicas=9), type=JOB, priority=1)
        self._agents_act(1)

    def step(self, kind: int, a: int, b: int) -> None:
        world, agent = self.world, self.agents[a % len(self.agents)]
        match kind:
            case 0 | 1 | 2 | 3:
                self._share(a, b)
            case 4:
                world.hold = True
            case 5 | 6 if world.held:
                world.settle(world.held.pop(a % len(world.held)), lose=("", "before", "after")[b % 3])
            case 7 | 8:
                world.release_held()
            case 9 | 10:
                world.advance(1_000 * (b + 1), beating=[x.session for x in self.agents])
            case 11:
                self._end_one(agent, b)
            case 12 if b % 3 == 0:
                self._take_over()
                for agent in self.agents:
                    self._hello(agent)
            case 13:
                world.ask_node(agent.name, duty=regional_pb2.NodeDuty.ValueType(b % 3))
        self._agents_act(1 if b % 6 else 0)
        world.check()
        self.look()

    def _share(self, a: int, b: int) -> None:
        self.generation += 1
        priority = 1 + a % NAMES
        self.shares[f"w{priority}"] = self.world.share(
            f"w{priority}",
            task(replicas=1 + b % 6, cpu=500 + 500 * (a % 3), gpu=1_000 * (b % 4 == 3), gang=b % 2 == 1),
            generation=self.generation,
            removed=b == 11,
            type=JOB if a % 3 else SERVICE,
            priority=priority,
        )

    def look(self) -> None:
        world = self.world
        bound, reserved = world.slots(BOUND), world.slots(RESERVED)
        at = {(slot.id.workload, slot.id.task, slot.id.index): slot for slot in bound}
        held = Counter(slot.node for slot in bound)
        for name in held:
            here = total([vector(slot.vector) for slot in bound if slot.node == name])
            assert here.fits(NODE), f"{here} is bound to {name}"
        named: list[bytes] = []
        freed: dict[str, Vector] = {}
        for slot in reserved:
            for victim in slot.reservation.victims:
                other = at.get((victim.slot.workload, victim.slot.task, victim.slot.index))
                if other is not None and other.attempt == victim.attempt:
                    assert other.node == slot.node and other.id.workload < slot.id.workload, "w1 is the lowest"
                    named.append(other.SerializeToString(deterministic=True))
                    freed[slot.node] = freed.get(slot.node, Vector()) + vector(other.vector)
        assert len(named) == len(set(named)), "nobody makes way for two"
        for name in {slot.node for slot in reserved}:
            there = total([vector(slot.vector) for slot in (*bound, *reserved) if slot.node == name])
            assert (there - freed.get(name, Vector())).fits(NODE), "what is reserved fits then"


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 2),
    st.lists(st.tuples(st.integers(0, 13), st.integers(0, 11), st.integers(0, 11)), min_size=20, max_size=40),
)
def test_whoever_makes_way_does_so_for_something(lanes: int, steps: list[tuple[int, int, int]]) -> None:
    history = Crowded(lanes)
    for kind, a, b in steps:
        history.step(kind, a, b)
    history.settle_down()
    world = history.world
    history.look()
    world.check()
    assert not world.slots(RESERVED) and not world.state.victims
