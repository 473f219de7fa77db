"""A region by itself: `python -m tests.benchmarks.global_away --seconds 600` has no global plane for so long.

Real processes: a global plane and a region with a standby each, four agents, one etcd that syncs to disk. Services run,
and a long job whose replicas are bound one after the other as room becomes free inside the region's slice. Then both
processes of the global plane are killed (-9). While they are away a node dies as a machine does, and later the leader
of the region is killed. Told are the bindings a second before and meanwhile, how long the replicas of the dead node
took to run elsewhere, how often each service's replica ran at the end, and what the auditor and the global plane say
once it is back. Exit code 1 when anything was lost. Prints JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.cli import playground
from atoll.cli.dev_cluster import NodePlan
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from tests.support.cluster import Cluster

REGION = "r1"
ROOT = keys.region_root(REGION)
AGENTS = 4
SERVICE, SERVED = "web", 8
JOB, AT_ONCE, ONE_S = "stream", 16, 2.0  # the job's replicas: so many have room at once, each takes so long
WORKING = "working"
CALM_S = 60.0
LATE_S = 120.0


def nodes(region: str, agents: int) -> list[NodePlan]:
    """The last node is for the job alone: its room is what bounds the rate."""
    sizes = {"cpu_milli": 2_000, "memory_mib": 4_096}
    plans = [NodePlan(name=f"{region}-n{n}", labels={"pool": "serving"}, settings=sizes) for n in range(1, agents)]
    room = {"cpu_milli": AT_ONCE * 10, "memory_mib": 4_096}
    return [*plans, NodePlan(name=f"{region}-n{agents}", labels={"pool": WORKING}, settings=room)]


def service() -> objects_pb2.Workload:
    document = Workload(
        name=SERVICE,
        command=("sleep", "1000000"),
        replicas=SERVED,
        cpu="10m",
        memory="16Mi",
        requires=("pool=serving",),
    ).to_proto()
    document.spec.tasks[0].termination_grace_s = 1
    document.spec.tasks[0].strategy = "spread"
    return document


def job(seconds: float) -> objects_pb2.Workload:
    replicas = int((seconds + 3 * CALM_S) / ONE_S * AT_ONCE)
    return Workload(
        name=JOB,
        command=("sleep", str(ONE_S)),
        job=True,
        replicas=replicas,
        cpu="10m",
        memory="16Mi",
        requires=(f"pool={WORKING}",),
    ).to_proto()


class Bindings:
    """When replicas of the job were bound, by the store."""

    def __init__(self) -> None:
        self.seen_s: list[float] = []

    async def follow(self, store: EtcdStore) -> None:
        _, revision = await store.get(keys.leader(ROOT))
        prefix = keys.slots(ROOT, "default", JOB)
        async with store.watch(prefix, start_revision=revision + 1) as batches:
            async for batch in batches:
                records = [objects_pb2.Slot.FromString(change.item.value) for change in batch.changes if change.item]
                bound = [slot for slot in records if slot.state == objects_pb2.SLOT_STATE_BOUND]
                self.seen_s += [time.monotonic()] * len(bound)

    def rate(self, since_s: float, until_s: float) -> float:
        return round(sum(since_s < at_s <= until_s for at_s in self.seen_s) / (until_s - since_s), 2)

    def longest_pause_s(self, since_s: float, until_s: float) -> float:
        times = [since_s, *(at_s for at_s in self.seen_s if since_s < at_s <= until_s), until_s]
        return round(max(later - before for before, later in pairwise(times)), 2)


def serving(cluster: Cluster, *, without: str = "") -> bool:
    """Each replica of the service runs once, and none on that node."""
    found = [runs for runs in cluster.replicas().values() if runs[0].workload == SERVICE]
    return len(found) == SERVED and all(len(runs) == 1 and runs[0].node != without for runs in found)


async def until(holds: Callable[[], bool], what: str) -> float:
    """How long it took."""
    began_s = time.monotonic()
    while not await asyncio.to_thread(holds):
        if time.monotonic() - began_s > LATE_S:
            raise SystemExit(f"{what}: not within {LATE_S:g} s")
        await asyncio.sleep(0.1)
    return round(time.monotonic() - began_s, 2)


def kill_node(cluster: Cluster, node: str) -> None:
    """Its agent, its guard and all that it runs, at once."""
    os.killpg(cluster.named(node).process.pid, signal.SIGKILL)
    for runs in cluster.replicas().values():
        for run in runs:
            if run.node == node:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(run.pid, signal.SIGKILL)
    cluster.named(node).process.wait()


async def away(cluster: Cluster, seconds: float) -> dict[str, Any]:
    """Nobody of the global plane for so long; a node dies after a quarter of it, the region's leader is killed after
    half."""
    for name in cluster.global_names():
        cluster.kill(name)
    began_s = time.monotonic()
    await asyncio.sleep(seconds / 4)
    await asyncio.to_thread(kill_node, cluster, f"{REGION}-n1")
    replaced_s = await until(
        lambda: serving(cluster, without=f"{REGION}-n1"), "the replicas of the dead node elsewhere"
    )
    await asyncio.sleep(max(0.0, began_s + seconds / 2 - time.monotonic()))
    leader = await cluster.leader(ROOT)
    cluster.kill(leader)
    await asyncio.to_thread(cluster.restart, leader)
    await asyncio.sleep(max(0.0, began_s + seconds - time.monotonic()))
    return {"away_s": round(time.monotonic() - began_s, 1), "dead_node_replaced_s": replaced_s}


@contextlib.asynccontextmanager
async def followed(cluster: Cluster) -> AsyncIterator[Bindings]:
    store, bindings = await EtcdStore.connect(cluster.etcd), Bindings()
    following = asyncio.create_task(bindings.follow(store))
    try:
        yield bindings
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await store.close()


async def told(client: AsyncClient) -> bool:
    workload = await client.workloads.get(SERVICE)
    return workload.status.counts.serving == SERVED


async def measure(cluster: Cluster, seconds: float) -> dict[str, Any]:
    async with cluster.client() as client, followed(cluster) as bindings:
        await client.workloads.apply(service())
        await client.workloads.apply(job(seconds))
        await until(lambda: serving(cluster), "the service")
        await asyncio.sleep(CALM_S / 4)
        calm_s = time.monotonic()
        await asyncio.sleep(CALM_S)
        blow_s = time.monotonic()
        figures = await away(cluster, seconds)
        back_s = time.monotonic()
        lost = not serving(cluster)
        for name in cluster.global_names():
            await asyncio.to_thread(cluster.restart, name)
        await playground.until(lambda: told(client), "the global plane has not heard that all serve", LATE_S)
        figures["told_again_s"] = round(time.monotonic() - back_s, 2)
        figures["job_failed"] = (await client.workloads.get(JOB)).status.counts.failed
        await client.workloads.delete(JOB)
        verdict = await cluster.verdict()
    return {
        **figures,
        "bindings_per_s_before": bindings.rate(calm_s, blow_s),
        "bindings_per_s_away": bindings.rate(blow_s, back_s),
        "longest_pause_s": bindings.longest_pause_s(blow_s, back_s),
        "services_lost": lost,
        "audit": verdict.line(0),
        "good": not lost and not figures["job_failed"] and not verdict.broken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.global_away", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="atoll-away-") as folder,
        Cluster(Path(folder), (REGION,), agents=AGENTS, candidates=2, nodes=nodes) as cluster,
    ):
        figures = asyncio.run(measure(cluster, asked.seconds))
    print(json.dumps(figures))
    if asked.json:
        asked.json.write_text(json.dumps(figures))
    sys.exit(0 if figures["good"] else 1)


if __name__ == "__main__":
    main()
