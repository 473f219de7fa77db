"""Agents of a regional core under test that do what they are told, when the test lets them."""

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.resources import Vector
from tests.support.regional_world import SMALL_NODE, RegionalWorld, status

Key = tuple[int, int]  # of an attempt


def _key(attempt: objects_pb2.Attempt) -> Key:
    return attempt.term, attempt.n


class Agents:
    """Sessions of nodes that obey: what is assigned runs and is ready, what is asked to stop is closed when told."""

    def __init__(self, world: RegionalWorld, *names: str, capacity: Vector = SMALL_NODE) -> None:
        self.world = world
        self.sessions = {name: world.join(name, capacity=capacity) for name in names}
        self.began_ms: dict[Key, int] = {}  # by attempt

    def run(self) -> None:
        """Every bound replica that is not asked to stop runs and is ready."""
        for name, session in self.sessions.items():
            asked = self.asked(name)
            running = [self._running(slot) for slot in self.on(name) if _key(slot.attempt) not in asked]
            self.world.report(session, *running)

    def _running(self, slot: objects_pb2.Slot) -> agent_pb2.AttemptStatus:
        found = status(slot, agent_pb2.ATTEMPT_PHASE_RUNNING, ready=True, healthy=True)
        found.started_ms = self.began_ms.setdefault(_key(slot.attempt), self.world.now_ms)
        return found

    def on(self, name: str) -> list[objects_pb2.Slot]:
        return [slot for slot in self.world.slots() if slot.node == name]

    def asked(self, name: str) -> set[Key]:
        return {_key(stop.token.attempt) for stop in self.world.messages(self.sessions[name], "stop")}

    def obey(self, name: str) -> int:
        """Closes what was asked to stop; how many."""
        asked = self.asked(name)
        closing = [slot for slot in self.on(name) if _key(slot.attempt) in asked]
        self.world.close(self.sessions[name], *closing)
        return len(closing)

    def settle(self, name: str) -> None:
        """Until nothing more moves off a node."""
        for _ in range(20):
            self.run()
            self.pass_time(1_000)
            self.obey(name)

    def pass_time(self, ms: int) -> None:
        self.world.advance(ms, beating=self.sessions.values())
