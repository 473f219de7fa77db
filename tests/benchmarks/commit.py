"""Durable bindings a second into one etcd: the real core, committer and lane writer; only the agents are made up.

`python -m tests.benchmarks.commit --nodes 10000 --seconds 60 --lanes 1 --json out.json`

The nodes beat as the region tells them to. Work is jobs that come, run for a moment, end and are removed, so every
binding is followed by a release and by the deletion of its record, all in transactions; what is counted are slots
of committed BINDs between the first and the last second of the window. The same process then sends transactions of
exactly the recorded shapes, prebuilt, by the same lane writer with no core: the bare rate. etcd syncs to disk.
"""

import argparse
import asyncio
import collections
import contextlib
import cProfile
import itertools
import json
import os
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.clock import SystemClock
from atoll.committer import Committer
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.lane import Authority, Committed, Plan, Settled
from atoll.loop import CoreLoop
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Put, list_all, mod_is
from regional.config import CoreSettings
from regional.core import commands
from regional.core.commands import Command
from regional.core.events import (
    Event,
    GlobalWelcomed,
    LeadershipWon,
    NodeHeartbeat,
    NodeHello,
    NodeStatus,
    ShareArrived,
    SliceArrived,
    Woke,
)
from regional.core.machine import Machine
from tests.support.etcd import EtcdCluster

REGION = "bench"
TENANTS = ("t0", "t1", "t2", "t3")
CAPACITY = objects_pb2.Resources(cpu_milli=64_000, memory_mib=262_144, disk_mib=1_000_000)
REQUEST = objects_pb2.Resources(cpu_milli=500, memory_mib=512)
PLENTY = objects_pb2.Resources(cpu_milli=2**50, memory_mib=2**50, disk_mib=2**50, gpu_milli=2**50)
REPLICAS = 500
JOBS = 24  # at a time, over the tenants
RUN_S = 0.3  # how long an attempt runs
TICK_S = 0.02
WARM_UP_S = 3.0
SHAPES = 200  # transactions remembered for the bare run


class MeasuredWriter(LaneWriter):
    """Keeps when each transaction was committed, how long it took, and how many slots it bound or released."""

    def measure(self, slots: bytes) -> None:
        self.slots = slots
        self.done: list[tuple[float, float, str, int]] = []  # when, seconds, operation, slots
        self.shapes: collections.deque[Plan] = collections.deque(maxlen=SHAPES)

    async def commit(self, lane: int, plan: Plan) -> Settled:
        began = time.perf_counter()
        settled = await super().commit(lane, plan)
        if isinstance(settled, Committed):
            now = time.perf_counter()
            self.done.append((now, now - began, plan.operation, _slots_in(plan, self.slots)))
            self.shapes.append(plan)
        return settled


def _slots_in(plan: Plan, prefix: bytes) -> int:
    return sum(write.key.startswith(prefix) for write in plan.writes)


class Fleet:
    """Every node's agent: obeys at once, reports running, and after RUN_S that the work has ended. As with the real
    agent, what changes within TICK_S travels together."""

    def __init__(self, nodes: int, core: "CoreLoop[Event, Command]") -> None:
        self._nodes = nodes
        self._core = core
        self._ends: collections.deque[tuple[float, int, agent_pb2.Assign]] = collections.deque()
        self._reports: dict[int, agent_pb2.StatusReport] = {}  # by session
        self.heartbeat_s = 10.0
        self.welcomed: set[int] = set()

    def join(self) -> None:
        for session in range(1, self._nodes + 1):
            name = f"n{session:05d}"
            hello = agent_pb2.Hello(node=name, incarnation=1, capacity=CAPACITY)
            self._core.post(NodeHello(session, name, "", (("zone", f"z{session % 3}"),), hello))

    def take(self, command: commands.SendToNode) -> None:
        match command.message.WhichOneof("body"):
            case "welcome":
                self.heartbeat_s = command.message.welcome.heartbeat_ms / 1000
                self.welcomed.add(command.session)
            case "assign":
                self._run(command.session, command.message.assign)
            case "stop":
                stop = command.message.stop
                self._report(command.session, stop.slot, stop.token.attempt, agent_pb2.ATTEMPT_PHASE_CLOSED, 0)

    async def live(self) -> None:
        """Heartbeats spread over their interval; ends of work, a tick at a time."""
        seq, due = 0, 0.0
        while True:
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            while self._ends and self._ends[0][0] <= now:
                _, session, assign = self._ends.popleft()
                closed = agent_pb2.ATTEMPT_PHASE_CLOSED
                self._report(session, assign.slot, assign.token.attempt, closed, assign.generation)
            reports, self._reports = self._reports, {}
            for session, report in reports.items():
                self._core.post(NodeStatus(session, report))
            due += self._nodes * TICK_S / self.heartbeat_s
            while due >= 1:
                due -= 1
                seq += 1
                self._core.post(NodeHeartbeat(seq % self._nodes + 1, seq // self._nodes + 1))

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
        status = report.attempts.add(slot=slot, attempt=attempt, generation=generation, phase=phase, started_ms=1)
        if phase == agent_pb2.ATTEMPT_PHASE_CLOSED:
            status.exit.reason = "Completed"
        else:
            status.ready = True


class Jobs:
    """Keeps JOBS jobs in the region: when one has succeeded it is removed, when it is closed another one comes."""

    def __init__(self, core: "CoreLoop[Event, Command]") -> None:
        self._core = core
        self._revision = 100
        self._names = 0
        self._live: dict[tuple[str, str], objects_pb2.Share] = {}
        self.finished = 0

    def grant(self) -> None:
        self._core.post(GlobalWelcomed(regional_pb2.GlobalWelcome(term=1, epoch=1)))
        for tenant in TENANTS:
            account = objects_pb2.AccountSlice(account=objects_pb2.ACCOUNT_HARD, granted=PLENTY, target=PLENTY)
            grant = objects_pb2.Slice(tenant=tenant, region=REGION, epoch=1, seq=1, accounts=[account])
            self._core.post(SliceArrived(regional_pb2.SliceStamp(slice=grant, global_term=1, global_revision=10)))

    def begin(self) -> None:
        for i in range(JOBS):
            self._add(TENANTS[i % len(TENANTS)])

    def take(self, message: regional_pb2.UplinkMessage) -> None:
        if message.WhichOneof("body") != "workload":
            return
        report = message.workload
        share = self._live.get((report.tenant, report.workload))
        if share is None:
            return
        if report.closed:
            del self._live[report.tenant, report.workload]
            self.finished += 1
            self._add(report.tenant)
        elif report.counts.succeeded >= REPLICAS and not share.removed:
            removed = objects_pb2.Share()
            removed.CopyFrom(share)
            removed.removed = True
            removed.metadata.generation += 1
            self._send(removed)

    def _add(self, tenant: str) -> None:
        self._names += 1
        name = f"job-{self._names}"
        task = objects_pb2.Task(
            name="main",
            replicas=REPLICAS,
            driver=objects_pb2.DRIVER_FAKE,
            command=["work"],
            resources=objects_pb2.ResourceRequirements(requests=REQUEST),
        )
        spec = objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_JOB, tasks=[task])
        metadata = objects_pb2.Metadata(name=name, tenant=tenant, generation=1, uid=name)
        self._send(objects_pb2.Share(metadata=metadata, region=REGION, epoch=1, spec=spec, global_term=1))

    def _send(self, share: objects_pb2.Share) -> None:
        self._revision += 1
        share.global_revision = self._revision
        self._live[share.metadata.tenant, share.metadata.name] = share
        self._core.post(ShareArrived(share))


class Bench:
    def __init__(self, store: EtcdStore, nodes: int, lanes: int) -> None:
        self.store = store
        self.nodes = nodes
        self.clock = SystemClock()
        self.root = keys.region_root(REGION)
        self.machine = Machine(REGION, CoreSettings(lanes=lanes))
        self.core: CoreLoop[Event, Command] = CoreLoop(self.machine, self.clock, self._execute, Woke())
        self.fleet = Fleet(nodes, self.core)
        self.jobs = Jobs(self.core)

    async def lead(self) -> Authority:
        election = Election(self.store, self.root, name="bench", address="", clock=self.clock, ttl_s=600)
        authority, _ = await election.campaign()
        records = await list_all(self.store, self.root)
        self.writer = MeasuredWriter(self.store, authority, lane_revisions(self.root, records.items))
        self.writer.measure(self.root + b"slot/")
        self.core.post(LeadershipWon(authority, records.items, records.revision))
        return authority

    async def run(self, seconds: float, profile: cProfile.Profile | None) -> None:
        async with asyncio.TaskGroup() as tasks:
            self.committer = Committer(self.writer, tasks, self.core.post, self.clock)
            running = [tasks.create_task(self.core.run())]
            self.jobs.grant()
            self.fleet.join()
            while len(self.fleet.welcomed) < self.nodes:  # noqa: ASYNC110 - the set-up, not measured
                await asyncio.sleep(0.1)
            running.append(tasks.create_task(self.fleet.live()))
            self.jobs.begin()
            await asyncio.sleep(WARM_UP_S)
            self.began, cpu_s = time.perf_counter(), time.process_time()
            with profile or contextlib.nullcontext():
                await asyncio.sleep(seconds)
            self.ended, self.cpu_s = time.perf_counter(), time.process_time() - cpu_s
            self.committer.stop()
            for task in running:
                task.cancel()

    def _execute(self, command: Command) -> None:
        match command:
            case commands.SendToNode():
                self.fleet.take(command)
            case commands.Commit():
                self.committer.commit(command)
            case commands.SendUp():
                self.jobs.take(command.message)
            case commands.Resign():
                raise RuntimeError(f"the core resigned: {command.reason}")
            case _:
                pass


def _replayed(shapes: Sequence[Plan], root: bytes, numbers: Iterator[int]) -> list[Plan]:
    """The same numbers of compares and writes, and the same lengths of keys and values, over keys nobody has used:
    every write is a put of a fresh key, every compare one of an absent key."""
    plans = []
    for shape in shapes:
        compares = tuple(mod_is(_like(compare.key, root, next(numbers)), 0) for compare in shape.compares)
        writes = tuple(
            Put(_like(write.key, root, next(numbers)), write.value if isinstance(write, Put) else b"")
            for write in shape.writes
        )
        plans.append(Plan(shape.operation, compares, writes))
    return plans


def _like(key: bytes, root: bytes, number: int) -> bytes:
    return (root + b"bare/%d/" % number).ljust(len(key), b"x")


async def bare(bench: Bench, authority: Authority, lanes: int, seconds: float) -> dict[str, float]:
    """Slots a second of the same transactions with nothing in between. Building them is not in the time."""
    records = await list_all(bench.store, keys.lanes(bench.root))
    writer = LaneWriter(bench.store, authority, lane_revisions(bench.root, records.items))
    shapes = tuple(bench.writer.shapes)
    bound_a_round = sum(_slots_in(shape, bench.writer.slots) for shape in shapes if shape.operation == "BIND")
    numbers, elapsed, bound = itertools.count(), 0.0, 0

    async def drive(lane: int, plans: Sequence[Plan]) -> None:
        for plan in plans:
            settled = await writer.commit(lane, plan)
            assert isinstance(settled, Committed), settled

    while elapsed < seconds:
        rounds = [_replayed(shapes, bench.root, numbers) for _ in range(lanes)]
        began = time.perf_counter()
        await asyncio.gather(*(drive(lane, plans) for lane, plans in enumerate(rounds)))
        elapsed += time.perf_counter() - began
        bound += bound_a_round * lanes
    return {"bindings_per_s": round(bound / elapsed, 1), "seconds": round(elapsed, 2)}


def report(bench: Bench) -> dict[str, Any]:
    window = [entry for entry in bench.writer.done if bench.began <= entry[0] < bench.ended]
    seconds = bench.ended - bench.began

    def rate(operation: str) -> float:
        return round(sum(slots for _, _, name, slots in window if name == operation) / seconds, 1)

    a_second = collections.Counter(
        int(at - bench.began) for at, _, name, n in window if name == "BIND" for _ in range(n)
    )
    latencies = sorted(took for _, took, _, _ in window)
    return {
        "bindings_per_s": rate("BIND"),
        "releases_per_s": rate("RELEASE"),
        "worst_second": min(a_second[i] for i in range(int(seconds))),
        "transactions_per_s": round(len(window) / seconds, 1),
        "by_operation": dict(sorted(collections.Counter(name for _, _, name, _ in window).items())),
        "slots_per_bind": round(statistics.mean(n for _, _, name, n in window if name == "BIND"), 1),
        "commit_p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
        "commit_p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 2),
        "cpu_us_per_binding": round(bench.cpu_s * 1e6 / max(1, sum(a_second.values()))),
        "cpu_share": round(bench.cpu_s / seconds, 2),
        "jobs_finished": bench.jobs.finished,
        "unknown_outcomes": bench.writer.unknown,
        "seconds": round(seconds, 1),
    }


async def measure(
    nodes: int, seconds: float, lanes: int, bare_seconds: float, profile: cProfile.Profile | None
) -> dict[str, Any]:
    with EtcdCluster() as cluster:
        store = await EtcdStore.connect(cluster.endpoints)
        bench = Bench(store, nodes, lanes)
        authority = await bench.lead()
        await bench.run(seconds, profile)
        result = report(bench)
        unbound = await bare(bench, authority, lanes, bare_seconds)
        status = await store.status()
        await store.close()
    return {
        **result,
        "bare": unbound,
        "ratio": round(result["bindings_per_s"] / unbound["bindings_per_s"], 3),
        "nodes": nodes,
        "lanes": lanes,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "etcd": status.version,
        "commit": _commit(),
    }


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.commit", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--bare-seconds", type=float, default=10)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--profile", action="store_true", help="where the time goes, on stderr; slows everything")
    arguments = parser.parse_args()
    profile = cProfile.Profile() if arguments.profile else None
    result = asyncio.run(measure(arguments.nodes, arguments.seconds, arguments.lanes, arguments.bare_seconds, profile))
    if profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
