"""What the benchmarks of the regional core make up: the agents of a fleet of nodes, and jobs that come and go.

Both talk to the core as its shell does, by events and commands, in the same process; their CPU time is counted apart.
"""

import asyncio
import collections
import time
from collections.abc import Sequence
from typing import Protocol

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.model import assigns
from regional.core import commands
from regional.core.events import (
    Event,
    GlobalWelcomed,
    NodeHeartbeat,
    NodeHello,
    NodeStatus,
    ShareArrived,
    SliceArrived,
)

REGION = "bench"
TENANTS = ("t0", "t1", "t2", "t3")
CAPACITY = objects_pb2.Resources(cpu_milli=64_000, memory_mib=262_144, disk_mib=1_000_000)
REQUEST = objects_pb2.Resources(cpu_milli=500, memory_mib=512)
PLENTY = objects_pb2.Resources(cpu_milli=2**50, memory_mib=2**50, disk_mib=2**50, gpu_milli=2**50)
GPUS = 8  # of each node
_MOST_FREQUENT = (  # requests of openb's default pod list that make up 61 % of it: how many of 24, milli CPUs, MiB, GPU
    (5, 3_152, 5_600, 810),
    (4, 11_300, 49_152, 1_000),
    (3, 11_400, 48_128, 1_000),
    (2, 3_152, 5_600, 1_000),
    (2, 11_908, 47_104, 470),
    (2, 12_500, 57_344, 0),
    (2, 8_000, 30_517, 470),
    (1, 32_000, 49_152, 0),
    (1, 18_708, 64_512, 1_000),
    (1, 11_908, 47_104, 650),
    (1, 9_810, 41_560, 1_000),
)
SHAPES = {
    "uniform": (REQUEST,),
    "openb": tuple(
        objects_pb2.Resources(cpu_milli=cpu, memory_mib=memory, gpu_milli=gpu)
        for often, cpu, memory, gpu in _MOST_FREQUENT
        for _ in range(often)
    ),
}
REPLICAS = 500
JOBS = 24  # at a time, over the tenants
RUN_S = 0.3  # how long an attempt runs
TICK_S = 0.02


class CpuMeter:
    """CPU time of what runs inside `with meter:`, on the thread of the event loop."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __enter__(self) -> None:
        self._began = time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.thread_time() - self._began


class Core(Protocol):
    """What takes events: the loop of a core, or less."""

    def post(self, event: Event) -> None: ...


class Fleet:
    """Every agent: obeys within TICK_S, reports running, and after RUN_S that the work has ended. As with the real
    agent, what changes within TICK_S travels together."""

    def __init__(self, nodes: int, core: Core) -> None:
        self._nodes = nodes
        self._core = core
        self.cpu = CpuMeter()
        self._inbox: list[commands.SendToNode] = []  # a meter of CPU costs more than a message: they are read together
        self._ends: collections.deque[tuple[float, int, agent_pb2.Assign]] = collections.deque()
        self._reports: dict[int, agent_pb2.StatusReport] = {}  # by session
        self.heartbeat_s = 10.0
        self.welcomed: set[int] = set()

    def join(self) -> None:
        for session in range(1, self._nodes + 1):
            name = f"n{session:05d}"
            hello = agent_pb2.Hello(node=name, incarnation=1, capacity=CAPACITY)
            hello.gpus.extend(objects_pb2.Gpu(number=number, model="T4") for number in range(GPUS))
            hello.capacity.gpu_milli = GPUS * 1_000
            self._core.post(NodeHello(session, name, "", (("zone", f"z{session % 3}"),), hello))

    def take(self, command: commands.SendToNode) -> None:
        self._inbox.append(command)

    def _obey(self, session: int, message: agent_pb2.RegionMessage) -> None:
        match message.WhichOneof("body"):
            case "welcome":
                self.heartbeat_s = message.welcome.heartbeat_ms / 1000
                self.welcomed.add(session)
            case "assign":
                for assign in assigns.each(message.assign):
                    self._run(session, assign)
            case "stop":
                stop = message.stop
                self._report(session, stop.slot, stop.token.attempt, agent_pb2.ATTEMPT_PHASE_CLOSED, 0)

    async def live(self) -> None:
        """Heartbeats spread over their interval; commands and ends of work, a tick at a time."""
        seq, due = 0, 0.0
        while True:
            await asyncio.sleep(TICK_S)
            with self.cpu:
                self._speak()
                due += self._nodes * TICK_S / self.heartbeat_s
                while due >= 1:
                    due -= 1
                    seq += 1
                    self._core.post(NodeHeartbeat(seq % self._nodes + 1, seq // self._nodes + 1))

    def _speak(self) -> None:
        inbox, self._inbox = self._inbox, []
        for command in inbox:
            self._obey(command.session, command.message)
        now = time.perf_counter()
        while self._ends and self._ends[0][0] <= now:
            _, session, assign = self._ends.popleft()
            self._report(session, assign.slot, assign.token.attempt, agent_pb2.ATTEMPT_PHASE_CLOSED, assign.generation)
        reports, self._reports = self._reports, {}
        for session, report in reports.items():
            self._core.post(NodeStatus(session, report))

    def _run(self, session: int, assign: agent_pb2.Assign) -> None:
        running = agent_pb2.ATTEMPT_PHASE_RUNNING
        self._report(session, assign.slot, assign.token.attempt, running, assign.generation)
        self._ends.append((time.perf_counter() + RUN_S, session, assign))

    def _report(
        self,
        session: int,
        slot: objects_pb2.SlotId,
        attempt: objects_pb2.Attempt,
        phase: agent_pb2.AttemptPhase.ValueType,
        generation: int,
    ) -> None:
        report = self._reports.get(session) or self._reports.setdefault(session, agent_pb2.StatusReport())
        status = report.attempts.add(generation=generation, phase=phase, started_ms=1)
        status.slot.CopyFrom(slot)
        status.attempt.CopyFrom(attempt)
        if phase == agent_pb2.ATTEMPT_PHASE_CLOSED:
            status.exit.reason = "Completed"
        else:
            status.ready = status.healthy = True


class Jobs:
    """What a global plane hands down: jobs, each removed when it has succeeded. After `begin` JOBS of them are kept in
    the region: when one is closed another one comes."""

    def __init__(self, core: Core, shapes: Sequence[objects_pb2.Resources] = SHAPES["uniform"]) -> None:
        self._core = core
        self._shapes = shapes
        self._revision = 100
        self._names = 0
        self._keeps = False
        self.cpu = CpuMeter()
        self._live: dict[tuple[str, str], objects_pb2.Share] = {}
        self.finished = 0

    def grant(self) -> None:
        self._core.post(GlobalWelcomed(regional_pb2.GlobalWelcome(term=1, epoch=1)))
        for tenant in TENANTS:
            account = objects_pb2.AccountSlice(account=objects_pb2.ACCOUNT_HARD, granted=PLENTY, target=PLENTY)
            grant = objects_pb2.Slice(tenant=tenant, region=REGION, epoch=1, seq=1, accounts=[account])
            self._core.post(SliceArrived(regional_pb2.SliceStamp(slice=grant, global_term=1, global_revision=10)))

    def begin(self) -> None:
        self._keeps = True
        for i in range(JOBS):
            self._add(TENANTS[i % len(TENANTS)])

    def take(self, message: regional_pb2.UplinkMessage) -> None:
        if message.WhichOneof("body") == "workload":
            with self.cpu:
                self._follow(message.workload)

    def _follow(self, report: regional_pb2.WorkloadReport) -> None:
        share = self._live.get((report.tenant, report.workload))
        if share is None:
            return
        if report.closed:
            del self._live[report.tenant, report.workload]
            self.finished += 1
            if self._keeps:
                self._add(report.tenant)
        elif report.counts.succeeded >= share.spec.tasks[0].replicas and not share.removed:
            removed = objects_pb2.Share()
            removed.CopyFrom(share)
            removed.removed = True
            removed.metadata.generation += 1
            self._send(removed)

    def _add(self, tenant: str) -> None:
        self.submit(tenant, REPLICAS)

    def submit(
        self,
        tenant: str,
        replicas: int,
        priority: "objects_pb2.Priority.ValueType" = objects_pb2.PRIORITY_UNSPECIFIED,
    ) -> str:
        """Hands a job down; its name."""
        self._names += 1
        name = f"job-{self._names}"
        task = objects_pb2.Task(
            name="main",
            replicas=replicas,
            driver=objects_pb2.DRIVER_FAKE,
            command=["work"],
            resources=objects_pb2.ResourceRequirements(requests=self._shapes[self._names % len(self._shapes)]),
        )
        spec = objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_JOB, tasks=[task], priority=priority)
        metadata = objects_pb2.Metadata(name=name, tenant=tenant, generation=1, uid=name)
        self._send(objects_pb2.Share(metadata=metadata, region=REGION, epoch=1, spec=spec, global_term=1))
        return name

    def _send(self, share: objects_pb2.Share) -> None:
        self._revision += 1
        share.global_revision = self._revision
        self._live[share.metadata.tenant, share.metadata.name] = share
        self._core.post(ShareArrived(share))
