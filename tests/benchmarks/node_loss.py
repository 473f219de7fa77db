"""From a node's death to its replacement: `python -m tests.benchmarks.node_loss --trials 20`.

Real processes with their default heartbeats: one region, four agents with the docker driver. A node dies as a machine
does: its agent's whole process group, its guard and its containers are killed at once, at any point between two
heartbeats. Told is the time until every replica of that node has a container elsewhere, running by the engine's word
and ready by the API's. Then the node comes back with nothing running, as a machine does after a reset. At the end the
auditor replays the store. Prints JSON.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import docker.errors

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.cli import playground, scratch_image, verify
from atoll.cli.dev_cluster import DevCluster
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support import docker as engine

REGION = "r1"
AGENTS = 4
REPLICAS = 4
WORKLOAD = "web"
LOOK_S = 0.1
LATE_S = 120.0
HEARTBEAT_S = 3.0


def workload(image: str) -> objects_pb2.Workload:
    script = "echo well > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"
    command = ("sh", "-c", script)
    spec = Workload(
        name=WORKLOAD,
        image=image,
        command=command,
        replicas=REPLICAS,
        cpu="100m",
        memory="16Mi",
        http="8080/index.html",
    )
    return spec.to_proto()


async def replicas(client: AsyncClient) -> Sequence[regional_pb2.SlotView]:
    return await client.slots.list(workload=WORKLOAD, region=REGION)


def ready(view: regional_pb2.SlotView) -> bool:
    bound = view.slot.state == objects_pb2.SLOT_STATE_BOUND and view.attempt.attempt == view.slot.attempt
    return bound and view.attempt.phase == agent_pb2.ATTEMPT_PHASE_RUNNING and view.attempt.ready


async def serving_without(client: AsyncClient, node: str) -> bool:
    views = await replicas(client)
    return len(views) == REPLICAS and all(ready(view) and view.slot.node != node for view in views)


def kill_node(cluster: DevCluster, node: str) -> None:
    """Everything of it, as fast as can be; nothing is asked."""
    agent, state = cluster.named(node).process, cluster.folder / node
    containers = engine.containers(state)
    guards = [pid for pid in _pids() if _is_guard(pid, state)]
    os.killpg(agent.pid, signal.SIGKILL)
    for pid in guards:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with engine.client() as client:
        for container in containers:
            with contextlib.suppress(docker.errors.APIError):  # it has ended
                client.kill(container["Id"])
    agent.wait()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _is_guard(pid: int, state: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"agent.guard" in arguments and str(state.resolve()).encode() in arguments


async def trial(cluster: DevCluster, client: AsyncClient) -> float:
    victim = (await replicas(client))[0].slot.node
    await asyncio.sleep(random.uniform(0, HEARTBEAT_S))
    blow_s = time.monotonic()
    await asyncio.to_thread(kill_node, cluster, victim)
    await playground.until(lambda: serving_without(client, victim), "a replacement is not ready", LATE_S, LOOK_S)
    took_s = time.monotonic() - blow_s
    running = {item["Labels"]["atoll.slot"]: item for item in engine.running(cluster.folder)}
    if len(running) != REPLICAS or any(item["Labels"]["atoll.node"] == victim for item in running.values()):
        raise SystemExit(f"the engine does not run what the API calls ready: {sorted(running)}")
    await asyncio.to_thread(lambda: cluster.await_ready(cluster.relaunch(victim)))
    await playground.nodes_ready({REGION: AGENTS})(client)
    await playground.until(lambda: _forgotten(cluster.folder / victim), "a dead container stays", LATE_S)
    return took_s


async def _forgotten(state: Path) -> bool:
    return not await asyncio.to_thread(engine.containers, state)


async def measure(cluster: DevCluster, trials: int) -> dict[str, Any]:
    async with playground.client_of(cluster.connection) as client:
        await client.workloads.wait((await client.workloads.apply(workload(scratch_image.TAG))).workload)
        took_s = [await trial(cluster, client) for _ in range(trials)]
        await client.workloads.delete(WORKLOAD)
        await playground.until(lambda: _forgotten(cluster.folder), "a container stays", LATE_S)
    took_s.sort()
    violations = (await verify.audit_store(cluster.etcd, quiet=True)).violations
    return {
        "trials": trials,
        "agents": AGENTS,
        "replicas": REPLICAS,
        "median_s": round(statistics.median(took_s), 2),
        "p99_s": round(took_s[min(len(took_s) - 1, int(0.99 * len(took_s)))], 2),
        "max_s": round(took_s[-1], 2),
        "all_s": [round(each_s, 2) for each_s in took_s],
        "violations": len(violations),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    asked = parser.parse_args()
    scratch_image.build(engine.SOCKET)
    with tempfile.TemporaryDirectory(prefix="atoll-node-loss-") as folder:
        cluster = DevCluster(Path(folder), (REGION,))
        try:
            playground.start(cluster, AGENTS, driver="docker")
            figures = asyncio.run(measure(cluster, asked.trials))
        finally:
            cluster.stop()
            engine.remove_all(Path(folder))
    print(json.dumps(figures))
    if asked.json:
        asked.json.write_text(json.dumps(figures))
    if figures["violations"]:
        raise SystemExit("the auditor found violations")


if __name__ == "__main__":
    main()
