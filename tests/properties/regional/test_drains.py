"""The disruption budget, held to a model of its own: what agents reported, and what they were asked to stop.

Whatever is drained and brought back while replicas come and go: no drain asks a replica that is up unless another one
was made in its place, or at most a tenth of its task, or one replica, is down with it; and when the nodes are left
alone all of it is moved.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld, task

NODES = ("n1", "n2", "n3")
SIZES = {"small": 2, "large": 24}
LONG_S = 10**6

Key = tuple[int, int]


def _key(attempt: objects_pb2.Attempt) -> Key:
    return attempt.term, attempt.n


class Model:
    """Three nodes whose agents report and obey when they are told to."""

    def __init__(self) -> None:
        self.world = RegionalWorld()
        self.world.win()
        self.world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
        self.sessions = {name: self.world.join(name) for name in NODES}
        for name, replicas in SIZES.items():
            self.world.share(name, task(replicas=replicas, cpu=100, memory=10, strategy="spread"))
        self.up: set[Key] = set()
        self.asked: set[Key] = set()
        self._read = Counter[str]()

    def bound(self) -> dict[Key, objects_pb2.Slot]:
        return {_key(slot.attempt): slot for slot in self.world.slots()}

    def look(self) -> None:
        """Takes in what was asked since, one Stop after the other, and holds each to the budget."""
        bound = self.bound()
        self.up &= bound.keys()
        for name, session in self.sessions.items():
            messages = self.world.messages(session, "stop")
            for stop in messages[self._read[name] :]:
                key = _key(stop.token.attempt)
                self.asked.add(key)
                if key in self.up:
                    self.up.remove(key)
                    workload = bound[key].id.workload
                    left = sum(bound[other].id.workload == workload for other in self.up)
                    kept = sum(slot.id.workload == workload for other, slot in bound.items() if other not in self.asked)
                    made_first = kept >= SIZES[workload]
                    assert made_first or SIZES[workload] - left <= max(1, SIZES[workload] // 10), (workload, left)
            self._read[name] = len(messages)

    def run(self, name: str) -> None:
        mine = [slot for key, slot in self.bound().items() if slot.node == name and key not in self.asked]
        self.up |= {_key(slot.attempt) for slot in mine}
        self.world.run(self.sessions[name], mine)

    def obey(self, name: str) -> None:
        mine = [slot for key, slot in self.bound().items() if slot.node == name and key in self.asked]
        if mine:
            self.world.close(self.sessions[name], *mine)

    def step(self, kind: int, name: str) -> None:
        match kind:
            case 0:
                self.run(name)
            case 1:
                self.obey(name)
            case 2:
                self.world.change_node(name, duty=regional_pb2.NODE_DUTY_DRAIN, reason="r", deadline_s=LONG_S)
            case 3:
                self.world.change_node(name, duty=regional_pb2.NODE_DUTY_SERVE)
            case _:
                self.pass_time()
        self.look()

    def pass_time(self) -> None:
        self.world.advance(1_000, beating=self.sessions.values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.sampled_from(NODES)), max_size=40))
def test_no_drain_takes_more_down_than_the_budget(steps: list[tuple[int, str]]) -> None:
    model = Model()
    for kind, name in steps:
        model.step(kind, name)
    for name in NODES:
        model.step(3 if name != "n1" else 2, name)
    for _ in range(60):
        for name in NODES:
            model.step(0, name)
            model.step(1, name)
        model.step(6, "")
    assert {slot.node for slot in model.world.slots()} == {"n2", "n3"}
    assert len(model.world.slots()) == sum(SIZES.values())
    model.world.check()
