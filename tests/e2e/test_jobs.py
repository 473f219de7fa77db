"""A job over two regions while the global plane and a region's leader are killed: in order, once each, and resumed."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.sdk.client import AsyncClient
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(150)]
REGIONS = ("r1", "r2")
JOB = """
apiVersion: atoll/v1
kind: Workload
metadata: {name: etl}
spec:
  type: job
  spread: even
  tasks:
  - name: extract
    count: 6
    parallelism: 4
    retries: {limit: 2, backoff: 100ms, backoffMax: 200ms}
    command: [sh, -c, 'echo "begin $ATOLL_TASK $ATOLL_NODE $ATOLL_SLOT" >> LEDGER; sleep 1;
      if [ $ATOLL_INDEX = 1 ] && mkdir LEDGER.$ATOLL_NODE.$ATOLL_INDEX; then exit 3; fi;
      echo "end $ATOLL_TASK $ATOLL_NODE $ATOLL_SLOT" >> LEDGER']
    resources: &small {cpu: 10m, memory: 16Mi}
  - name: check
    dependsOn: [extract]
    retries: 0
    command: [sh, -c, 'echo "begin $ATOLL_TASK $ATOLL_NODE $ATOLL_SLOT" >> LEDGER; [ -e LEDGER.good ] || exit 9;
      echo "end $ATOLL_TASK $ATOLL_NODE $ATOLL_SLOT" >> LEDGER']
    resources: *small
  - name: load
    dependsOn: [check]
    count: 2
    command: [sh, -c, 'echo "begin $ATOLL_TASK $ATOLL_NODE $ATOLL_SLOT" >> LEDGER;
      echo "end $ATOLL_TASK $ATOLL_NODE $ATOLL_SLOT" >> LEDGER']
    resources: *small
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("jobs"), REGIONS, agents=1) as started:
        yield started


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    async with cluster.client() as connected:
        yield connected


def _said(ledger: Path, word: str, task: str) -> list[str]:
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [line for line in lines if line.startswith(f"{word} {task} ")]


async def _until(ledger: Path, word: str, task: str, count: int) -> None:
    async with asyncio.timeout(60):
        while len(_said(ledger, word, task)) < count:  # noqa: ASYNC110 - a file gives no notice
            await asyncio.sleep(0.05)


async def _strike(cluster: Cluster, name: str) -> None:
    cluster.kill(name)
    await asyncio.to_thread(cluster.restart, name)


async def test_its_steps_outlive_the_leaders(cluster: Cluster, client: AsyncClient, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    (document,) = manifest.parse(JOB.replace("LEDGER", str(ledger)), "etl.yaml")
    assert isinstance(document.message, objects_pb2.Workload)
    await client.workloads.apply(document.message)
    await _until(ledger, "begin", "extract", 2)
    await _strike(cluster, "global-1")
    await _until(ledger, "end", "extract", 3)
    await _strike(cluster, "r1-1")
    with pytest.raises(errors.JobFailed, match="task check failed"):
        await client.workloads.wait("etl", until="done", timeout=90)
    ends = _said(ledger, "end", "extract")
    assert len(ends) == len(set(ends)) == 6, "each has succeeded once"
    assert len(_said(ledger, "begin", "extract")) == 8, "and what failed was tried once more in each region"
    assert not _said(ledger, "begin", "load")

    failed = await client.workloads.get("etl")
    assert [task.phase for task in failed.status.job.tasks] == [
        objects_pb2.TASK_PHASE_SUCCEEDED,
        objects_pb2.TASK_PHASE_FAILED,
        objects_pb2.TASK_PHASE_SKIPPED,
    ]
    (tmp_path / "ledger.good").touch()
    await client.workloads.resume("etl")
    await _strike(cluster, "global-1")
    done = await client.workloads.wait("etl", until="done", timeout=90)
    assert done.status.job.reason == "Succeeded"
    assert [len(_said(ledger, "end", task)) for task in ("extract", "check", "load")] == [6, 1, 2]
    lines = ledger.read_text().splitlines()
    for upstream, task in (("extract", "check"), ("check", "load")):
        ended = max(i for i, line in enumerate(lines) if line.startswith(f"end {upstream} "))
        began = [i for i, line in enumerate(lines) if line.startswith(f"begin {task} ")]
        assert all(i > ended for i in began)
    verdict = await cluster.verdict()
    assert not verdict.broken, "\n".join(map(str, verdict.violations))


async def test_it_is_stopped_and_gone_everywhere(cluster: Cluster, client: AsyncClient) -> None:
    text = (
        "apiVersion: atoll/v1\nkind: Workload\nmetadata: {name: long}\nspec: {type: job, spread: even, count: 4, task: "
    )
    text += "{command: [sleep, '1000'], terminationGrace: 1s, resources: {cpu: 10m, memory: 16Mi}}}"
    (document,) = manifest.parse(text, "long.yaml")
    assert isinstance(document.message, objects_pb2.Workload)
    await client.workloads.apply(document.message)
    await client.workloads.wait("long", until="started", timeout=60)
    where = {replica.node for found in cluster.replicas().values() for replica in found}
    assert {node.partition("-")[0] for node in where} == set(REGIONS)
    await client.workloads.delete("long")
    await client.workloads.wait("long", until="deleted", timeout=60)
    assert not [slot for slot in cluster.replicas() if slot.split("/")[1] == "long"]
