"""Exact quota under a race: `python -m tests.benchmarks.quota_race --clients 64 --jobs 100000 --limit 10000`.

Real processes: etcd, two candidates for the global plane and for the region, simulated nodes with room for everything.
So many clients apply jobs of one processor each, all at once, for a tenant whose quota is `limit` processors; nothing
ends. On the way the leader of the region is killed, and then that of the global plane; both come back. What is bound is
counted at every revision by a watch. In the end the quota is all used, it was exceeded at no revision, every job was
accepted, and the auditor has replayed the store and found every invariant kept at every revision.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.audit import Verdict
from atoll.cli import playground
from atoll.cli.dev_cluster import DevCluster
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from atoll.sdk.workloads import new_request_id
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Store
from tests.support.audit import assert_clean

REGION, TENANT = "r1", "race"
ROOT = keys.region_root(REGION)
COMMAND = ("sleep", "1000000")
SLOTS_OF_NODE = 16
REACHED_S = 120.0
SETTLED_S = 2.0  # the quota is all used, and stays so
_BOUND = objects_pb2.SLOT_STATE_BOUND


class Usage:
    """What is bound, as of the last revision seen, and the most there was at any."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bound: set[bytes] = set()
        self.most = 0
        self.news = asyncio.Event()

    @property
    def now(self) -> int:
        return len(self._bound)

    async def follow(self, after: int) -> None:
        async with self._store.watch(ROOT + b"slot/", start_revision=after + 1) as batches:
            async for batch in batches:  # of one revision each, or of several, whole
                for change in batch.changes:
                    if change.item and objects_pb2.Slot.FromString(change.item.value).state == _BOUND:
                        self._bound.add(change.key)
                    else:
                        self._bound.discard(change.key)
                self.most = max(self.most, self.now)
                self.news.set()

    async def until(self, bound: int) -> None:
        async with asyncio.timeout(REACHED_S):
            while self.now < bound:
                self.news.clear()
                await self.news.wait()


class Racers:
    """Clients that apply their part of the jobs, one after the other, each until it has an answer."""

    def __init__(self, cluster: DevCluster, clients: int, jobs: int) -> None:
        self._cluster = cluster
        self._parts = [range(first, jobs, clients) for first in range(clients)]
        self.accepted = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for part in self._parts:
                tasks.create_task(self._apply(part))

    async def _apply(self, part: range) -> None:
        async with playground.client_of(self._cluster.connection) as client:
            for number in part:
                job = Workload(
                    name=f"job-{number}", tenant=TENANT, command=COMMAND, cpu="1", memory="1Mi", job=True
                ).to_proto()
                request_id = new_request_id()
                while not await _applied(client, job, request_id):
                    pass
                self.accepted += 1


async def _applied(client: AsyncClient, job: objects_pb2.Workload, request_id: str) -> bool:
    with contextlib.suppress(errors.Unavailable, errors.Busy, errors.OutcomeUnknown):
        await client.workloads.apply(job, request_id=request_id)
        return True
    return False


async def kill_leader(cluster: DevCluster, store: Store, root: bytes) -> str:
    item, _ = await store.get(keys.leader(root))
    assert item is not None, "nobody leads"
    name = objects_pb2.Leader.FromString(item.value).name
    process = cluster.named(name).process
    process.kill()
    process.wait()
    await asyncio.to_thread(lambda: cluster.await_ready(cluster.relaunch(name)))
    return name


async def race(cluster: DevCluster, clients: int, jobs: int, limit: int) -> dict[str, Any]:
    store = await EtcdStore.connect(cluster.etcd)
    async with playground.client_of(cluster.connection) as admin:
        quota = objects_pb2.Resources(cpu_milli=limit * 1000, memory_mib=jobs)
        tenant = objects_pb2.Tenant(
            metadata=objects_pb2.Metadata(name=TENANT), spec=objects_pb2.TenantSpec(quota=quota)
        )
        await admin.tenants.apply(tenant)
    usage, racers = Usage(store), Racers(cluster, clients, jobs)
    _, revision = await store.get(keys.leader(ROOT))
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(usage.follow(revision))
        began = time.monotonic()
        racing = tasks.create_task(racers.run())
        await usage.until(limit // 3)
        killed = [await kill_leader(cluster, store, ROOT)]
        killed.append(await kill_leader(cluster, store, keys.GLOBAL))
        await racing
        accepted_s = time.monotonic() - began
        await usage.until(limit)
        reached_s = time.monotonic() - began
        await asyncio.sleep(SETTLED_S)
        following.cancel()
    verdict: Verdict = await assert_clean(store)
    await store.close()
    return {
        "clients": clients,
        "jobs_accepted": racers.accepted,
        "limit": limit,
        "most_bound_at_any_revision": usage.most,
        "bound_in_the_end": usage.now,
        "leaders_killed": killed,
        "accepted_s": round(accepted_s, 1),
        "limit_reached_s": round(reached_s, 1),
        "revisions_audited": verdict.checked,
        "violations": len(verdict.violations),
    }


def measure(folder: Path, clients: int, jobs: int, limit: int) -> dict[str, Any]:
    """A cluster of its own, raced once."""
    cluster = DevCluster(folder, (REGION,), candidates=2)
    nodes = limit // SLOTS_OF_NODE + 2
    try:
        playground.start(cluster, 0)
        cluster.await_ready(cluster.launch_fleet(REGION, nodes))
        playground.connected(cluster.connection, playground.nodes_ready({REGION: nodes}))
        return asyncio.run(race(cluster, clients, jobs, limit))
    finally:
        cluster.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.quota_race", description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is stopped then, too
    with tempfile.TemporaryDirectory(prefix="atoll-race-") as folder:
        figures = measure(Path(folder), arguments.clients, arguments.jobs, arguments.limit)
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
