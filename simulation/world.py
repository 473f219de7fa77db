"""One history: a region of two candidates, its nodes, the author of its shares, the network between, and the faults.

Decides when faults strike and how messages travel; what the programs do is theirs. Messages travel as bytes, in order
within one direction of one session, and those in flight when a session breaks may still arrive on the other side.
"""

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.model.resources import Vector
from atoll.store.memory_state import MemoryState
from regional.config import CoreSettings
from simulation.author import TENANTS, Author
from simulation.candidate import Candidate
from simulation.checkers import Checkers
from simulation.faults import NO_FAULTS, Faults
from simulation.kernel import Kernel
from simulation.node import Node

REGION = "eu-west"
EXPIRY_CHECK_MS = 500
LONGEST_STALL_MS = 30_000


@dataclass(slots=True)
class Session:
    number: int
    node: Node
    candidate: Candidate
    node_life: int
    candidate_life: int
    up_ms: int = 0  # arrival of the last message up: order is kept
    down_ms: int = 0
    open_at_node: bool = True
    open_at_region: bool = True


class World:
    def __init__(self, seed: int, faults: Faults, *, nodes: int, lanes: int = 1) -> None:
        self.kernel = Kernel(seed)
        self.faults = faults
        self.state = MemoryState()
        self.checkers = Checkers(self)
        self.author = Author(self, REGION)
        rate = self._rate
        self.candidates = [Candidate(self, REGION, n, CoreSettings(lanes=lanes), rate()) for n in (1, 2)]
        self.nodes = [Node(self, f"n{n}", self._capacity(), rate()) for n in range(1, nodes + 1)]
        self.sessions: dict[int, Session] = {}
        self._last_session = 0

    def _rate(self) -> float:
        return 1.0 + self.kernel.random.uniform(-self.faults.clock_rate, self.faults.clock_rate)

    def _capacity(self) -> objects_pb2.Resources:
        cpus = self.kernel.random.choice([2, 4, 8])
        return Vector(cpu_milli=cpus * 1000, memory_mib=cpus * 2048).to_proto()

    # ---- running

    def begin(self) -> None:
        for process in (*self.candidates, *self.nodes):
            process.start()
        for tenant in TENANTS:
            self.author.set_budget(tenant, Vector(cpu_milli=20_000, memory_mib=40_960))
        self._repeat(EXPIRY_CHECK_MS, b"leases", lambda: self.state.expire(self.kernel.now_ms))
        self._sometimes(2_000, b"author", self.author.act)
        faults = self.faults
        self._sometimes(faults.session_break_every_ms, b"break", self._break_some_session)
        self._sometimes(faults.session_stall_every_ms, b"stall", self._stall_some_session)
        self._sometimes(faults.agent_crash_every_ms, b"agent crash", lambda: self._restart(self._some_node()))
        self._sometimes(faults.agent_pause_every_ms, b"agent pause", lambda: self._pause(self._some_node()))
        self._sometimes(faults.node_reboot_every_ms, b"reboot", lambda: self._reboot(self._some_node()))
        self._sometimes(faults.node_isolation_every_ms, b"isolation", lambda: self._isolate(self._some_node()))
        self._sometimes(faults.leader_crash_every_ms, b"leader crash", lambda: self._restart(self._some_candidate()))
        self._sometimes(faults.leader_pause_every_ms, b"leader pause", lambda: self._pause(self._some_candidate()))
        self._sometimes(faults.store_cut_every_ms, b"store cut", lambda: self._cut_off(self._some_candidate()))
        self._sometimes(faults.replica_exit_every_ms, b"replica exit", self._some_replica_exits)

    def heal(self) -> None:
        """No more faults and no more changes: from now on everything must converge."""
        self.faults = NO_FAULTS
        for candidate in self.candidates:
            candidate.store.heal()
        for node in self.nodes:
            node.isolated = False
        for process in (*self.candidates, *self.nodes):
            if not process.alive:
                process.start()

    @property
    def healed(self) -> bool:
        return self.faults is NO_FAULTS

    def _repeat(self, period_ms: int, name: bytes, action: Callable[[], None]) -> None:
        def again() -> None:
            action()
            self.kernel.after(period_ms, name, again)

        self.kernel.after(period_ms, name, again)

    def _sometimes(self, mean_ms: int, name: bytes, action: Callable[[], None]) -> None:
        """At random intervals around `mean_ms`, until healed."""
        if not mean_ms:
            return

        def strike() -> None:
            if self.healed:
                return
            action()
            self.kernel.after(self.kernel.between(mean_ms // 2, mean_ms * 2), name, strike)

        self.kernel.after(self.kernel.between(mean_ms // 2, mean_ms * 2), name, strike)

    # ---- faults

    def _some_node(self) -> Node:
        return self.kernel.random.choice(self.nodes)

    def _some_candidate(self) -> Candidate:
        return self.kernel.random.choice(self.candidates)

    def _restart(self, process: Node | Candidate) -> None:
        if process.alive:
            process.kill()
            self._start_later(process, self.kernel.between(50, 20_000))

    def _start_later(self, process: Node | Candidate, delay_ms: int) -> None:
        life = process.life
        self.kernel.after(
            delay_ms, b"start " + process.label, lambda: process.start() if process.life == life else None
        )

    def _reboot(self, node: Node) -> None:
        if node.alive:
            node.reboot()
            self._start_later(node, self.kernel.between(1_000, 60_000))

    def _pause(self, process: Node | Candidate) -> None:
        process.pause(self.kernel.between(100, 20_000))

    def _isolate(self, node: Node) -> None:
        node.isolated = True
        self.break_session(node.session)

        def rejoin() -> None:
            node.isolated = False

        self.kernel.after(self.kernel.between(1_000, 60_000), b"rejoin " + node.label, rejoin)

    def _cut_off(self, candidate: Candidate) -> None:
        store = candidate.store
        store.cut_off = True

        def rejoin() -> None:
            store.cut_off = False

        self.kernel.after(self.kernel.between(1_000, 60_000), b"rejoin " + candidate.label, rejoin)

    def _break_some_session(self) -> None:
        if self.sessions:
            self.break_session(self.kernel.random.choice(sorted(self.sessions)))

    def _stall_some_session(self) -> None:
        """What is sent from now on arrives late, all at once and in order, as after lost packets."""
        if self.sessions:
            session = self.sessions[self.kernel.random.choice(sorted(self.sessions))]
            until_ms = self.kernel.now_ms + self.kernel.between(1_000, LONGEST_STALL_MS)
            session.up_ms = max(session.up_ms, until_ms)
            session.down_ms = max(session.down_ms, until_ms)

    def _some_replica_exits(self) -> None:
        runs = [(node, run) for node in self.nodes for run in node.alive_runs()]
        if runs:
            node, run = self.kernel.random.choice(runs)
            node.replica_exits(run)

    # ---- sessions between nodes and the region

    def dial(self, node: Node) -> int:
        """A new session's number, or 0 when nobody answers. A leader that is paused, or deposed and does not know it
        yet, still accepts connections."""
        leaders = self._leaders()
        if not leaders or node.isolated:
            return 0
        leader = self.kernel.random.choice(leaders)
        self._last_session += 1
        session = Session(self._last_session, node, leader, node.life, leader.life)
        self.sessions[session.number] = session
        return session.number

    def to_region(self, number: int, message: agent_pb2.AgentMessage) -> None:
        session = self.sessions.get(number)
        if session is None or not session.open_at_node:
            return
        data = self._on_the_wire(message)
        session.up_ms = max(session.up_ms, self.kernel.now_ms + self._delay())
        self._for_region(session, session.up_ms - self.kernel.now_ms, lambda: self._arrive_up(session, data))

    def _arrive_up(self, session: Session, data: bytes) -> None:
        if not session.open_at_region:
            return
        message = agent_pb2.AgentMessage.FromString(data)
        if message.HasField("hello"):
            session.candidate.hello(session.number, session.node.name, message.hello)
        else:
            session.candidate.heard_from_node(session.number, message)

    def to_node(self, candidate: Candidate, number: int, message: agent_pb2.RegionMessage) -> None:
        session = self.sessions.get(number)
        if session is None or not session.open_at_region:
            return
        data = self._on_the_wire(message)
        session.down_ms = max(session.down_ms, self.kernel.now_ms + self._delay())
        self._for_node(session, session.down_ms - self.kernel.now_ms, lambda: self._arrive_down(session, data))

    def _arrive_down(self, session: Session, data: bytes) -> None:
        if session.open_at_node:
            session.node.receive(session.number, agent_pb2.RegionMessage.FromString(data))

    def close_session(self, candidate: Candidate, number: int) -> None:
        self.break_session(number)

    def break_session(self, number: int) -> None:
        """Both ends learn of it, each in its own time; until then messages in flight still arrive."""
        session = self.sessions.get(number)
        if session is None:
            return
        self._for_node(session, self.kernel.between(0, 2_000), lambda: self._ended_at_node(session))
        self._for_region(session, self.kernel.between(0, 2_000), lambda: self._ended_at_region(session))

    def _ended_at_node(self, session: Session) -> None:
        if session.open_at_node:
            session.open_at_node = False
            session.node.disconnected(session.number)

    def _ended_at_region(self, session: Session) -> None:
        if session.open_at_region:
            session.open_at_region = False
            self.sessions.pop(session.number, None)
            session.candidate.session_ended(session.number)

    def _for_node(self, session: Session, delay_ms: int, action: Callable[[], None]) -> None:
        if session.node.life == session.node_life:
            session.node.after(delay_ms, b"down", action)

    def _for_region(self, session: Session, delay_ms: int, action: Callable[[], None]) -> None:
        if session.candidate.life == session.candidate_life:
            session.candidate.after(delay_ms, b"up", action)

    def _delay(self) -> int:
        return self.kernel.between(1, self.faults.message_delay_ms)

    def _on_the_wire(self, message: Message) -> bytes:
        data = message.SerializeToString()
        self.kernel.note(data)
        return data

    # ---- the region and the author

    def _leaders(self) -> list[Candidate]:
        """Those who believe that they lead."""
        return [candidate for candidate in self.candidates if candidate.leading]

    def region_leads(self, candidate: Candidate) -> None:
        for message in self.author.welcome():
            self._deliver(candidate, message)

    def region_died(self, candidate: Candidate) -> None:
        """Killed or deposed: its sessions break."""
        for number in sorted(self.sessions):
            if self.sessions[number].candidate is candidate:
                self.break_session(number)
                if not candidate.alive:
                    self.sessions.pop(number)

    def to_global(self, candidate: Candidate, message: regional_pb2.UplinkMessage) -> None:
        data = self._on_the_wire(message)
        self.kernel.after(
            self._delay(), b"uplink", lambda: self.author.hear(regional_pb2.UplinkMessage.FromString(data))
        )

    def to_region_from_global(self, message: regional_pb2.DownlinkMessage) -> None:
        """To whoever leads, and sometimes once more later, when newer ones have overtaken it."""
        for leader in self._leaders():
            self._deliver(leader, message)
            if self.kernel.chance(self.faults.stale_share):
                self._deliver(leader, message, self.kernel.between(100, 10_000))

    def _deliver(self, candidate: Candidate, message: regional_pb2.DownlinkMessage, delay_ms: int = 0) -> None:
        data = self._on_the_wire(message)
        candidate.after(
            delay_ms or self._delay(),
            b"downlink",
            lambda: candidate.heard_from_global(regional_pb2.DownlinkMessage.FromString(data)),
        )
