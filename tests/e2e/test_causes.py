"""What goes wrong around Atoll: each cause has its word in what users see, and what it broke heals when it is gone.

Two regions of real processes. Users are the real command line. Wrong etcd endpoints are in tests/integration.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli.children import Program
from atoll.cli.dev_cluster import NodePlan
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority, RegionIssuer, node_request
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support.cluster import Cluster, Overlaps, Replica
from tests.support.commandline import HEALED_S, atoll, serves, told, until

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(180)]
DAY_MS = 24 * 3_600_000
SMALL_DISK = "r2-n1"  # its state has a file system of its own


def nodes_of(region: str, agents: int) -> list[NodePlan]:
    size = {"cpu_milli": 1_000, "memory_mib": 512}
    return [NodePlan(name=f"{region}-n1", labels={"number": "1"}, settings=size)]


def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=os.geteuid() == 0)
    yield
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("causes")
    mounted = contextlib.contextmanager(small_disk)(folder / SMALL_DISK)
    with mounted, Cluster(folder, ("r1", "r2"), agents=1, nodes=nodes_of) as running:
        yield running


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    """Nothing ran twice at a moment meanwhile, everything is removed behind the test, and the auditor is content."""
    async with cluster.client() as connected, Overlaps(cluster) as overlaps:
        yield connected
        for workload in await connected.workloads.list():
            await connected.workloads.delete(workload.metadata.name)
            try:
                await connected.workloads.wait(workload, until="deleted", timeout=HEALED_S)
            except errors.NotFound:
                continue
        assert not overlaps.seen
        verdict = await cluster.verdict()
        assert not verdict.broken, "\n".join(map(str, verdict.violations))


def document(name: str, script: str = "exec sleep 1000000", **fields: Any) -> objects_pb2.Workload:
    given = {"cpu": "10m", "memory": "16Mi", **fields}
    message = Workload(name=name, command=("sh", "-c", script), **given).to_proto()
    restart = message.spec.tasks[0].restart
    # What fails again and again is seen to have failed for longer than `wait` is given.
    restart.backoff_ms, restart.backoff_max_ms, restart.local_limit = 100, 3_000, 1_000
    message.spec.tasks[0].termination_grace_s = 1
    return message


async def _applied(client: AsyncClient, workload: objects_pb2.Workload) -> bool:
    try:
        await client.workloads.apply(workload)
    except errors.Invalid:
        return False
    return True


async def _gone(client: AsyncClient, name: str) -> bool:
    return name not in {workload.metadata.name for workload in await client.workloads.list()}


def log_of(cluster: Cluster, name: str) -> str:
    return (cluster.folder / "logs" / f"{name}.log").read_text()


async def ends(cluster: Cluster, program: Program) -> str:
    """Its log, once it has ended by itself as refused."""
    assert await asyncio.to_thread(program.process.wait, 30) == 6
    cluster.programs.remove(program)
    assert program.process.stdout is not None
    program.process.stdout.close()
    return log_of(cluster, program.name)


async def test_a_command_that_is_not_there(cluster: Cluster, client: AsyncClient, tmp_path: Path) -> None:
    program = tmp_path / "program"
    workload = document("web")
    workload.spec.tasks[0].command[:] = [str(program)]
    await client.workloads.apply(workload)
    await told(cluster, "web", "CommandNotFound", f"'{program}' cannot be started: No such file or directory")
    program.write_text("#!/bin/sh\nexec sleep 1000000\n")
    program.chmod(0o755)
    await serves(client, "web")


async def test_a_command_that_ends_at_once(cluster: Cluster, client: AsyncClient, tmp_path: Path) -> None:
    cure = tmp_path / "cure"
    await client.workloads.apply(document("web", f"[ -e {cure} ] || exit 7; exec sleep 1000000"))
    await told(cluster, "web", "Failed", "it ended with code 7", "restarted")
    ran = await atoll(cluster, "run", "ran", "--timeout", "2s", "--", "sh", "-c", "exit 7")
    assert (ran.returncode, "Error E2103: 1 of 1 replicas of ran are not serving" in ran.stderr) == (3, True), ran
    (slot,) = await client.slots.list(workload="web")
    assert (slot.attempt.exit.code, slot.attempt.exit.reason) == (7, "Failed")
    cure.touch()
    await serves(client, "web")


async def test_a_process_killed_from_outside(cluster: Cluster, client: AsyncClient) -> None:
    await client.workloads.apply(document("web"))
    await serves(client, "web")
    (before,) = await client.slots.list(workload="web")
    (killed,) = processes(cluster, "web")
    os.kill(killed.pid, signal.SIGKILL)
    (another,) = await until(lambda: [r for r in processes(cluster, "web") if r.pid != killed.pid], "no restart")
    await serves(client, "web")
    (after,) = await client.slots.list(workload="web")
    assert after.slot == before.slot, "the same attempt, started again where it was"
    assert (after.attempt.restarts, after.attempt.exit.reason) == (1, "Failed")
    assert "Failed (137)" in (await atoll(cluster, "get", "slots", "web", "-o", "wide")).stdout
    assert processes(cluster, "web") == [another]


def processes(cluster: Cluster, workload: str) -> list[Replica]:
    return [replica for found in cluster.replicas().values() for replica in found if replica.workload == workload]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
async def test_a_disk_that_is_full_under_an_agents_state(cluster: Cluster, client: AsyncClient) -> None:
    await client.workloads.apply(document("before", regions=["r2"]))
    await serves(client, "before")
    ran = processes(cluster, "before")
    full = cluster.folder / SMALL_DISK / "full"
    with contextlib.suppress(OSError), full.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert await until(lambda: _lists_unfit(cluster), "the node never says so") == "ready,unfit"
    shown = (await atoll(cluster, "node", "get", SMALL_DISK)).stdout
    assert "StorageFailed: the checkpoint cannot be written: No space left on device" in shown
    await client.workloads.apply(document("web", regions=["r2"]))
    await told(cluster, "web", "NodeUnfit", "1 node whose agent can start nothing new: StorageFailed: ")
    assert not processes(cluster, "web") and processes(cluster, "before") == ran, "what runs there runs on"
    full.unlink()
    await serves(client, "web")
    assert "unfit" not in (await atoll(cluster, "node", "list")).stdout
    kinds = {
        event.type for event in await client.events.list(object=f"node/{SMALL_DISK}", region="r2", everywhere=True)
    }
    assert {"NodeUnfit", "NodeFit"} <= kinds
    assert processes(cluster, "before") == ran


async def _lists_unfit(cluster: Cluster) -> str:
    rows = [line.split() for line in (await atoll(cluster, "node", "list")).stdout.splitlines()]
    return next((state for name, state, *_ in rows if name == SMALL_DISK and "unfit" in state), "")


async def test_more_memory_than_any_node_has_and_tokens_that_do_not_join(cluster: Cluster, client: AsyncClient) -> None:
    big = document("big", memory="700Mi", regions=["r1"])
    with pytest.raises(errors.Invalid) as larger:
        await client.workloads.apply(big)
    assert "no node could ever hold this" in larger.value.mistakes[0].message
    size = {"cpu_milli": 500, "memory_mib": 1_024}
    ours = NodePlan(name="r1-n3", labels={"pool": "claimed"}, settings=size)
    elsewhere = (await client.tokens.create_join(region="r2", ttl_s=600)).token
    refused = await ends(cluster, cluster.launch_agent("r1", ours, elsewhere))
    assert "E4001: region r1 does not know this join token" in refused
    token = (await client.tokens.create_join(region="r1", pool="memory", ttl_s=600)).token
    await asyncio.to_thread(cluster.await_ready, cluster.launch_agent("r1", ours, token))
    await until(lambda: _applied(client, big), "it is taken once a node is large enough")
    await serves(client, "big")
    assert (await client.nodes.get("r1-n3", region="r1")).pool == "memory", "the token's, whatever the agent claims"
    again = await ends(cluster, cluster.launch_agent("r1", NodePlan(name="r1-n4"), token))
    assert "E4001: the join token has been used" in again and "Ask an operator for a new one." in again
    for node in await client.nodes.list(region="r1"):
        assert node.metadata.name != "r1-n4"


async def test_a_region_that_no_workload_may_use(cluster: Cluster, client: AsyncClient) -> None:
    await client.regions.update("r2", cordoned=True)
    await client.workloads.apply(document("web", regions=["r2"]))
    await told(cluster, "web", "NoRegion", "no allowed region takes more: r2 is cordoned")
    await client.regions.update("r2", cordoned=False)
    await serves(client, "web")


async def test_a_nodes_certificate_that_has_expired(cluster: Cluster, client: AsyncClient) -> None:
    """Its work is not lost: it runs on, or elsewhere; a new token brings the node back."""
    name = "r1-n1"
    await client.workloads.apply(document("web", regions=["r1"], requires=["number=1"]))
    await serves(client, "web")
    ran = processes(cluster, "web")
    cluster.kill(name)
    expire(cluster, "r1", name)
    refused = await ends(cluster, cluster.relaunch(name))
    assert "expired at 2" in refused and "E4001: the join token has been used" in refused
    await until(lambda: _node_is(cluster, name, "lost"), "the node is not lost")
    await told(cluster, "web", "NodeNotReady")
    assert processes(cluster, "web") == ran
    token = (await client.tokens.create_join(region="r1", node=name, ttl_s=600, labels={"number": "1"})).token
    (plan,) = nodes_of("r1", 1)
    await asyncio.to_thread(cluster.await_ready, cluster.launch_agent("r1", plan, token))
    await serves(client, "web")
    assert await _node_is(cluster, name, "ready")
    assert len(processes(cluster, "web")) == 1


def expire(cluster: Cluster, region: str, name: str) -> None:
    """A certificate that was issued two days ago for one day, in place of the good one."""
    identity = (cluster.folder / name / "identity" / "current").resolve()
    issuer = cluster.issuer(region)
    _, request = node_request()
    issued_ms = SystemClock().now_ms() - 2 * DAY_MS
    signed = RegionIssuer(issuer.certificate, issuer.key).sign_node(
        request, node=name, pool="default", labels=[], now_ms=issued_ms
    )
    (identity / "node.crt").write_bytes(signed.certificate_pem)


async def _node_is(cluster: Cluster, name: str, state: str) -> bool:
    rows = [line.split() for line in (await atoll(cluster, "node", "list")).stdout.splitlines()]
    return [name, state] in [row[:2] for row in rows]


async def test_certificates_of_people_that_have_expired_or_are_anothers(cluster: Cluster, tmp_path: Path) -> None:
    now_ms = SystemClock().now_ms()
    ours = CertificateAuthority(cluster.folder / "ca")
    theirs = CertificateAuthority.create(tmp_path / "other", "dev", now_ms)
    for files, says in (
        (ours.issue_admin("old", tmp_path / "old", now_ms - 91 * DAY_MS), "expired at 2"),
        (theirs.issue_admin("root", tmp_path / "foreign", now_ms), "is of another cluster than"),
    ):
        shown = {"CERTIFICATE": str(files.certificate), "KEY": str(files.key)}
        refused = await atoll(cluster, "get", "workloads", **shown)
        assert (refused.returncode, refused.stdout) == (5, "")
        assert refused.stderr.startswith("Error E4002: the certificate "), refused.stderr
        assert says in refused.stderr and "Try   atoll ca issue admin" in refused.stderr
        ours.issue_admin("root", files.certificate.parent, now_ms)
        assert (await atoll(cluster, "get", "workloads", **shown)).returncode == 0
