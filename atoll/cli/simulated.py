"""`demo --simulated N`: N nodes behind the same API and command line, with what they cost, measured on this machine.

etcd, the global plane and the regional schedulers are the real programs. The nodes speak the agents' protocol, each
over a TLS stream of its own with its own certificate, from one process a region (simulation/fleet.py).
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from atoll import audit
from atoll.cli import dev, output, placement, playground, verify
from atoll.cli.children import Program
from atoll.cli.dev_cluster import DevCluster
from atoll.cli.failure import EXIT_OBJECTIVE
from atoll.cli.story import Story
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload

NAME = "load"
REPLICAS = 2_000
HEARTBEAT_MS = 10_000
JOINED_S, SERVES_S = 900.0, 180.0
TOLD_S = 10.0
_TICKS = os.sysconf("SC_CLK_TCK")


def show(nodes: int, regions: int, standbys: bool, once: bool) -> None:
    """Exits with 8 when the auditor finds anything; stays until Ctrl-C, unless `once`."""
    story = Story()
    story.title(f"Atoll: {nodes:,} simulated nodes behind the real programs on this machine")
    heartbeat = {"heartbeat_ms": HEARTBEAT_MS}
    with dev.running(None, regions=regions, standbys=standbys, region_settings=heartbeat) as cluster:
        story.chapter("1  The control plane", "atoll dev")
        playground.start(cluster, 0, seen=story.line)
        story.chapter(f"2  {nodes:,} nodes, each with a certificate and a TLS stream of its own", "atoll get regions")
        fleets = _launch(cluster, nodes)
        playground.connected(cluster.connection, lambda client: _joined(client, nodes, story))
        story.detail(f"a heartbeat from each every {HEARTBEAT_MS // 1000} s")
        _costs(cluster, story)
        replicas = min(REPLICAS, 4 * nodes)
        story.chapter(f"3  {replicas:,} replicas", f"atoll run {NAME} --replicas {replicas} -- serve")
        playground.connected(cluster.connection, lambda client: _load(client, replicas, story))
        _costs(cluster, story)
        story.chapter("4  The proof: an auditor of its own replays the store from its first revision", "atoll verify")
        verdict = asyncio.run(verify.audit_store(cluster.etcd, quiet=True))
        _judge(verdict, [*cluster.ended()], story)
        if once:
            return
        first = cluster.regions[0]
        output.write("\n")
        dev.stay(
            cluster,
            [
                "atoll status",
                f"atoll get nodes --region {first} | head",
                f"atoll run more --replicas {REPLICAS} --region {first} -- serve",
                "atoll why more/0",
                "atoll run brief --job --replicas 500 -- sleep 2",
                f"kill -STOP {fleets[0].process.pid}       the nodes of {first} fall silent; -CONT brings them back",
            ],
        )


def _launch(cluster: DevCluster, nodes: int) -> list[Program]:
    share, rest = divmod(nodes, len(cluster.regions))
    return [
        cluster.launch_fleet(region, share + (place < rest))
        for place, region in enumerate(cluster.regions)
        if share + (place < rest)
    ]


async def _joined(client: AsyncClient, nodes: int, story: Story) -> None:
    """Tells how many are ready, now and then, until all are."""
    told_s = 0.0

    async def all_ready() -> bool:
        nonlocal told_s
        regions = await client.regions.list()
        ready = sum(region.summary.nodes_ready for region in regions)
        if ready >= nodes or story.chapter_s >= told_s + TOLD_S:
            told_s = story.chapter_s
            split = " · ".join(f"{region.metadata.name} {region.summary.nodes_ready:,}" for region in regions)
            story.line(f"{ready:>6,} nodes are ready: {split}")
        return ready >= nodes

    await playground.until(all_ready, "the nodes did not all become ready", JOINED_S)


async def _load(client: AsyncClient, replicas: int, story: Story) -> None:
    wanted = Workload(name=NAME, command=("serve",), replicas=replicas, cpu="100m", memory="64Mi")
    workload = (await client.workloads.apply(wanted)).workload
    for stage in ("bound", "serving"):
        now = await client.workloads.wait(workload, until=stage, timeout=SERVES_S)
        where = " · ".join(f"{part.region} {part.counts.desired:,}" for part in now.status.regions)
        story.line(f"all {stage}: {where}")
    (answer, *_) = await client.slots.why(NAME, index=0)
    for line in placement.explain(answer):
        story.detail(line)


def _costs(cluster: DevCluster, story: Story) -> None:
    """Memory and processor time of every program, as the kernel counts them."""
    for program in cluster.programs:
        folder = Path(f"/proc/{program.process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        memory_mib = int(status["VmRSS"].split()[0]) // 1024
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
        story.detail(f"{program.name:<16} {memory_mib:>6,} MiB  {cpu_s:>6.1f} s of processor time")


def _judge(verdict: audit.Verdict, ended: Sequence[Program], story: Story) -> None:
    story.verdict(not verdict.violations, f"{verdict.line(0)} ({verdict.checked:,} revisions checked)")
    for program in ended:
        story.verdict(False, f"{program.name} ended by itself; its log is {program.log}")
    if verdict.violations or ended:
        sys.exit(EXIT_OBJECTIVE)
