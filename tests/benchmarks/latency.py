"""How long work waits for its durable binding: interactive work beside a burst of batch work, and a burst alone.

`python -m tests.benchmarks.latency --nodes 10000 --seconds 20 --json out.json`

The real core, committer and lanes over a real etcd that syncs to disk; agents and the global plane are made up in the
same process. Interactive work is workloads of one replica with priority HIGH, so many a second, beside jobs of 20,000
replicas: when all of one are bound the next one comes, so that the burst lasts as long as the window; every binding is
followed by a release. Two times of each: from the arrival of its share, and from the queue (its share is admitted),
until its BIND is committed. Then, in the same region at rest, bursts of 1,000 tasks: of one workload, and of 100.
"""

import argparse
import asyncio
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.election import LaneWriter
from atoll.lane import Committed, Plan, Settled
from atoll.service import collect_less_often
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from tests.benchmarks.commit import Bench, commit_id
from tests.benchmarks.fleet import REGION, TENANTS, Jobs
from tests.support.etcd import EtcdCluster

BURST = 20_000
SMALL_BURST = 1_000
TRIALS = 10
LONGEST_S = 60.0


class Times(LaneWriter):
    """When each workload was admitted, and each of its slots bound."""

    def measure(self, root: bytes) -> None:
        self.slots, self.shares = root + b"slot/", root + b"workload/"
        self.admitted: dict[bytes, float] = {}  # by tenant/workload
        self.bound: dict[bytes, int] = {}
        self.bound_at: dict[bytes, float] = {}  # the last one
        self.news = asyncio.Event()

    async def commit(self, lane: int, plan: Plan) -> Settled:
        settled = await super().commit(lane, plan)
        if isinstance(settled, Committed) and plan.operation in ("BIND", "ADMIT-SHARE"):
            self._note(plan, time.perf_counter())
        return settled

    def _note(self, plan: Plan, now: float) -> None:
        for write in plan.writes:
            if write.key.startswith(self.shares):
                self.admitted.setdefault(write.key[len(self.shares) :], now)
            elif write.key.startswith(self.slots):
                place = write.key[len(self.slots) :].rsplit(b"/", 2)[0]
                self.bound[place] = self.bound.get(place, 0) + 1
                self.bound_at[place] = now
        self.news.set()

    async def until_bound(self, place: bytes, count: int) -> None:
        while self.bound.get(place, 0) < count:
            self.news.clear()
            async with asyncio.timeout(LONGEST_S):  # `wait_for` may swallow a cancellation
                await self.news.wait()


class Arrivals:
    """Jobs that come, over the tenants in turn."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._tenants = itertools.cycle(TENANTS)

    def send(self, replicas: int, priority: "objects_pb2.Priority.ValueType") -> bytes:
        tenant = next(self._tenants)
        return f"{tenant}/{self._jobs.submit(tenant, replicas, priority)}".encode()


async def bursts_without_end(arrivals: Arrivals, times: Times) -> None:
    while True:
        place = arrivals.send(BURST, objects_pb2.PRIORITY_DEFAULT)
        await times.until_bound(place, BURST)


async def interactive(arrivals: Arrivals, times: Times, rate: float, seconds: float) -> dict[str, Any]:
    sent: dict[bytes, float] = {}
    batch = asyncio.create_task(bursts_without_end(arrivals, times))
    await asyncio.sleep(1.0)
    before, began = sum(times.bound.values()), time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        while len(sent) < (now - began) * rate:
            sent[arrivals.send(1, objects_pb2.PRIORITY_HIGH)] = time.perf_counter()
        await asyncio.sleep(1 / rate)
    took = time.perf_counter() - began
    bound = sum(times.bound.values()) - before
    for place in sent:
        await times.until_bound(place, 1)
    batch.cancel()
    await asyncio.gather(batch, return_exceptions=True)
    return {
        "interactive_per_s": round(len(sent) / took, 1),
        "beside_bindings_per_s": round((bound - len(sent)) / took, 1),
        "from_queue_ms": _spread([times.bound_at[place] - times.admitted[place] for place in sent]),
        "from_arrival_ms": _spread([times.bound_at[place] - at for place, at in sent.items()]),
        "seconds": round(took, 1),
    }


async def small_bursts(arrivals: Arrivals, times: Times, workloads: int) -> dict[str, float]:
    took = []
    for _ in range(TRIALS):
        await asyncio.sleep(1.5)  # the one before has ended and was released
        began = time.perf_counter()
        each = SMALL_BURST // workloads
        places = [arrivals.send(each, objects_pb2.PRIORITY_DEFAULT) for _ in range(workloads)]
        for place in places:
            await times.until_bound(place, each)
        took.append(max(times.bound_at[place] for place in places) - began)
    return _spread(took)


def _spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(one * 1000 for one in seconds)

    def at(percent: int) -> float:
        return round(ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1)

    return {"p50": at(50), "p95": at(95), "p99": at(99), "max": round(ordered[-1], 1)}


async def measure(nodes: int, seconds: float, lanes: int, rate: float) -> dict[str, Any]:
    with EtcdCluster() as cluster:
        store = await EtcdStore.connect(cluster.endpoints)
        (member,) = cluster.members
        assert member.process is not None
        bench = Bench(store, member.process.pid, nodes, lanes, writer=Times)
        await bench.lead()
        times = bench.writer
        assert isinstance(times, Times)
        times.measure(keys.region_root(REGION))
        async with bench.living():
            arrivals = Arrivals(bench.jobs)
            one = await small_bursts(arrivals, times, 1)
            many = await small_bursts(arrivals, times, 100)
            beside = await interactive(arrivals, times, rate, seconds)
        status = await store.status()
        await store.close()
    return {
        "interactive": beside,
        "burst_of_1000_in_one_workload_ms": one,
        "burst_of_1000_in_100_workloads_ms": many,
        "nodes": nodes,
        "lanes": lanes,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "etcd": status.version,
        "commit": commit_id(),
    }


def _arguments() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "--nodes", {"type": int, "default": 10_000}
    yield "--seconds", {"type": float, "default": 20}
    yield "--lanes", {"type": int, "default": 2}
    yield "--rate", {"type": float, "default": 200}
    yield "--json", {"type": Path, "help": "write the result here too"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.latency", description=__doc__)
    for name, options in _arguments():
        parser.add_argument(name, **options)
    arguments = parser.parse_args()
    collect_less_often()
    result = asyncio.run(measure(arguments.nodes, arguments.seconds, arguments.lanes, arguments.rate))
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
