"""Exact quota under a race: `python -m tests.benchmarks.quota_race --clients 64 --jobs 100000 --limit 10000`.

Real processes: etcd, two candidates for the global plane and for the region, simulated nodes with room for everything.
So many clients apply jobs of one processor each, all at once, for a tenant whose quota is `limit` processors; nothing
ends. On the way the leader of the region is killed, and then that of the global plane; both come back. What is bound is
counted at every revision by a watch, and the auditor checks every invariant there. In the end the quota is all used, it
was exceeded at no revision, and every job was accepted. Then both leaders are killed once more, a job that is bound is
deleted, and another has to get its place: so the queue is taken over at its full length.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.audit import Auditor, Verdict
from atoll.cli import playground
from atoll.cli.dev_cluster import DevCluster
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from atoll.sdk.workloads import new_request_id
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Change, Store
from atoll.verification import ROOTS

REGION, TENANT = "r1", "race"
ROOT = keys.region_root(REGION)
COMMAND = ("sleep", "1000000")
SLOTS_OF_NODE = 16
SLOTS = ROOT + b"slot/"
REACHED_S = HANDED_OVER_S = 120.0
SETTLED_S = 2.0  # the quota is all used, and stays so
_BOUND = objects_pb2.SLOT_STATE_BOUND


class Usage:
    """What is bound, as of the last revision seen, and the most there was at any; and what the auditor says of each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bound: dict[bytes, str] = {}  # the job, by slot
        self._auditor = Auditor()
        self.most = 0
        self.news = asyncio.Event()

    @property
    def now(self) -> int:
        return len(self._bound)

    @property
    def oldest(self) -> str:
        """The job that has been bound for longest."""
        return next(iter(self._bound.values()))

    def binds(self, job: str) -> bool:
        return job in self._bound.values()

    async def follow(self) -> None:
        async with self._store.watch(ROOTS, start_revision=1) as batches:
            async for batch in batches:  # of one revision each, or of several, whole
                self._auditor.feed(batch)
                for change in batch.changes:
                    if change.key.startswith(SLOTS):
                        self._note(change)
                self.most = max(self.most, self.now)
                self.news.set()

    def _note(self, change: Change) -> None:
        slot = objects_pb2.Slot.FromString(change.item.value) if change.item else objects_pb2.Slot()
        if slot.state == objects_pb2.SLOT_STATE_BOUND:
            self._bound.setdefault(change.key, slot.id.workload)
        else:
            self._bound.pop(change.key, None)

    async def until(self, reached: Callable[[], bool], within_s: float) -> None:
        async with asyncio.timeout(within_s):
            while not reached():
                self.news.clear()
                await self.news.wait()

    async def verdict(self) -> Verdict:
        """Of every revision up to that of the store now."""
        _, end = await self._store.get(ROOTS)
        await self.until(lambda: self._auditor.revision >= end, REACHED_S)
        return self._auditor.verdict()


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
    return await _done(client.workloads.apply(job, request_id=request_id))


async def _done(answer: Awaitable[object]) -> bool:
    with contextlib.suppress(errors.Unavailable, errors.Busy, errors.OutcomeUnknown):
        await answer
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
    usage, racers = Usage(store), Racers(cluster, clients, jobs)
    async with playground.client_of(cluster.connection) as admin, asyncio.TaskGroup() as tasks:
        quota = objects_pb2.Resources(cpu_milli=limit * 1000, memory_mib=jobs)
        tenant = objects_pb2.Tenant(
            metadata=objects_pb2.Metadata(name=TENANT), spec=objects_pb2.TenantSpec(quota=quota)
        )
        await admin.tenants.apply(tenant)
        following = tasks.create_task(usage.follow())
        began = time.monotonic()
        racing = tasks.create_task(racers.run())
        await usage.until(lambda: usage.now >= limit // 3, jobs)
        killed = [await kill_leader(cluster, store, root) for root in (ROOT, keys.GLOBAL)]
        await racing
        accepted_s = time.monotonic() - began
        await usage.until(lambda: usage.now >= limit, REACHED_S)
        reached_s = time.monotonic() - began
        await asyncio.sleep(SETTLED_S)
        in_the_end = usage.now
        killed += [await kill_leader(cluster, store, root) for root in (ROOT, keys.GLOBAL)]
        began = time.monotonic()
        await _hand_over(admin, usage, limit)
        handed_over_s = time.monotonic() - began
        verdict = await usage.verdict()
        following.cancel()
    await store.close()
    assert verdict.checked, "nothing was audited"
    assert not verdict.broken, "\n".join(map(str, verdict.violations))
    return {
        "clients": clients,
        "jobs_accepted": racers.accepted,
        "limit": limit,
        "most_bound_at_any_revision": usage.most,
        "bound_in_the_end": in_the_end,
        "leaders_killed": killed,
        "accepted_s": round(accepted_s, 1),
        "limit_reached_s": round(reached_s, 1),
        "place_handed_over_s": round(handed_over_s, 1),
        "revisions_audited": verdict.checked,
        "violations": len(verdict.violations),
    }


async def _hand_over(client: AsyncClient, usage: Usage, limit: int) -> None:
    """One that is bound goes, and one that waits takes its place."""
    gone = usage.oldest
    request_id = new_request_id()
    while not await _done(client.workloads.delete(gone, tenant=TENANT, request_id=request_id)):
        pass
    await usage.until(lambda: not usage.binds(gone) and usage.now == limit, HANDED_OVER_S)


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
