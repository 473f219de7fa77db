"""The kill matrix: every kind of process, struck in every way, while jobs flow; each cell ends with everything proved.

A cell is good when work flows again in every region, every accepted job has ended well, every service runs exactly as
often as wanted, no exclusive replica ever ran twice at a moment, and the auditor finds every revision clean.
"""

import asyncio
import json
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli.dev_cluster import NodePlan
from atoll.sdk.specs import Workload
from atoll.store import keys
from tests.matrix.flow import POOL, Asker, Flow
from tests.support.cluster import Cluster, Overlaps, Replica
from tests.support.freeze import freeze

REGIONS = ("eu-west", "us-east", "ap-south")
AGENTS = 4
ENOUGH_PER_S = 50.0
SETTLED_S = 90.0
ALONE_PAUSED_S = 8.0  # longer than every lease
GENERAL = "general"
KILL, PAUSE, RESTART = "kill -9", "SIGSTOP", "restart"
STRIKES = (KILL, PAUSE, RESTART)
GLOBAL_LEADER, GLOBAL_STANDBY = "global leader", "global standby"
REGION_LEADER, REGION_STANDBY = "region leader", "region standby"
AGENT, JOB_AGENT = "agent with processes", "agent with jobs"
ETCD_LEADER, ETCD_FOLLOWER, ETCD_ALL = "etcd leader", "etcd follower", "every etcd member"
EVERYTHING = "every process"
VICTIMS = (GLOBAL_LEADER, GLOBAL_STANDBY, REGION_LEADER, REGION_STANDBY, AGENT, JOB_AGENT, ETCD_LEADER)
OF_THREE = (*VICTIMS, ETCD_FOLLOWER, ETCD_ALL)
STRUCK = REGIONS[0]  # the region whose processes are struck
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Cell:
    members: int
    victim: str
    strike: str

    def __str__(self) -> str:
        return f"{self.victim}, {self.strike}, {self.members} etcd"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen. Seconds count from the strike."""

    members: int
    victim: str
    strike: str
    processes: str
    rate_per_s: float  # bound, run and ended when it was struck
    longest_pause_s: float  # of the flow in any region
    settled_s: float
    jobs: int
    revision: int


def matrix(members: int) -> list[Cell]:
    cells = [Cell(members, victim, strike) for victim in (OF_THREE if members > 1 else VICTIMS) for strike in STRIKES]
    return [*cells, Cell(members, EVERYTHING, KILL)]


def nodes_of(region: str, agents: int) -> list[NodePlan]:
    """Half of the nodes run services as processes; on the others the jobs flow, which only seem to run there."""
    plans = []
    for number in range(1, agents + 1):
        flows = number > agents // 2
        size = {"cpu_milli": 4_000, "memory_mib": 4_096, "disk_mib": 10_000}
        pool = POOL if flows else GENERAL
        settings = {**size, "driver": "fake"} if flows else size
        plans.append(NodePlan(name=f"{region}-n{number}", pool=pool, labels={"pool": pool}, settings=settings))
    return plans


class Matrix:
    """A cluster on which one cell after the other is played."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._played = 0
        self._wanted: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def on(cls, folder: Path, members: int) -> AsyncIterator["Matrix"]:
        cluster = Cluster(folder, REGIONS, agents=AGENTS, candidates=2, members=members, nodes=nodes_of)
        await asyncio.to_thread(cluster.__enter__)
        try:
            matrix = cls(cluster)
            await matrix._serve()
            yield matrix
        except BaseException:
            await asyncio.to_thread(cluster.stop)
            raise
        await asyncio.to_thread(cluster.__exit__, None, None, None)

    async def play(self, cell: Cell) -> Outcome:
        """Raises AssertionError or TimeoutError when a promise is broken."""
        self._played += 1
        clock = asyncio.get_running_loop().time
        ask = Asker(self._cluster)
        try:
            async with Overlaps(self._cluster) as overlaps:
                async with Flow(ask, REGIONS, f"j{self._played}") as flow:
                    await _until(lambda: _checked(flow) and flow.rate() >= ENOUGH_PER_S, "too little flows")
                    rate = flow.rate()
                    names = await self._names(cell)
                    struck = clock()
                    await self._strike(cell, names, flow)
                    revived = clock()
                    await _until(lambda: flow.passes_since(revived), f"{names}: no work flows again")
                    pause_s = flow.longest_pause_s(struck)
                await self._settle(ask)
                settled_s = clock() - struck
            twice = [pair for pair in overlaps.seen.values() if _forbidden(*pair)]
            assert not twice, f"ran twice: {twice}"
            verdict = await self._cluster.verdict()
            assert verdict.since == 1
            assert not verdict.broken, "\n".join(map(str, verdict.violations))
        finally:
            await ask.close()
        return Outcome(
            cell.members, cell.victim, cell.strike, " ".join(names) if len(names) < 4 else f"{len(names)} processes",
            round(rate), round(pause_s, 1), round(settled_s, 1), flow.jobs, verdict.revision,
        )  # fmt: skip

    # ---- services

    async def _serve(self) -> None:
        """In each region three replicas that are kept, and two that are exclusive."""
        ask = Asker(self._cluster)
        for region in REGIONS:
            for name, replicas, run_class in (
                (f"web-{region}", 3, objects_pb2.RUN_CLASS_KEEP),
                (f"solo-{region}", 2, objects_pb2.RUN_CLASS_EXCLUSIVE),
            ):
                document = Workload(
                    name=name, command=("sleep", "1000000"), replicas=replicas, cpu="10m", memory="16Mi",
                    regions=(region,), requires=(f"pool={GENERAL}",),
                ).to_proto()  # fmt: skip
                document.spec.run_class = run_class
                document.spec.tasks[0].termination_grace_s = 1
                document.spec.tasks[0].strategy = "spread"
                await ask(lambda client, it=document: client.workloads.apply(it, request_id=it.metadata.name))
                self._wanted[name] = replicas
        await self._settle(ask)
        await ask.close()

    def _running(self) -> dict[str, int]:
        found: dict[str, int] = dict.fromkeys(self._wanted, 0)
        for replicas in self._cluster.replicas().values():
            found[replicas[0].workload] = found.get(replicas[0].workload, 0) + len(replicas)
        return found

    async def _settle(self, ask: Asker) -> None:
        """Every service runs exactly as often as wanted, and its users are told that it serves."""

        def as_wanted() -> bool:
            once = all(len(replicas) == 1 for replicas in self._cluster.replicas().values())
            return once and self._running() == self._wanted

        async def told() -> bool:
            listed = await ask(lambda client: client.workloads.list())
            serving = {workload.metadata.name: workload.status.counts.serving for workload in listed}
            return all(serving.get(name) == count for name, count in self._wanted.items())

        await _until(as_wanted, lambda: f"running {self._running()}, wanted {self._wanted}")
        async with asyncio.timeout(SETTLED_S):
            while not await told():  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    # ---- strikes

    async def _strike(self, cell: Cell, names: list[str], flow: Flow) -> None:
        """Struck, and back again once the others have taken over; at once where there are no others."""
        cluster, moment = self._cluster, asyncio.get_running_loop().time()
        alone = cell.victim in (ETCD_ALL, EVERYTHING) or (cell.victim == ETCD_LEADER and cell.members == 1)
        left = {slot for slot, found in cluster.replicas().items() if found[0].node in names}

        def taken_over() -> bool:
            elsewhere = {slot for slot, found in cluster.replicas().items() if any(r.node not in names for r in found)}
            return flow.passes_since(moment) and left <= elsewhere

        async def others() -> None:
            await _until(taken_over, f"nobody takes over from {names}")

        if cell.strike == PAUSE:
            for name in names:
                freeze(cluster.named(name).process.pid)
            try:
                await (asyncio.sleep(ALONE_PAUSED_S) if alone else others())
            finally:
                for name in names:
                    cluster.named(name).process.send_signal(signal.SIGCONT)
            return
        for name in names:
            process = cluster.named(name).process
            process.kill() if cell.strike == KILL else process.terminate()
        for name in names:
            await asyncio.to_thread(cluster.named(name).process.wait)
        if cell.strike == KILL and not alone:
            await others()
        for program in [cluster.relaunch(name) for name in names]:
            await asyncio.to_thread(cluster.await_ready, program)

    async def _names(self, cell: Cell) -> list[str]:
        """The processes that this cell strikes."""
        cluster = self._cluster
        match cell.victim:
            case "global leader" | "global standby":
                leader = await cluster.leader(keys.GLOBAL)
                candidates, leads = cluster.global_names(), cell.victim == GLOBAL_LEADER
            case "region leader" | "region standby":
                leader = await cluster.leader(keys.region_root(STRUCK))
                candidates, leads = cluster.region_names(STRUCK), cell.victim == REGION_LEADER
            case "etcd leader" | "etcd follower":
                leader = await asyncio.to_thread(_etcd_leader, cluster)
                candidates, leads = cluster.etcd_names, cell.victim == ETCD_LEADER
            case "agent with processes":
                return [f"{STRUCK}-n1"]
            case "agent with jobs":
                return [f"{STRUCK}-n{AGENTS}"]
            case "every etcd member":
                return cluster.etcd_names
            case _:
                return [program.name for program in cluster.programs]
        return [leader] if leads else [name for name in candidates if name != leader][:1]


def _forbidden(first: Replica, second: Replica) -> bool:
    """Kept work may overlap with its successor on another node, after its own was given up; exclusive work never."""
    return first.workload.startswith("solo-") or first.node == second.node


def _etcd_leader(cluster: Cluster) -> str:
    for name, client in zip(cluster.etcd_names, cluster.etcd, strict=True):
        request = urllib.request.Request(f"http://{client}/v3/maintenance/status", data=b"{}", method="POST")
        with _NO_PROXY.open(request, timeout=5) as answer:
            status = json.load(answer)
        if status["leader"] == status["header"]["member_id"]:
            return name
    raise errors.Unavailable("no member of etcd leads")


def _checked(flow: Flow) -> bool:
    flow.check()
    return True


async def _until(holds: Callable[[], bool], otherwise: str | Callable[[], str]) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + SETTLED_S
    while not holds():
        assert clock() < deadline, otherwise if isinstance(otherwise, str) else otherwise()
        await asyncio.sleep(0.1)
