"""Nodes and both servers renew their certificates at once, and the cluster gets another root: work goes on."""

import asyncio
import contextlib
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from atoll import errors, rotation
from atoll.api.v1 import objects_pb2
from atoll.cli import playground
from atoll.cli.dev_cluster import HOSTS, NodePlan
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from atoll.store import keys
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(150)]
REGION = "r1"
NODES = (f"{REGION}-n1", f"{REGION}-n2")
STEADY = 6
HEARTBEAT_MS = 3_000  # an agent that is started again is not lost meanwhile
DONE_S = 60.0
DAY_S = 86_400


def nodes(region: str, agents: int) -> list[NodePlan]:
    plans = playground.nodes_of(region, agents)
    return [
        NodePlan(name=plan.name, pool=plan.pool, labels=plan.labels, settings={**plan.settings, "renew_check_s": 1})
        for plan in plans
    ]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(
        tmp_path_factory.mktemp("certificates"),
        (REGION,),
        agents=3,
        candidates=2,
        nodes=nodes,
        heartbeat_ms=HEARTBEAT_MS,
    ) as started:
        yield started


def document(name: str, replicas: int) -> objects_pb2.Workload:
    spec = Workload(name=name, command=("sleep", "1000000"), replicas=replicas, cpu="10m", memory="16Mi")
    message = spec.to_proto()
    message.spec.tasks[0].strategy = "spread"
    message.spec.tasks[0].termination_grace_s = 1
    return message


@contextlib.asynccontextmanager
async def scaling(client: AsyncClient, name: str) -> AsyncIterator[list[int]]:
    """A user goes up and down; yields what was bound, one entry each time that all asked for serves."""
    bound: list[int] = []

    async def go_on() -> None:
        await client.workloads.apply(document(name, 1))
        while True:
            for replicas in (2, 4, 1):
                with contextlib.suppress(errors.Unavailable, errors.Busy, errors.OutcomeUnknown, errors.Conflict):
                    change = await client.workloads.scale(name, replicas)
                    await client.workloads.wait(change.workload, until="serving", timeout=DONE_S)
                    bound.append(replicas)

    task = asyncio.create_task(go_on())
    try:
        yield bound
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def more(bound: list[int], by: int) -> None:
    """Until so many more scalings were served."""
    wanted = len(bound) + by
    async with asyncio.timeout(DONE_S):
        while len(bound) < wanted:  # noqa: ASYNC110 - a list gives no notice
            await asyncio.sleep(0.05)


async def renewed(certificate: Path, before: bytes) -> None:
    async with asyncio.timeout(DONE_S):
        while await asyncio.to_thread(certificate.read_bytes) == before:  # noqa: ASYNC110 - files give no notice
            await asyncio.sleep(0.1)


def half_a_life_later(cluster: Cluster, names: Sequence[str]) -> dict[Path, bytes]:
    """These nodes are due to renew their certificates; those they have, by their files."""
    old = {}
    for name in names:
        cluster.kill(name)
        certificate = cluster.folder / name / "identity" / "current" / "node.crt"
        old[certificate] = certificate.read_bytes()
        made_s = certificate.stat().st_mtime
        os.utime(certificate, (made_s - 2 * DAY_S, made_s - 2 * DAY_S))
    for program in [cluster.relaunch(name) for name in names]:
        cluster.await_ready(program)
    return old


def shown(address: str) -> str:
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10).strip()


def steady(cluster: Cluster) -> set[int]:
    return {r.pid for found in cluster.replicas().values() for r in found if r.workload == "steady"}


async def test_renewals_lose_no_work(cluster: Cluster) -> None:
    authority = CertificateAuthority(cluster.folder / "ca")
    async with cluster.client() as client:
        change = await client.workloads.apply(document("steady", STEADY))
        await client.workloads.wait(change.workload, until="serving", timeout=DONE_S)
        before = steady(cluster)
        assert len(before) == STEADY
        async with scaling(client, "load") as bound:
            await more(bound, 1)
            old = half_a_life_later(cluster, NODES)
            for name in cluster.region_names(REGION):  # while the nodes renew theirs
                issued = authority.issue_region(REGION, name, HOSTS, cluster.folder / name, SystemClock().now_ms())
                assert shown(cluster.addresses[name][0]) == _first(issued.certificate), name
            await asyncio.gather(*(renewed(certificate, before) for certificate, before in old.items()))
            await more(bound, 3)
        assert steady(cluster) == before, "what ran goes on"
    verdict = await cluster.verdict()
    assert not verdict.broken, verdict


async def test_the_cluster_gets_another_root(cluster: Cluster) -> None:
    folder, names = cluster.folder / "ca", [*cluster.global_names(), *cluster.region_names(REGION)]
    everybody = [cluster.folder / name for name in (*names, f"{REGION}-issuer", "admin")]
    now_ms = SystemClock().now_ms()
    async with cluster.client() as client:
        change = await client.workloads.apply(document("steady", STEADY))
        await client.workloads.wait(change.workload, until="serving", timeout=DONE_S)
        before = steady(cluster)
    rotation.start(folder, now_ms)
    _told(folder, everybody)
    rotation.switch(folder)
    _told(folder, everybody)
    authority = CertificateAuthority(folder)
    for name in cluster.global_names():
        authority.issue_global(name, HOSTS, cluster.folder / name, now_ms)
    for name in cluster.region_names(REGION):
        authority.issue_region(REGION, name, HOSTS, cluster.folder / name, now_ms)
    authority.issue_region_issuer(REGION, cluster.folder / f"{REGION}-issuer", now_ms)
    authority.issue_admin("dev", cluster.folder / "admin", now_ms)
    leader = await cluster.leader(keys.region_root(REGION))
    for name in sorted(cluster.region_names(REGION), key=lambda name: name == leader):  # the issuer is read at a start
        cluster.kill(name)
        await asyncio.to_thread(cluster.restart, name)
    old = half_a_life_later(cluster, sorted(cluster.agents))
    await asyncio.gather(*(renewed(certificate, was) for certificate, was in old.items()))
    rotation.finish(folder)
    _told(folder, everybody)
    everything = (*names, *sorted(cluster.agents))  # nobody lives on a connection from before
    for name in everything:
        cluster.kill(name)
    for program in [cluster.relaunch(name) for name in everything]:
        await asyncio.to_thread(cluster.await_ready, program)
    async with cluster.client() as client:
        change = await client.workloads.apply(document("later", 3))
        await client.workloads.wait(change.workload, until="serving", timeout=DONE_S)
    assert steady(cluster) == before, "what ran goes on"
    verdict = await cluster.verdict()
    assert not verdict.broken, verdict


def _told(folder: Path, everybody: Sequence[Path]) -> None:
    for place in everybody:
        shutil.copy(folder / "ca.crt", place / "ca.crt")


def _first(certificate: Path) -> str:
    """Of a chain, what a server shows as its own."""
    end = "-----END CERTIFICATE-----"
    return certificate.read_text().partition(end)[0].strip() + "\n" + end
