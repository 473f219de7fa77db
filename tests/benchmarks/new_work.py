"""How long new work waits when the global leader is struck: `python -m tests.benchmarks.new_work --fault stop`.

Real processes: a global plane and a region with a standby each, three agents, one etcd that syncs to disk. Users ask
for one new workload after the other, each when the one before is bound; then the global leader is killed (`kill`, -9)
or stopped (`stop`, SIGSTOP, continued after the trial). Told is the time from the blow until the last of the users has
a workload bound that it asked for after the blow, and when on the way there the next leader was elected, the region had
its welcome, and the last of the users its first answer. Prints JSON.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import tempfile
import time
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
CALM_S = 4.0  # work flows for so long before each blow
LONGEST_S = 120.0
FAULTS = ("stop", "kill")
STAGES = ("elected", "welcomed", "answered", "bound")
RETRIED = (errors.Unavailable, errors.Busy, errors.OutcomeUnknown)


class Seen:
    """When what was in the store: bindings by their workload, and who leads and is listened to since when."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.bound_s: dict[str, float] = {}
        self.at_s: dict[str, list[float]] = {"elected": [], "welcomed": []}
        self.news = asyncio.Condition()

    async def follow(self, root: bytes) -> None:
        _, revision = await self._store.get(keys.leader(keys.GLOBAL))
        async with self._store.watch(root, start_revision=revision + 1) as batches:
            async for batch in batches:
                now_s = time.monotonic()
                for change in batch.changes:
                    if change.item and change.key == keys.leader(keys.GLOBAL):
                        self.at_s["elected"].append(now_s)
                    elif change.item and change.key == keys.heard_global(ROOT):
                        self.at_s["welcomed"].append(now_s)
                    elif change.item and change.key.startswith(ROOT + b"slot/"):
                        slot = objects_pb2.Slot.FromString(change.item.value)
                        if slot.state == objects_pb2.SLOT_STATE_BOUND:
                            self.bound_s.setdefault(slot.id.workload, now_s)
                async with self.news:
                    self.news.notify_all()

    async def bound(self, workload: str) -> float:
        async with self.news:
            await self.news.wait_for(lambda: workload in self.bound_s)
        return self.bound_s[workload]


class User:
    """Asks for one workload after the other; `past`: each one with when it was asked for, answered and bound."""

    def __init__(self, name: str, cluster: DevCluster, seen: Seen) -> None:
        self._name = name
        self._cluster = cluster
        self._seen = seen
        self.past: list[tuple[float, float, float]] = []

    async def run(self) -> None:
        number = 0
        async with playground.client_of(self._cluster.connection) as client:
            while True:
                number += 1
                name = f"{self._name}-{number}"
                spec = Workload(name=name, command=("sleep", "100000"), replicas=1, cpu="10m", memory="16Mi").to_proto()
                spec.spec.tasks[0].termination_grace_s = 1
                asked_s = time.monotonic()
                await self._until_answered(client, "apply", spec, name)
                answered_s = time.monotonic()
                self.past.append((asked_s, answered_s, await self._seen.bound(name)))
                await self._until_answered(client, "delete", name, f"{name}-end")
                await asyncio.sleep(0.1)

    async def _until_answered(self, client: AsyncClient, method: str, asked: Any, request_id: str) -> None:
        while True:
            with contextlib.suppress(*RETRIED):
                await getattr(client.workloads, method)(asked, request_id=request_id)
                return

    def first_after(self, blow_s: float) -> tuple[float, float] | None:
        """When the first work asked for after the blow was answered and bound."""
        return next(((answered, bound) for asked, answered, bound in self.past if asked > blow_s), None)


@contextlib.asynccontextmanager
async def working(cluster: DevCluster) -> AsyncIterator[tuple[Store, Seen, list[User]]]:
    store = await EtcdStore.connect(cluster.etcd)
    seen = Seen(store)
    users = [User(f"user-{number}", cluster, seen) for number in range(USERS)]
    tasks = [asyncio.create_task(seen.follow(root)) for root in (keys.GLOBAL, ROOT)]
    tasks += [asyncio.create_task(user.run()) for user in users]
    try:
        yield store, seen, users
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


async def trial(cluster: DevCluster, fault: str, store: Store, seen: Seen, users: list[User]) -> dict[str, float]:
    """When each stage was reached, in seconds after the blow."""
    item, _ = await store.get(keys.leader(keys.GLOBAL))
    assert item is not None
    victim = objects_pb2.Leader.FromString(item.value).name
    process = cluster.named(victim).process
    blow_s = time.monotonic()
    process.send_signal(signal.SIGSTOP if fault == "stop" else signal.SIGKILL)
    try:
        async with asyncio.timeout(LONGEST_S):
            while not all(user.first_after(blow_s) for user in users):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        process.send_signal(signal.SIGCONT)
    if fault == "kill":
        process.wait()
        await asyncio.to_thread(lambda: cluster.await_ready(cluster.relaunch(victim)))
    firsts = [first for user in users if (first := user.first_after(blow_s))]
    reached = {name: next((at for at in times if at > blow_s), blow_s) for name, times in seen.at_s.items()}
    reached["answered"], reached["bound"] = (max(first[place] for first in firsts) for place in (0, 1))
    return {name: round(reached[name] - blow_s, 2) for name in STAGES}


async def measure(cluster: DevCluster, fault: str, trials: int) -> dict[str, Any]:
    rows = []
    async with working(cluster) as (store, seen, users):
        for _ in range(trials):
            await asyncio.sleep(CALM_S)
            rows.append(await trial(cluster, fault, store, seen, users))
            print(json.dumps(rows[-1]), flush=True)
    bound = [row["bound"] for row in rows]
    return {
        "fault": f"global leader, {fault}",
        "trials": trials,
        "median_s": round(statistics.median(bound), 2),
        "max_s": max(bound),
        **{f"{stage}_s": [row[stage] for row in rows] for stage in STAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fault", choices=FAULTS, default="stop")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atoll-new-work-") as folder:
        cluster = DevCluster(Path(folder), (REGION,), candidates=2)
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
