"""Random histories of one region: the auditor's rules at every revision, and quiet at the end.

Agents obey what they are told and nothing more; commits wait, are lost before or after they apply, or overtake each
other on another lane; leaders die; operators drain, taint and remove nodes. Whatever happens: never over capacity or
quota, one binding a slot, sums that agree; and once the faults stop, what is wanted is bound and runs exactly where it
is bound.
"""

from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.model import assigns
from atoll.model.resources import Vector
from regional.core import events
from tests.support.regional_world import RegionalWorld, status, task

NODES, WORKLOADS = 3, 2
GPU_MILLI = (400, 1_000)
NO_EXECUTE = objects_pb2.TAINT_EFFECT_NO_EXECUTE
NEVER_MS = 1 << 60  # of a certificate
RUNNING, CLOSED = agent_pb2.ATTEMPT_PHASE_RUNNING, agent_pb2.ATTEMPT_PHASE_CLOSED


@dataclass
class Agent:
    """What obeys: runs what it is assigned, closes for ever what it is told to stop."""

    name: str
    session: int = 0
    heard: int = 0  # messages of this session taken in
    running: dict[tuple[int, int], objects_pb2.Slot] = field(default_factory=dict)
    closed: dict[tuple[int, int], objects_pb2.Slot] = field(default_factory=dict)  # certificates
    refused: set[tuple[int, int]] = field(default_factory=set)  # closed, and their certificates forgotten

    def listen(self, world: RegionalWorld) -> None:
        node = world.state.nodes.get(self.name)
        if node is None or node.session != self.session:
            self.session = 0
            return
        messages = world.sent.get(self.session, [])
        while self.heard < len(messages):
            message = messages[self.heard]
            self.heard += 1
            match message.WhichOneof("body"):
                case "sync":
                    listed = [self._slot(a.slot, a.token.attempt) for a in message.sync.assignments]
                    for stop in message.sync.stops:
                        self._stop(stop)
                    for key in [k for k in self.running if k not in {_key(s) for s in listed}]:
                        self.closed[key] = self.running.pop(key)
                    for slot in listed:
                        self._start(slot)
                case "assign":
                    for assign in assigns.each(message.assign):
                        self._start(self._slot(assign.slot, assign.token.attempt))
                case "stop":
                    self._stop(message.stop)
                case "settled":
                    for settled in message.settled.attempts:
                        key = _key(self._slot(settled.slot, settled.token.attempt))
                        if self.closed.pop(key, None):
                            self.refused.add(key)

    @staticmethod
    def _slot(name: objects_pb2.SlotId, attempt: objects_pb2.Attempt) -> objects_pb2.Slot:
        return objects_pb2.Slot(id=name, attempt=attempt)

    def _stop(self, stop: agent_pb2.Stop) -> None:
        slot = self._slot(stop.slot, stop.token.attempt)
        self.running.pop(_key(slot), None)
        self.closed[_key(slot)] = slot

    def _start(self, slot: objects_pb2.Slot) -> None:
        if _key(slot) not in self.closed and _key(slot) not in self.refused:
            self.running[_key(slot)] = slot

    def inventory(self) -> list[agent_pb2.AttemptStatus]:
        stopped = objects_pb2.Exit(reason="Stopped")
        return [
            *(status(s, RUNNING, ready=True) for s in self.running.values()),
            *(status(s, CLOSED, exit=stopped) for s in self.closed.values()),
        ]


def _key(slot: objects_pb2.Slot) -> tuple[int, int]:
    return slot.attempt.term, slot.attempt.n


class History:
    """Interprets random numbers as what happens next."""

    quota = Vector(5_000, 100_000, 0, 9_000)
    world_type = RegionalWorld

    def __init__(self, lanes: int) -> None:
        self.world = self.world_type(lanes=lanes)
        self.world.win()
        self.world.grant("acme", self.quota, seq=1)
        self.agents = [Agent(f"n{i}") for i in range(NODES)]
        self.seq = 1
        self.generation = 1
        self.shares: dict[str, objects_pb2.Share] = {}

    def step(self, kind: int, a: int, b: int) -> None:
        world, agent = self.world, self.agents[a % NODES]
        match kind:
            case 0:
                self._hello(agent)
            case 1:
                self.generation += 1
                name, changed = f"w{a % WORKLOADS}", str(b % 2)
                exclusive = objects_pb2.RUN_CLASS_EXCLUSIVE if a % WORKLOADS else objects_pb2.RUN_CLASS_KEEP
                self.shares[name] = world.share(
                    name,
                    task(replicas=b % 5, command=[changed], gpu=GPU_MILLI[a % WORKLOADS]),
                    generation=self.generation,
                    removed=b % 7 == 6,
                    run_class=exclusive,
                )
            case 2:
                self.seq += 1
                target = Vector(1_000 * (b % 6), 100_000, 0, 9_000)
                world.grant("acme", self.quota, seq=self.seq, target=target)
            case 3:
                world.hold = True
            case 4 if world.held:
                world.settle(world.held.pop(a % len(world.held)), lose=("", "before", "after")[b % 3])
            case 5:
                world.release_held()
            case 6:
                world.advance(500 * (b + 1), beating=[x.session for x in self.agents[: a % 4] if x.session])
            case 7:
                self._end_one(agent, b)
            case 8 if b % 4 == 0:
                self._take_over()
            case 9 if agent.session:
                world.tell(events.NodeSessionEnded(agent.session))
                agent.session = 0
            case 10:
                duty = regional_pb2.NodeDuty.ValueType(b % 4)
                world.ask_node(agent.name, duty=duty, reason="r", deadline_s=1 + 1_000 * (b % 2))
            case 11 if b % 2:
                world.ask_node(agent.name, set_taints=[objects_pb2.Taint(key="k", effect=NO_EXECUTE)])
            case 11:
                world.ask_node(agent.name, remove_taints=[objects_pb2.Taint(key="k")])
            case 12:
                world.ask_removal(agent.name)
        self._agents_act(b)
        world.check()

    def _hello(self, agent: Agent) -> None:
        agent.heard = 0
        agent.session = self.world.join(
            agent.name,
            capacity=Vector(3_000, 8_192),
            inventory=agent.inventory(),
            expires_ms=NEVER_MS,
            gpus=("T4",) * 3,
        )

    def _end_one(self, agent: Agent, how: int) -> None:
        if agent.session and agent.running:
            key = min(agent.running)
            agent.closed[key] = agent.running.pop(key)
            self.world.close(agent.session, agent.closed[key], reason=("Failed", "Stopped")[how % 2], code=how % 2)

    def _take_over(self) -> None:
        self.world.hold = False
        for agent in self.agents:
            agent.session = 0
        self.world.take_over()
        for share in self.shares.values():  # as the global plane does when the new leader says hello
            self.world.tell(events.ShareArrived(share))

    def _agents_act(self, b: int) -> None:
        for agent in self.agents:
            if agent.session and b % 3:
                agent.listen(self.world)
                if agent.session:
                    self.world.report(agent.session, *agent.inventory())

    def settle_down(self) -> None:
        """The faults stop: every node is there and obeys, the slice is whole."""
        world = self.world
        world.release_held()
        self.seq += 1
        world.grant("acme", self.quota, seq=self.seq)
        for _ in range(60):
            for agent in self.agents:
                if not agent.session:
                    self._hello(agent)
            world.advance(2_000, beating=[x.session for x in self.agents])
            self._agents_act(1)
            for agent in self.agents:
                serve = regional_pb2.NODE_DUTY_SERVE
                world.ask_node(agent.name, duty=serve, remove_taints=[objects_pb2.Taint(key="k")], request_id="end")


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 2),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 11), st.integers(0, 11)), min_size=5, max_size=40),
)
def test_any_history_keeps_the_invariants_and_comes_to_rest(lanes: int, steps: list[tuple[int, int, int]]) -> None:
    history = History(lanes)
    for kind, a, b in steps:
        history.step(kind, a, b)
    history.settle_down()
    world = history.world
    world.check()
    bound = world.slots()
    wanted = sum(s.spec.tasks[0].replicas for s in history.shares.values() if not s.removed)
    assert len(bound) == min(wanted, 5), [str(s) for s in bound]
    assert not world.zombies()
    where = {_key(slot): slot.node for slot in bound}
    running = {key: agent.name for agent in history.agents for key in agent.running}
    assert running == where
    generations = {name: share.metadata.generation for name, share in history.shares.items()}
    assert all(slot.generation <= generations[slot.id.workload] for slot in bound)
