"""One history: a global plane and regions of two candidates each, nodes, users, operators, the network, and the faults.

Decides when faults strike; what the programs do is theirs, how messages travel is the network's. The planes share one
store, or each has one of its own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.resources import Vector
from atoll.model.strategies import STRATEGIES
from atoll.store.memory_state import MemoryState
from global_cp.config import CoreSettings as GlobalSettings
from regional.config import CoreSettings
from simulation import jobs, notices
from simulation.candidate import Candidate
from simulation.checkers import Checkers
from simulation.faults import NO_FAULTS, Faults
from simulation.features import NO_FEATURES, Features
from simulation.kernel import Kernel
from simulation.network import Network
from simulation.node import Node
from simulation.operators import Operators
from simulation.placements import Placements
from simulation.plane import GlobalCandidate
from simulation.policies import Policies
from simulation.preemptions import Preemptions
from simulation.process import Process
from simulation.promises import Promises
from simulation.protection import Protection
from simulation.region import RegionalCandidate
from simulation.users import Users

REGIONS = ("eu-west", "eu-east", "us-east")
EXPIRY_CHECK_MS = 500
EVENING_OUT: dict[str, Any] = {
    "rebalance_percent": 4,
    "rebalance_after_ms": 2_000,
    "rebalance_per_minute": 60,
    "rebalance_rest_ms": 10_000,
    "surge_wait_ms": 5_000,
    "rebalance_strategies": STRATEGIES,
}
C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a world is."""

    regions: int = 1
    nodes: int = 3  # in each region
    lanes: int = 1
    stores_apart: bool = False  # a store for each plane, else one for all
    slice_validity_ms: int = GlobalSettings().slice_validity_ms
    jobs: bool = False  # users want jobs, too
    headroom_percent: int = 0
    evens_out: bool = (
        False  # regions move replicas from full nodes to empty ones, sooner and more than they do by default
    )
    features: Features = NO_FEATURES


class World:
    def __init__(self, seed: int, faults: Faults, shape: Shape) -> None:
        self.kernel = Kernel(seed)
        self.faults, self.shape = faults, shape
        self.regions = REGIONS[: shape.regions]
        self.has_jobs = shape.jobs
        self.network = Network(self.kernel, faults)
        self.checkers = Checkers(self)
        self.promises = Promises(self)
        self.receiver = notices.Receiver(self)
        self.users = Users(self)
        self.operators = Operators(self)
        self.policies = Policies(self)
        self.global_state = MemoryState()
        self.state_of = {r: MemoryState() if shape.stores_apart else self.global_state for r in self.regions}
        self.states = list(dict.fromkeys((self.global_state, *self.state_of.values())))
        for state in self.states:
            self.checkers.watch(state)
        rate, settings = self._rate, CoreSettings(lanes=shape.lanes, headroom_percent=shape.headroom_percent)
        if shape.evens_out:
            settings = replace(settings, **EVENING_OUT)
        global_settings = GlobalSettings(
            lanes=shape.lanes, slice_validity_ms=shape.slice_validity_ms, webhooks=(notices.PREFIX,)
        )
        self.planes = [GlobalCandidate(self, n, self.global_state, global_settings, rate()) for n in (1, 2)]
        self.candidates_of = {
            region: [RegionalCandidate(self, region, n, self.state_of[region], settings, rate()) for n in (1, 2)]
            for region in self.regions
        }
        self.nodes_of = {
            region: [Node(self, region, n, self._capacity(), rate()) for n in range(1, shape.nodes + 1)]
            for region in self.regions
        }
        self.candidates = [c for candidates in self.candidates_of.values() for c in candidates]
        self.nodes = [node for nodes in self.nodes_of.values() for node in nodes]
        self.preemptions = Preemptions(self)
        self.placements_of = {region: Placements(self) for region in self.regions}
        self.protection_of = {region: Protection(self) for region in self.regions if shape.features.protected}

    def _rate(self) -> float:
        return 1.0 + self.kernel.random.uniform(-self.faults.clock_rate, self.faults.clock_rate)

    def _capacity(self) -> objects_pb2.Resources:
        cpus = self.kernel.random.choice([2, 4, 8])
        return Vector(cpu_milli=cpus * 1000, memory_mib=cpus * 2048).to_proto()

    def run_ms(self, assign: agent_pb2.Assign) -> int:
        """How long a replica of a job runs."""
        return self.kernel.between(100, jobs.longest_ms(self))

    @staticmethod
    def leading(candidates: Sequence[C]) -> list[C]:
        """Those who believe that they lead."""
        return [candidate for candidate in candidates if candidate.leading]

    # ---- running

    def begin(self) -> None:
        for process in (*self.planes, *self.candidates, *self.nodes):
            process.start()
        self.users.begin()
        self._repeat(EXPIRY_CHECK_MS, b"leases", self._expire)
        self._sometimes(2_000, b"users", self.users.act)
        self._sometimes(self.faults.operator_every_ms, b"operators", self.operators.act)
        faults, planes, candidates, nodes = self.faults, self.planes, self.candidates, self.nodes
        self._sometimes(faults.session_break_every_ms, b"break", self.network.cut_some)
        self._sometimes(faults.session_stall_every_ms, b"stall", self.network.stall_some)
        self._strike(faults.agent_crash_every_ms, b"agent crash", nodes, self._restart)
        self._strike(faults.agent_pause_every_ms, b"agent pause", nodes, self._pause)
        self._strike(faults.node_reboot_every_ms, b"reboot", nodes, self._reboot)
        self._strike(faults.node_isolation_every_ms, b"isolation", nodes, self._isolate)
        self._strike(faults.node_freeze_every_ms, b"freeze", nodes, self._freeze)
        self._strike(faults.leader_crash_every_ms, b"leader crash", candidates, self._restart)
        self._strike(faults.leader_pause_every_ms, b"leader pause", candidates, self._pause)
        self._strike(faults.store_cut_every_ms, b"store cut", candidates, self._cut_off)
        self._strike(faults.global_crash_every_ms, b"global crash", planes, self._restart)
        self._strike(faults.global_pause_every_ms, b"global pause", planes, self._pause)
        self._strike(faults.global_cut_every_ms, b"global cut", planes, self._cut_off)
        self._sometimes(faults.global_absence_every_ms, b"global absence", self._global_goes_away)
        self._sometimes(faults.replica_exit_every_ms, b"replica exit", self._some_replica_exits)

    def heal(self, *, with_global: bool = True) -> None:
        """No more faults and no more changes: from now on everything must converge. Without its global plane each
        region by itself."""
        self.faults = self.network.faults = NO_FAULTS
        if not with_global:
            for plane in self.planes:
                plane.kill()
        for candidate in (*self.planes, *self.candidates):
            candidate.store.heal()
        for node in self.nodes:
            node.isolated = False
        for process in (*(self.planes if with_global else ()), *self.candidates, *self.nodes):
            if not process.alive and not (isinstance(process, Node) and process.scrapped):
                process.start()

    @property
    def healed(self) -> bool:
        return self.faults is NO_FAULTS

    def _expire(self) -> None:
        for state in self.states:
            state.expire(self.kernel.now_ms)

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

    def _strike(self, mean_ms: int, name: bytes, victims: Sequence[Process], fault: Callable[..., None]) -> None:
        self._sometimes(mean_ms, name, lambda: fault(self.kernel.random.choice(victims)))

    def _restart(self, process: Process) -> None:
        if process.alive:
            process.kill()
            self._start_later(process, self.kernel.between(50, 20_000))

    def _start_later(self, process: Process, delay_ms: int) -> None:
        life = process.life
        self.kernel.after(
            delay_ms, b"start " + process.label, lambda: process.start() if process.life == life else None
        )

    def _global_goes_away(self) -> None:
        delay_ms = self.kernel.between(30_000, 300_000)
        for plane in self.planes:
            if plane.alive:
                plane.kill()
            self._start_later(plane, delay_ms)

    def _reboot(self, node: Node) -> None:
        if node.alive:
            node.reboot()
            self._start_later(node, self.kernel.between(1_000, 60_000))

    def _pause(self, process: Process) -> None:
        process.pause(self.kernel.between(100, 20_000))

    def _isolate(self, node: Node) -> None:
        node.isolated = True
        self.network.cut(node.session)

        def rejoin() -> None:
            node.isolated = False

        self.kernel.after(self.kernel.between(1_000, 60_000), b"rejoin " + node.label, rejoin)

    def _freeze(self, node: Node) -> None:
        """Not for so long that the agent leaves its session before it reads what waits there."""
        node.pause(self.kernel.between(6_000, 9_000))
        self._isolate(node)

    def _cut_off(self, candidate: Candidate) -> None:
        store = candidate.store
        store.cut_off = True

        def rejoin() -> None:
            store.cut_off = False

        self.kernel.after(self.kernel.between(1_000, 60_000), b"rejoin " + candidate.label, rejoin)

    def _some_replica_exits(self) -> None:
        runs = [(node, run) for node in self.nodes for run in node.alive_runs()]
        if runs:
            node, run = self.kernel.random.choice(runs)
            node.replica_exits(run)
