"""Durable bindings a second into one etcd: the real core, committer and lane writer; only the agents are made up.

`python -m tests.benchmarks.commit --nodes 10000 --seconds 60 --lanes 1 --json out.json`

The nodes beat as the region tells them to. Work is jobs that come, run for a moment, end and are removed, so every
binding is followed by a release and by the deletion of its record, all in transactions; they ask for what is most
frequent in openb's pod list, processors and GPUs, or (`--shapes uniform`) all alike. What is counted are slots
of committed BINDs between the first and the last second of the window. The same process then sends transactions of
exactly the recorded shapes, prebuilt, by the same lane writer with no core: the bare rate. etcd syncs to disk.

CPU is counted apart: of the scheduler (core, committer, event loop, gRPC), of the made-up agents and jobs in the same
process, and of etcd. Where other programs share the machine, these are what runs can be compared by.
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
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

from atoll.clock import SystemClock
from atoll.committer import Committer
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.lane import Authority, Committed, Plan, Settled
from atoll.loop import CoreLoop
from atoll.service import collect_less_often
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Put, list_all, mod_is
from regional.config import CoreSettings
from regional.core import commands
from regional.core.commands import Command
from regional.core.events import Event, LeadershipWon, Woke
from regional.core.machine import Machine
from tests.benchmarks.fleet import REGION, SHAPES, Fleet, Jobs
from tests.support.etcd import EtcdCluster

WARM_UP_S = 3.0
REMEMBERED = 200  # transactions remembered for the bare run


class MeasuredWriter(LaneWriter):
    """Keeps when each transaction was committed, how long it took, and how many slots it bound or released."""

    def measure(self, slots: bytes) -> None:
        self.slots = slots
        self.done: list[tuple[float, float, str, int]] = []  # when, seconds, operation, slots
        self.shapes: collections.deque[Plan] = collections.deque(maxlen=REMEMBERED)

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


class Bench:
    """One regional process without its gateways. `writer`: what the committer sends with; measured by its user."""

    def __init__(
        self,
        store: EtcdStore,
        etcd: int,
        nodes: int,
        lanes: int,
        writer: type[LaneWriter] = LaneWriter,
        shapes: str = "uniform",
    ) -> None:
        self._writer_type = writer
        self.store = store
        self.etcd = etcd  # the process id
        self.nodes = nodes
        self.clock = SystemClock()
        self.root = keys.region_root(REGION)
        self.machine = Machine(REGION, CoreSettings(lanes=lanes))
        self.core: CoreLoop[Event, Command] = CoreLoop(self.machine, self.clock, self._execute, Woke())
        self.fleet = Fleet(nodes, self.core)
        self.jobs = Jobs(self.core, SHAPES[shapes])

    async def lead(self) -> Authority:
        election = Election(self.store, self.root, name="bench", address="", clock=self.clock, ttl_s=3_600)
        authority, _ = await election.campaign()
        records = await list_all(self.store, self.root)
        self.writer = self._writer_type(self.store, authority, lane_revisions(self.root, records.items))
        self.core.post(LeadershipWon(authority, records.items, records.revision))
        return authority

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Every node has joined and beats; every tenant has quota."""
        async with asyncio.TaskGroup() as tasks:
            self.committer = Committer(self.writer, tasks, self.core.post, self.clock)
            running = [tasks.create_task(self.core.run())]
            self.jobs.grant()
            self.fleet.join()
            running.append(tasks.create_task(self.fleet.live()))
            while len(self.fleet.welcomed) < self.nodes:  # noqa: ASYNC110 - the set-up, not measured
                await asyncio.sleep(0.1)
            yield
            self.committer.stop()
            for task in running:
                task.cancel()

    async def run(self, seconds: float, profile: cProfile.Profile | None) -> None:
        async with self.living():
            self.jobs.begin()
            await asyncio.sleep(WARM_UP_S)
            self.began, before = time.perf_counter(), self._cpu()
            with profile or contextlib.nullcontext():
                await asyncio.sleep(seconds)
            self.ended = time.perf_counter()
            self.cpu_s = {part: spent - before[part] for part, spent in self._cpu().items()}

    def _cpu(self) -> dict[str, float]:
        """Seconds of CPU so far, by part."""
        made_up = self.fleet.cpu.seconds + self.jobs.cpu.seconds
        return {
            "scheduler": time.process_time() - made_up,
            "agents": made_up,
            "etcd": _cpu_of_process(self.etcd),
        }

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


def _cpu_of_process(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


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


async def bare(
    bench: Bench, measured: MeasuredWriter, authority: Authority, lanes: int, seconds: float
) -> dict[str, float]:
    """Slots a second of the same transactions with nothing in between. Building them is not in the time."""
    records = await list_all(bench.store, keys.lanes(bench.root))
    writer = LaneWriter(bench.store, authority, lane_revisions(bench.root, records.items))
    shapes = tuple(measured.shapes)
    bound_a_round = sum(_slots_in(shape, measured.slots) for shape in shapes if shape.operation == "BIND")
    numbers, elapsed, bound = itertools.count(), 0.0, 0

    async def drive(lane: int, plans: Sequence[Plan]) -> None:
        for plan in plans:
            settled = await writer.commit(lane, plan)
            assert isinstance(settled, Committed), settled

    etcd_cpu_s = _cpu_of_process(bench.etcd)
    while elapsed < seconds:
        rounds = [_replayed(shapes, bench.root, numbers) for _ in range(lanes)]
        began = time.perf_counter()
        await asyncio.gather(*(drive(lane, plans) for lane, plans in enumerate(rounds)))
        elapsed += time.perf_counter() - began
        bound += bound_a_round * lanes
    etcd_cpu_s = _cpu_of_process(bench.etcd) - etcd_cpu_s
    return {
        "bindings_per_s": round(bound / elapsed, 1),
        "seconds": round(elapsed, 2),
        "etcd_cpu_us_per_binding": round(etcd_cpu_s * 1e6 / bound),
    }


def report(bench: Bench, writer: MeasuredWriter) -> dict[str, Any]:
    window = [entry for entry in writer.done if bench.began <= entry[0] < bench.ended]
    seconds = bench.ended - bench.began

    def rate(operation: str) -> float:
        return round(sum(slots for _, _, name, slots in window if name == operation) / seconds, 1)

    a_second = collections.Counter(
        int(at - bench.began) for at, _, name, n in window if name == "BIND" for _ in range(n)
    )
    latencies = sorted(took for _, took, _, _ in window)
    bound = sum(a_second.values())
    return {
        "bindings_per_s": rate("BIND"),
        "releases_per_s": rate("RELEASE"),
        "worst_second": min(a_second[i] for i in range(int(seconds))),
        "transactions_per_s": round(len(window) / seconds, 1),
        "by_operation": dict(sorted(collections.Counter(name for _, _, name, _ in window).items())),
        "slots_per_bind": round(statistics.mean(n for _, _, name, n in window if name == "BIND"), 1),
        "commit_p50_ms": round(latencies[len(latencies) // 2] * 1000, 2),
        "commit_p99_ms": round(latencies[len(latencies) * 99 // 100] * 1000, 2),
        "cpu_us_per_binding": {part: round(spent * 1e6 / max(1, bound)) for part, spent in bench.cpu_s.items()},
        "cores_used": {part: round(spent / seconds, 2) for part, spent in bench.cpu_s.items()},
        "jobs_finished": bench.jobs.finished,
        "unknown_outcomes": writer.unknown,
        "seconds": round(seconds, 1),
    }


async def measure(
    nodes: int, seconds: float, lanes: int, shapes: str, bare_seconds: float, profile: cProfile.Profile | None
) -> dict[str, Any]:
    with EtcdCluster() as cluster:
        store = await EtcdStore.connect(cluster.endpoints)
        (member,) = cluster.members
        assert member.process is not None
        bench = Bench(store, member.process.pid, nodes, lanes, MeasuredWriter, shapes)
        authority = await bench.lead()
        writer = bench.writer
        assert isinstance(writer, MeasuredWriter)
        writer.measure(bench.root + b"slot/")
        await bench.run(seconds, profile)
        result = report(bench, writer)
        unbound = await bare(bench, writer, authority, lanes, bare_seconds)
        status = await store.status()
        await store.close()
    return {
        **result,
        "bare": unbound,
        "ratio": round(result["bindings_per_s"] / unbound["bindings_per_s"], 3),
        "nodes": nodes,
        "lanes": lanes,
        "shapes": shapes,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "etcd": status.version,
        "commit": commit_id(),
    }


def commit_id() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "none"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.commit", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--shapes", choices=SHAPES, default="openb", help="what the replicas ask for")
    parser.add_argument("--bare-seconds", type=float, default=10)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--profile", action="store_true", help="where the time goes, on stderr; slows everything")
    arguments = parser.parse_args()
    profile = cProfile.Profile() if arguments.profile else None
    collect_less_often()
    nodes, seconds, lanes, shapes = arguments.nodes, arguments.seconds, arguments.lanes, arguments.shapes
    result = asyncio.run(measure(nodes, seconds, lanes, shapes, arguments.bare_seconds, profile))
    if profile:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
