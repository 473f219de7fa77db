"""How long a fault keeps bindings away: `python -m tests.benchmarks.takeover --fault leader-kill --trials 10`.

Real processes: a region with a leader and a standby, three agents, one etcd or three members. Users scale workloads up
and down without a pause, so that bindings flow; then one process is struck. Told is the time from the blow to the end
of the longest gap between two bindings that follows it. Faults: leader-kill (kill -9), leader-stop (SIGSTOP),
etcd-leader-kill (three members). Prints JSON; the etcd members sync to disk.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli import playground
from atoll.cli.dev_cluster import DevCluster
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Store

REGION = "r1"
ROOT = keys.region_root(REGION)
USERS = 3
AGENTS = 3
CALM_S = 6.0  # bindings flow for so long before each blow
WINDOW_S = 30.0  # a blow is looked at for so long at most
QUIET_S = 1.5  # and is over when bindings have flowed again for so long
FAULTS = ("leader-kill", "leader-stop", "etcd-leader-kill")


class Bindings:
    """When each binding was seen in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seen_s: list[float] = []

    async def follow(self) -> None:
        _, revision = await self._store.get(keys.leader(ROOT))
        async with self._store.watch(ROOT + b"slot/", start_revision=revision + 1) as batches:
            async for batch in batches:
                now_s = time.monotonic()
                for change in batch.changes:
                    if change.item and objects_pb2.Slot.FromString(change.item.value).state == _BOUND:
                        self.seen_s.append(now_s)

    async def gap_after(self, blow_s: float) -> float:
        """From the blow to the end of the longest gap after it."""
        while True:
            await asyncio.sleep(0.1)
            now_s = time.monotonic()
            after = [blow_s, *(at_s for at_s in self.seen_s if at_s > blow_s)]
            gap_s, end_s = max(
                (later - before, later) for before, later in zip(after, [*after[1:], now_s], strict=True)
            )
            flowing = end_s < now_s and now_s - end_s > max(QUIET_S, min(gap_s, 6.0))
            if flowing and now_s - blow_s > _LEASE_S:
                return end_s - blow_s
            if now_s - blow_s > WINDOW_S:
                raise SystemExit(f"no binding for {now_s - end_s:.1f} s after a blow")


_BOUND = objects_pb2.SLOT_STATE_BOUND
_LEASE_S = 8.0  # the blow may be felt only when the lease has ended


async def user(client: AsyncClient, name: str) -> None:
    """One replica more, one less, and again."""
    spec = Workload(name=name, command=("sleep", "100000"), replicas=1, cpu="10m", memory="16Mi").to_proto()
    spec.spec.tasks[0].termination_grace_s = 1
    replicas = 1
    asked: Any = None
    while True:
        with contextlib.suppress(errors.Unavailable, errors.Busy, errors.OutcomeUnknown, errors.Conflict):
            if asked is None:
                asked = await client.workloads.apply(spec)
            replicas = 1 if replicas > 3 else replicas + 1
            await client.workloads.scale(name, replicas)
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def flowing(cluster: DevCluster) -> AsyncIterator[tuple[Store, Bindings]]:
    store = await EtcdStore.connect(cluster.etcd)
    bindings = Bindings(store)
    async with playground.client_of(cluster.connection) as client:
        tasks = [asyncio.create_task(bindings.follow())]
        tasks += [asyncio.create_task(user(client, f"load-{number}")) for number in range(USERS)]
        try:
            yield store, bindings
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await store.close()


async def trial(cluster: DevCluster, store: Store, bindings: Bindings, fault: str) -> float:
    victim = await _region_leader(store) if fault.startswith("leader") else await _etcd_leader(cluster)
    process = cluster.named(victim).process
    blow_s = time.monotonic()
    if fault == "leader-stop":
        process.send_signal(signal.SIGSTOP)
        try:
            return await bindings.gap_after(blow_s)
        finally:
            process.send_signal(signal.SIGCONT)
    process.kill()
    gap_s = await bindings.gap_after(blow_s)
    process.wait()
    await asyncio.to_thread(lambda: cluster.await_ready(cluster.relaunch(victim)))
    return gap_s


async def _region_leader(store: Store) -> str:
    item, _ = await store.get(keys.leader(ROOT))
    if item is None:
        raise SystemExit("nobody leads the region")
    return objects_pb2.Leader.FromString(item.value).name


async def _etcd_leader(cluster: DevCluster) -> str:
    """The name of the member that leads."""
    for name, client in zip(cluster.etcd_names, cluster.etcd, strict=True):
        request = urllib.request.Request(f"http://{client}/v3/maintenance/status", b"{}")
        with contextlib.suppress(urllib.error.URLError):
            status = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=2).read()))  # noqa: B023
            if status["header"]["member_id"] == status["leader"]:
                return name
    raise SystemExit("no member leads")


async def measure(cluster: DevCluster, fault: str, trials: int) -> dict[str, Any]:
    gaps_s, before = [], []
    async with flowing(cluster) as (store, bindings):
        for _ in range(trials):
            began = len(bindings.seen_s)
            await asyncio.sleep(CALM_S)
            before.append((len(bindings.seen_s) - began) / CALM_S)
            gaps_s.append(await trial(cluster, store, bindings, fault))
    gaps_s.sort()
    return {
        "fault": fault,
        "trials": trials,
        "median_s": round(statistics.median(gaps_s), 2),
        "p99_s": round(gaps_s[min(len(gaps_s) - 1, int(0.99 * len(gaps_s)))], 2),
        "all_s": [round(gap_s, 2) for gap_s in gaps_s],
        "bindings_per_s_before": round(statistics.mean(before), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=FAULTS, default="leader-kill")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    members = 3 if asked.fault.startswith("etcd") else 1
    with tempfile.TemporaryDirectory(prefix="atoll-takeover-") as folder:
        cluster = DevCluster(Path(folder), (REGION,), candidates=2, members=members)
        try:
            playground.start(cluster, AGENTS)
            figures = asyncio.run(measure(cluster, asked.fault, asked.trials))
        finally:
            cluster.stop()
    print(json.dumps(figures))
    if asked.json:
        asked.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
