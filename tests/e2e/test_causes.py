"""What goes wrong around Atoll: each cause has its word in what users see, and what it broke heals when it is gone.

Two regions of real processes. Users are the real command
line. Wrong etcd endpoints are in tests/integration.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli.children import Program
from atoll.cli.dev_cluster import NodePlan
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support.cluster import Cluster, Overlaps

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]
ATOLL = [sys.executable, "-c", "from atoll.cli.main import main; main()"]
DAY_MS = 24 * 3_600_000
HEALED_S = 60.0


def nodes_of(region: str, agents: int) -> list[NodePlan]:
    size = {"cpu_milli": 1_000, "memory_mib": 512}
    return [NodePlan(name=f"{region}-n1", settings=size)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("causes"), ("r1", "r2"), agents=1, nodes=nodes_of) as running:
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


def _run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )


async def atoll(cluster: Cluster, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command as an admin types it."""
    it = cluster.connection
    known = {"ADDRESS": it.address, "CA": it.ca, "CERTIFICATE": it.certificate, "KEY": it.key, "TENANT": it.tenant}
    variables = {f"ATOLL_{key}": value for key, value in {**known, **variables}.items()}
    home = str(cluster.folder / "no-contexts")
    return await asyncio.to_thread(_run, *ATOLL, *arguments, ATOLL_CONFIG=home, PYTHONPATH=str(ROOT), **variables)


def document(name: str, script: str = "exec sleep 1000000", **fields: Any) -> objects_pb2.Workload:
    given = {"cpu": "10m", "memory": "16Mi", **fields}
    message = Workload(name=name, command=("sh", "-c", script), **given).to_proto()
    restart = message.spec.tasks[0].restart
    restart.backoff_ms, restart.backoff_max_ms, restart.local_limit = 100, 500, 1_000
    message.spec.tasks[0].termination_grace_s = 1
    return message


async def until(holds: Callable[[], Any], what: str) -> Any:
    try:
        async with asyncio.timeout(HEALED_S):
            while True:
                if found := (await answer if asyncio.iscoroutine(answer := holds()) else answer):
                    return found
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(what) from None


async def told(cluster: Cluster, name: str, code: str, *words: str) -> None:
    """Why, get and wait all name this cause."""
    why = await until(lambda: _says(cluster, name, f"({code})"), f"`why {name}` never says {code}")
    for word in words:
        assert word in why, why
    await until(lambda: _lists(cluster, name, f"({code})"), f"`get {name}` never says {code}")
    waited = await until(lambda: _waits(cluster, name, f"({code})"), f"`wait {name}` never says {code}")
    assert "Error E2103: 1 of 1 replicas of" in waited and "Try   atoll " in waited, waited


async def _lists(cluster: Cluster, name: str, word: str) -> bool:
    """Rolled up at the global plane a little later."""
    return word in (await atoll(cluster, "get", "workload", name)).stdout


async def _waits(cluster: Cluster, name: str, word: str) -> str:
    """Between two tries there is nothing to blame for a moment."""
    waited = await atoll(cluster, "wait", name, "--timeout", "1s")
    assert (waited.returncode, waited.stdout) == (3, "")
    return waited.stderr if word in waited.stderr else ""


async def _says(cluster: Cluster, name: str, word: str) -> str:
    said = (await atoll(cluster, "why", name)).stdout
    return said if word in said else ""


async def serves(client: AsyncClient, name: str) -> None:
    workload = await client.workloads.wait(name, timeout=HEALED_S)
    await until(lambda: _nothing_pending(client, name), f"{name} serves and still has reasons: {workload.status}")


async def _nothing_pending(client: AsyncClient, name: str) -> bool:
    return not (await client.workloads.get(name)).status.pending


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
