"""Backfill never delays what holds room: with smaller work beside it, it starts no later, if estimates are true.

Two worlds with the same nodes and the same jobs, an item that is too large for what is left, and, in one of them, many
smaller jobs after the hold is made. Each job runs exactly as long as it says, from the moment it is bound.
"""

import heapq
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld, status, task

JOB = objects_pb2.WORKLOAD_TYPE_JOB
STEP_MS, HOLD_AFTER_MS = 4_000, 8_000


class Small(NamedTuple):
    after: int  # steps, since the hold could be made
    cpu: int
    steps: int  # that it runs; 0: it does not say


class Story(NamedTuple):
    nodes: list[int]  # processors, in quarters
    first: list[Small]  # that are there before
    members: int  # of a gang; 1: a single replica
    cpu: int
    small: list[Small]


@st.composite
def stories(draw: st.DrawFn) -> Story:
    """The first jobs fill the nodes, so that the large one has to wait; it would fit when all of them have ended."""
    nodes = draw(st.lists(st.integers(3, 8), min_size=1, max_size=3))
    first = []
    for quarters in nodes:
        half = draw(st.integers(1, quarters - 1))
        first += [Small(0, part, draw(st.integers(5, 20))) for part in (half, quarters - half)]
    cpu = draw(st.integers(2, max(nodes)))
    members = draw(st.integers(1, sum(quarters // cpu for quarters in nodes)))
    small = st.builds(Small, st.integers(0, 8), st.integers(1, 3), st.integers(0, 8))
    return Story(nodes, first, members, cpu, draw(st.lists(small, min_size=2, max_size=8)))


class Played:
    """One world: jobs begin when they are bound, and end when their time is over."""

    def __init__(self, story: Story) -> None:
        self.world = RegionalWorld(hold_after_ms=HOLD_AFTER_MS)
        self.world.win()
        self.world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
        self.sessions = [
            self.world.join(f"n{i}", capacity=Vector(250 * quarters, 8_192)) for i, quarters in enumerate(story.nodes)
        ]
        self._runs: dict[str, int] = {}
        self._seen: set[bytes] = set()
        self._ends: list[tuple[int, int, bytes]] = []

    def submit(self, name: str, one: Small, replicas: int = 1, *, gang: bool = False) -> None:
        self._runs[name] = one.steps
        estimate_ms = one.steps * STEP_MS
        self.world.share(
            name, task(cpu=250 * one.cpu, memory=1, replicas=replicas, gang=gang), type=JOB, estimate_ms=estimate_ms
        )

    def tick(self) -> None:
        """What is over ends; what was bound runs; a step passes."""
        world = self.world
        while self._ends and self._ends[0][0] <= world.now_ms:
            _, session, slot = heapq.heappop(self._ends)
            world.close(session, objects_pb2.Slot.FromString(slot), reason="Completed")
        for slot in world.slots():
            key = slot.SerializeToString(deterministic=True)
            if key not in self._seen:
                self._seen.add(key)
                session = self.sessions[int(slot.node[1:])]
                running = status(slot, agent_pb2.ATTEMPT_PHASE_RUNNING, ready=True)
                running.started_ms = world.now_ms
                world.report(session, running)
                if steps := self._runs[slot.id.workload]:
                    heapq.heappush(self._ends, (world.now_ms + steps * STEP_MS, session, key))
        world.advance(STEP_MS, beating=self.sessions, step_ms=STEP_MS)

    def placed(self, name: str) -> bool:
        return any(slot.id.workload == name for slot in self.world.slots())


def start_of_the_large_one(story: Story, *, with_small: bool) -> tuple[int, bool]:
    """In how many steps, 100 for never; and whether anything was held for it."""
    played = Played(story)
    for i, one in enumerate(story.first):
        played.submit(f"first{i}", one)
    played.tick()
    waited = [i for i in range(len(story.first)) if not played.placed(f"first{i}")]
    for i in waited:  # it would stand before the large one
        played.world.share(f"first{i}", generation=2, removed=True)
    played.submit("large", Small(0, story.cpu, 1), story.members, gang=story.members > 1)
    for _ in range(HOLD_AFTER_MS // STEP_MS + 1):
        played.tick()
    held = played.world.state.hold is not None
    for step in range(100):
        if played.placed("large"):
            return step, held
        for i, one in enumerate(story.small):
            if with_small and one.after == step:
                played.submit(f"small{i}", one)
        played.tick()
    return 100, held


@settings(max_examples=15)
@given(stories())
def test_backfill_never_delays_what_holds_room(story: Story) -> None:
    alone, held = start_of_the_large_one(story, with_small=False)
    if held and alone < 100:
        beside, _ = start_of_the_large_one(story, with_small=True)
        assert beside <= alone
