"""A job over two regions, a gang and a preemption, while leaders are killed: in order, once each, resumed; all or none;
and nobody stopped for nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.sdk.client import AsyncClient
from atoll.store import keys
from atoll.store.etcd import EtcdStore
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
    command: [sh, -c, 'echo "begin $ATOLL_TASK $ATOLL_NODE $ATOLL_SLOT" >> LEDGER;
      [ -e LEDGER.good ] || { echo not good; exit 9; };
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


async def _apply(client: AsyncClient, text: str) -> None:
    (document,) = manifest.parse(text, "a.yaml")
    assert isinstance(document.message, objects_pb2.Workload)
    await client.workloads.apply(document.message)


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
    await _apply(client, JOB.replace("LEDGER", str(ledger)))
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
    written = [part async for part in client.slots.logs("etl", task="check", follow=True)]
    assert b"".join(written) == b"not good\n", "what it wrote is read after its end"
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
    await _apply(client, text)
    await client.workloads.wait("long", until="started", timeout=60)
    where = {replica.node for found in cluster.replicas().values() for replica in found}
    assert {node.partition("-")[0] for node in where} == set(REGIONS)
    await client.workloads.delete("long")
    await client.workloads.wait("long", until="deleted", timeout=60)
    assert not [slot for slot in cluster.replicas() if slot.split("/")[1] == "long"]


async def _state(store: EtcdStore, key: bytes) -> int:
    item, _ = await store.get(key)
    return objects_pb2.Slot.FromString(item.value).state if item else objects_pb2.SLOT_STATE_UNSPECIFIED


async def _until_reserved(cluster: Cluster, workload: str) -> None:
    key = keys.slots(keys.region_root("r1"), "default", workload) + b"main/0"
    store = await EtcdStore.connect(cluster.etcd)
    try:
        async with asyncio.timeout(60):
            while await _state(store, key) != objects_pb2.SLOT_STATE_RESERVED:  # noqa: ASYNC110 - as anyone outside sees it
                await asyncio.sleep(0.02)
    finally:
        await store.close()


async def test_room_is_made_and_a_gang_starts_whole_though_the_leader_dies(
    cluster: Cluster, client: AsyncClient, tmp_path: Path
) -> None:
    """The victim takes its time, so that the leader dies while the room of one is reserved for another."""
    ledger, done = tmp_path / "ledger", tmp_path / "done"
    node = next(node for node in await client.nodes.list() if node.metadata.name.startswith("r1-"))
    percent = node.capacity.cpu_milli // 100

    async def apply(name: str, priority: str, count: int, cpu_percent: int, command: str, more: str = "") -> None:
        task = f"{{count: {count}, command: [sh, -c, '{command}'], terminationGrace: 30s{more}"
        task += f", resources: {{cpu: {cpu_percent * percent}m, memory: 16Mi}}}}"
        spec = f"{{type: job, priority: {priority}, regions: [r1], task: {task}}}"
        await _apply(client, f"apiVersion: atoll/v1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {spec}")

    slow = f'trap "until [ -e {done} ]; do sleep 0.1; done; exit 1" TERM; while :; do sleep 0.1; done'
    await apply("low", "low", 2, 40, slow)
    await client.workloads.wait("low", until="started", timeout=60)
    await apply("high", "high", 1, 45, "sleep 1000")
    await _until_reserved(cluster, "high")
    await apply("mpi", "default", 12, 1, f"echo $ATOLL_INDEX >> {ledger}", ", gang: true")
    await _strike(cluster, "r1-1")
    done.touch()
    assert (await client.workloads.wait("mpi", until="done", timeout=90)).status.counts.succeeded == 12
    assert set(ledger.read_text().split()) == {str(index) for index in range(12)}
    await client.workloads.wait("high", until="started", timeout=60)
    assert (await client.workloads.get("low")).status.counts.bound == 1, "one was stopped, and no more"
    verdict = await cluster.verdict()
    assert not verdict.broken, "\n".join(map(str, verdict.violations))


async def test_low_work_ends_at_burst_default_work_at_quota_and_quota_gets_the_room_of_burst(
    cluster: Cluster, client: AsyncClient
) -> None:
    """In the region that the others have left: a tenant with the quota for 4 replicas, and burst for 2."""
    node = next(node for node in await client.nodes.list() if node.metadata.name.startswith("r2-"))
    percent = node.capacity.cpu_milli // 100
    small = objects_pb2.Tenant(metadata=objects_pb2.Metadata(name="small"))
    small.spec.quota.CopyFrom(objects_pb2.Resources(cpu_milli=49 * percent, memory_mib=4_096))
    await client.tenants.apply(small)

    async def apply(name: str, tenant: str, priority: str, count: int, cpu_percent: int) -> None:
        task = f"{{count: {count}, command: [sleep, '1000'], terminationGrace: 1s"
        task += f", resources: {{cpu: {cpu_percent * percent}m, memory: 16Mi}}}}"
        spec = f"{{type: job, priority: {priority}, regions: [r2], task: {task}}}"
        text = f"apiVersion: atoll/v1\nkind: Workload\nmetadata: {{name: {name}, tenant: {tenant}}}\nspec: {spec}"
        await _apply(client, text)

    async def until(name: str, tenant: str, bound: int, code: str) -> None:
        async with asyncio.timeout(60):
            while True:
                status = (await client.workloads.get(name, tenant=tenant)).status
                if status.counts.bound == bound and (not code or code in {reason.code for reason in status.pending}):
                    return
                await asyncio.sleep(0.1)

    await apply("low", "small", "low", 10, 10)
    await until("low", "small", 6, "QuotaExhausted")
    status = (await client.tenants.get("small")).status
    assert status.burst.limit.cpu_milli == 49 * percent // 2
    await apply("web", "small", "default", 1, 10)
    await apply("idle", "default", "best-effort", 1, 42)  # 40 % of the node are free
    await until("idle", "default", 1, "")
    await until("low", "small", 5, "")
    await until("web", "small", 0, "QuotaExhausted")
    for name, tenant in (("low", "small"), ("web", "small"), ("idle", "default")):
        await client.workloads.delete(name, tenant=tenant)
    verdict = await cluster.verdict()
    assert not verdict.broken, "\n".join(map(str, verdict.violations))
