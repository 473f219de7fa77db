"""Certificates of several nodes and of both servers are renewed at once, while work flows and what runs goes on."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli import playground
from atoll.cli.dev_cluster import HOSTS, NodePlan
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(150)]
REGION = "r1"
NODES = (f"{REGION}-n1", f"{REGION}-n2")
STEADY = 6
DONE_S = 60.0
DAY_S = 86_400


def nodes(region: str, agents: int) -> list[NodePlan]:
    plans = playground.nodes_of(region, agents)
    return [
        NodePlan(name=plan.name, pool=plan.pool, labels=plan.labels, settings={**plan.settings, "renew_check_s": 1})
        for plan in plans
    ]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, (REGION,), agents=3, candidates=2, nodes=nodes) as started:
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


def shown(address: str) -> str:
    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=10).strip()


def steady(cluster: Cluster) -> set[int]:
    return {r.pid for found in cluster.replicas().values() for r in found if r.workload == "steady"}


async def test_renewals_lose_no_work(cluster: Cluster) -> None:
    authority = CertificateAuthority(cluster.folder / "ca")
    certificates = [cluster.folder / name / "identity" / "current" / "node.crt" for name in NODES]
    async with cluster.client() as client:
        change = await client.workloads.apply(document("steady", STEADY))
        await client.workloads.wait(change.workload, until="serving", timeout=DONE_S)
        before = steady(cluster)
        assert len(before) == STEADY
        async with scaling(client, "load") as bound:
            await more(bound, 1)
            for name in NODES:
                cluster.kill(name)
            old = {certificate: certificate.read_bytes() for certificate in certificates}
            for certificate in certificates:
                made_s = certificate.stat().st_mtime
                os.utime(certificate, (made_s - 2 * DAY_S, made_s - 2 * DAY_S))  # more than half of its life is over
            for name in NODES:
                cluster.restart(name)
            for name in cluster.region_names(REGION):  # while the nodes renew theirs
                issued = authority.issue_region(REGION, name, HOSTS, cluster.folder / name, SystemClock().now_ms())
                assert shown(cluster.addresses[name][0]) == _first(issued.certificate), name
            await asyncio.gather(*(renewed(certificate, before) for certificate, before in old.items()))
            await more(bound, 3)
        assert steady(cluster) == before, "what ran goes on"
    verdict = await cluster.verdict()
    assert not verdict.broken, verdict


def _first(certificate: Path) -> str:
    """Of a chain, what a server shows as its own."""
    end = "-----END CERTIFICATE-----"
    return certificate.read_text().partition(end)[0].strip() + "\n" + end
