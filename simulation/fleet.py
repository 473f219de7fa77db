"""Many simulated nodes in one process: the agent's own core, session and protocol over mTLS, with nothing to run.

`python -m simulation.fleet --config FILE`. To the region they are ordinary nodes: each has its certificate, its stream
and its heartbeats, and certifies what it has closed. Three things are not an agent's: replicas only seem to run (the
fake driver; `sleep SECONDS` ends by itself), the memory of refused attempts is not on disk but ends with this process,
and the certificates are signed here with the region's issuer instead of being traded for 10,000 one-time tokens.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent.config import Settings as AgentSettings
from agent.config import Timing
from agent.core import commands, events
from agent.core.machine import Machine
from agent.drivers.driver import RunSpec
from agent.drivers.fake import FakeDriver, obedient
from agent.environment import environment
from agent.queries import Queries
from agent.session import Session
from atoll import __version__, service
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.clock import Clock, SystemClock
from atoll.identity import RegionIssuer, TlsFiles, node_request, write_private

CONNECTED_S = 30.0  # the next node does not wait longer for this one
ZONES = ("a", "b", "c")
RACK_NODES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Nodes `first` to `first` + `nodes` - 1 of one region.

    example (fleet.toml; every setting can also be given as ATOLL_FLEET_<NAME>):
      region = "eu-west"
      region_programs = ["127.0.0.1:7171"]
      ca = "ca.crt"
      issuer_certificate = "issuer.crt"        # of the region
      issuer_key = "issuer.key"
      state_dir = "/tmp/fleet"                 # certificates and keys of the nodes
      nodes = 1000
    """

    region: str
    region_programs: tuple[str, ...]
    ca: Path
    issuer_certificate: Path
    issuer_key: Path
    state_dir: Path
    nodes: int
    first: int = 1
    pool: str = "simulated"
    cpu_milli: int = 16_000
    memory_mib: int = 65_536
    disk_mib: int = 1_000_000
    dialling: int = 32  # nodes that are being connected at any time
    metrics: str = "127.0.0.1:0"


class SimulatedNode:
    """One node. Events are handled in the order posted, each with all its commands, as in the agent's loop."""

    def __init__(
        self, region: str, settings: AgentSettings, hello: agent_pb2.Hello, files: TlsFiles, clock: Clock
    ) -> None:
        self.welcomed = asyncio.Event()
        self._name, self._region = settings.name, region
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._machine = Machine(hello, Timing())
        self._driver = FakeDriver(self._post, obedient, clock.now_ms())
        self._session = Session(settings, lambda: files, self._post)
        self._queries = Queries(self._driver, self._session.send)
        self._events: deque[events.Event] = deque()
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._post(events.Booted(None, clock.now_ms(), (), None))

    async def run(self) -> None:
        """Keeps a session with the region until cancelled."""
        await self._session.run(self._queries.answer)

    def _post(self, event: events.Event) -> None:
        if isinstance(event, events.RegionSaid) and event.message.HasField("welcome"):
            self.welcomed.set()
        self._events.append(event)
        if not self._due:
            self._due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """All that is due at this moment."""
        self._due = True  # what is posted meanwhile is handled below
        now_ms = self._clock.now_ms()
        self._driver.advance(now_ms)
        deadline_ms = self._machine.next_deadline()
        if deadline_ms is not None and deadline_ms <= now_ms:
            self._events.append(events.Woke())
        while self._events:
            for command in self._machine.handle(self._events.popleft(), now_ms):
                self._execute(command, now_ms)
        self._due = False
        self._arm(now_ms)

    def _arm(self, now_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadlines = (self._machine.next_deadline(), self._driver.next_deadline())
        due_ms = min((deadline for deadline in deadlines if deadline is not None), default=None)
        self._timer = None
        if due_ms is not None:
            self._timer = self._loop.call_later(max(due_ms - now_ms, 1) / 1000, self._turn)

    def _execute(self, command: commands.Command, now_ms: int) -> None:
        match command:
            case commands.SendUp():
                self._session.send(command)
            case commands.WriteCheckpoint():
                self._events.append(events.CheckpointWritten(command.version))
            case commands.StartReplica(run, assign):
                self._driver.start(run, RunSpec(assign.task, environment(run, assign, self._name, self._region)))
            case commands.StopReplica(run, grace_ms):
                self._driver.stop(run, grace_ms)
            case commands.ProbeReplica():
                self._events.append(events.ProbeAnswered(command.probe_id, True, "simulated"))
            case commands.Reconnect():
                self._session.reconnect(command)
            case commands.Dial():
                self._session.dial(command)
            case commands.Guard():
                pass  # nothing outlives this process


def make(settings: Settings, number: int, issuer: RegionIssuer, clock: Clock) -> SimulatedNode:
    """A node with a certificate of its own."""
    name = f"{settings.region}-n{number:05d}"
    trusted = [
        ("pool", settings.pool),
        ("rack", f"{settings.region}-{(number - 1) // RACK_NODES:03d}"),
        ("zone", f"{settings.region}-{ZONES[number % len(ZONES)]}"),
    ]
    key_pem, csr_pem = node_request()
    signed = issuer.sign_node(csr_pem, node=name, pool=settings.pool, labels=trusted, now_ms=clock.now_ms())
    files = TlsFiles(settings.state_dir / f"{name}.crt", settings.state_dir / f"{name}.key", settings.ca)
    write_private(files.key, key_pem)
    files.certificate.write_bytes(signed.certificate_pem)
    agent = AgentSettings(
        name=name, region_programs=settings.region_programs, ca=settings.ca, state_dir=settings.state_dir, driver="fake"
    )
    capacity = objects_pb2.Resources(
        cpu_milli=settings.cpu_milli, memory_mib=settings.memory_mib, disk_mib=settings.disk_mib
    )
    hello = agent_pb2.Hello(node=name, capacity=capacity, version=__version__, address=agent.address)
    return SimulatedNode(settings.region, agent, hello, files, clock)


async def run(settings: Settings, ready: Callable[[], None]) -> None:
    """Connects all nodes, a few at a time; `ready` is called when each was welcomed once. Until cancelled."""
    issuer = RegionIssuer(settings.issuer_certificate, settings.issuer_key)
    clock = SystemClock()
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    places = asyncio.Semaphore(settings.dialling)

    async def connected(node: SimulatedNode) -> None:
        try:
            async with asyncio.timeout(CONNECTED_S):
                await node.welcomed.wait()
        except TimeoutError:
            pass  # it goes on trying
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        waiting = []
        for number in range(settings.first, settings.first + settings.nodes):
            await places.acquire()
            node = make(settings, number, issuer, clock)
            group.create_task(node.run())
            waiting.append(group.create_task(connected(node)))
        await asyncio.wait(waiting)
        ready()


def main() -> None:
    settings = service.settings("python -m simulation.fleet", Settings, "ATOLL_FLEET_")

    async def serve(stop: service.Stop) -> None:
        life, asked = asyncio.ensure_future(run(settings, stop.ready)), asyncio.ensure_future(stop.wait())
        await asyncio.wait({life, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if life.done():
            life.result()
        life.cancel()
        await asyncio.wait({life}, timeout=2)

    service.run(serve, program="fleet", metrics=settings.metrics, log_level="warning")


if __name__ == "__main__":
    main()
