"""What the agents of a full region cost its process: `python -m tests.benchmarks.agents --nodes 10000 --seconds 120`.

Real programs: etcd, the global plane and one regional scheduler. The agents speak the agents' protocol over mTLS, each
with a certificate and a stream of its own, from another process (simulation/fleet.py), with a heartbeat every 10 s and
nothing to run. When all are ready the window begins: CPU in percent of one core and memory as the kernel counts them,
and the nodes that were held lost, though every one of them lives. On a machine that is too small for both sides the
losses are those of the machine.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.cli import playground
from atoll.cli.dev_cluster import DevCluster
from atoll.sdk.client import AsyncClient
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Store

REGION = "r1"
HEARTBEAT_MS = 10_000
JOINED_S = 1_800.0
_LOST = objects_pb2.NODE_STATE_LOST
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int) -> int:
    """Resident, as of now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) // 1024


async def count_losses(store: Store, revision: int, lost: list[str]) -> None:
    """Names every node that is held lost after `revision`, until cancelled."""
    async with store.watch(keys.region_root(REGION) + b"node/", start_revision=revision + 1) as batches:
        async for batch in batches:
            for change in batch.changes:
                if change.item:
                    node = objects_pb2.Node.FromString(change.item.value)
                    lost += [node.metadata.name] if node.state == _LOST else []


async def all_ready(client: AsyncClient, nodes: int) -> None:
    async def ready() -> bool:
        regions = await client.regions.list()
        return sum(region.summary.nodes_ready for region in regions) >= nodes

    await playground.until(ready, "the nodes did not all become ready", JOINED_S)


async def window(cluster: DevCluster, pids: dict[str, int], seconds: int) -> dict[str, Any]:
    store = await EtcdStore.connect(cluster.etcd)
    _, revision = await store.get(keys.leader(keys.region_root(REGION)))
    lost: list[str] = []
    counting = asyncio.create_task(count_losses(store, revision, lost))
    before, began_s = {name: cpu_s(pid) for name, pid in pids.items()}, time.monotonic()
    await asyncio.sleep(seconds)
    took_s = time.monotonic() - began_s
    percent = {name: round((cpu_s(pid) - before[name]) / took_s * 100, 1) for name, pid in pids.items()}
    counting.cancel()
    await asyncio.gather(counting, return_exceptions=True)
    await store.close()
    return {"cpu_percent": percent, "false_losses": len(lost), "seconds": round(took_s, 1)}


def measure(cluster: DevCluster, nodes: int, seconds: int) -> dict[str, Any]:
    playground.start(cluster, 0)
    (region,) = cluster.region_names(REGION)
    leader, fleet = cluster.named(region).process.pid, cluster.launch_fleet(REGION, nodes).process.pid
    idle_mib, idle_s, began_s = memory_mib(leader), cpu_s(leader), time.monotonic()
    playground.connected(cluster.connection, lambda client: all_ready(client, nodes))
    joined = {"wall_s": round(time.monotonic() - began_s, 1), "region_cpu_s": round(cpu_s(leader) - idle_s, 1)}
    (etcd,) = cluster.etcd_names
    pids = {"region": leader, "agents": fleet, "etcd": cluster.named(etcd).process.pid}
    print(json.dumps({"pids": pids, "joined": joined}), flush=True)
    figures = asyncio.run(window(cluster, pids, seconds))
    memory = {"region_before_mib": idle_mib, "region_mib": memory_mib(leader)}
    return {"nodes": nodes, "joined": joined, **figures, **memory}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.agents", description=__doc__)
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atoll-agents-") as folder:
        cluster = DevCluster(Path(folder), (REGION,), region_settings={"heartbeat_ms": HEARTBEAT_MS})
        try:
            figures = measure(cluster, arguments.nodes, arguments.seconds)
        finally:
            cluster.stop()
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
