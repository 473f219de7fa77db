"""Nodes of a real cluster are drained, removed and evened out while users scale and leaders die: no replica is stopped
before its successor runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from atoll.store import keys
from tests.support.cluster import Cluster, Overlaps

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(150)]
REGION = "r1"
ROOT = keys.region_root(REGION)
LEADER, STANDBY = f"{REGION}-1", f"{REGION}-2"
FIRST, SECOND, THIRD = (f"{REGION}-n{number}" for number in (1, 2, 3))
REPLICAS = 10
DONE_S = 60.0
REASON = "kernel update"
BROKEN = objects_pb2.Taint(key="broken", value="disk", effect=objects_pb2.TAINT_EFFECT_NO_EXECUTE)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    evening = {"rebalance_after_ms": 0, "rebalance_rest_ms": 4_000}
    folder = tmp_path_factory.mktemp("drain")
    with Cluster(folder, (REGION,), agents=3, candidates=2, at_start=1, **evening) as started:
        yield started


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    async with cluster.client() as connected:
        yield connected


def document(name: str, replicas: int, cpu: str = "10m") -> objects_pb2.Workload:
    spec = Workload(name=name, command=("sleep", "1000000"), replicas=replicas, cpu=cpu, memory="16Mi")
    message = spec.to_proto()
    message.spec.migratable = name == "even"
    message.spec.tasks[0].strategy = "spread"
    message.spec.tasks[0].termination_grace_s = 1
    return message


class Fewest:
    """The least number of slots of a workload with a process, at any look while it lasts."""

    def __init__(self, cluster: Cluster, workload: str) -> None:
        self._cluster = cluster
        self._workload = workload
        self.seen = 1_000

    async def __aenter__(self) -> "Fewest":
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            found = await asyncio.to_thread(self._cluster.replicas)
            self.seen = min(self.seen, sum(slot.split("/")[1] == self._workload for slot in found))
            await asyncio.sleep(0.05)


def on(cluster: Cluster, node: str) -> set[str]:
    return {slot for slot, found in cluster.replicas().items() for replica in found if replica.node == node}


async def running(cluster: Cluster, replicas: int) -> None:
    async with asyncio.timeout(DONE_S):
        while len(cluster.replicas()) != replicas:  # noqa: ASYNC110 - processes give no notice
            await asyncio.sleep(0.1)


async def happened(client: AsyncClient, what: str, *kinds: str) -> None:
    """Waits for these events of an object."""
    async with asyncio.timeout(DONE_S):
        while True:
            seen = {event.type for event in await client.events.list(object=what, everywhere=True)}
            if seen.issuperset(kinds):
                return
            await asyncio.sleep(0.1)


async def drained(client: AsyncClient, node: str) -> None:
    """Asks until it is; a leader may be changing."""
    async with asyncio.timeout(DONE_S):
        while True:
            with contextlib.suppress(errors.Unavailable):
                if not (await client.nodes.get(node)).slots:
                    return
            await asyncio.sleep(0.2)


async def assert_clean(cluster: Cluster) -> None:
    verdict = await cluster.verdict()
    assert verdict.since == 1
    assert not verdict.broken, "\n".join(map(str, verdict.violations))


async def test_a_drain_while_a_user_scales_ends_with_what_was_asked_for(cluster: Cluster, client: AsyncClient) -> None:
    await client.workloads.apply(document("web", REPLICAS))
    await client.workloads.wait("web", timeout=DONE_S)
    enough = asyncio.Event()

    async def scale() -> None:
        replicas = REPLICAS
        while not enough.is_set():
            replicas = REPLICAS + (replicas + 1) % 4
            await client.workloads.scale("web", replicas)
            await asyncio.sleep(0.3)
        await client.workloads.scale("web", REPLICAS)

    assert on(cluster, FIRST)
    async with Overlaps(cluster) as overlaps, Fewest(cluster, "web") as fewest, asyncio.TaskGroup() as tasks:
        tasks.create_task(scale())
        node = await client.nodes.drain(FIRST, reason=REASON, deadline_s=600)
        assert node.drain.reason == REASON
        await drained(client, FIRST)
        enough.set()
    await client.workloads.wait("web", timeout=DONE_S)
    await running(cluster, REPLICAS)
    assert not on(cluster, FIRST)
    assert not overlaps.seen, overlaps.seen
    assert fewest.seen >= REPLICAS
    await happened(client, f"node/{FIRST}", "NodeDraining", "NodeDrained")
    await assert_clean(cluster)


async def test_a_leader_that_dies_in_the_middle_of_a_drain_is_followed(cluster: Cluster, client: AsyncClient) -> None:
    await asyncio.to_thread(cluster.start_standby, REGION)
    await client.nodes.uncordon(FIRST)
    before = on(cluster, SECOND)
    assert len(before) > 2
    async with Overlaps(cluster) as overlaps, Fewest(cluster, "web") as fewest:
        await client.nodes.drain(SECOND, reason=REASON, deadline_s=600)
        async with asyncio.timeout(DONE_S):
            while len(on(cluster, SECOND)) >= len(before):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert await cluster.leader(ROOT) == LEADER
        cluster.kill(LEADER)
        await drained(client, SECOND)
        assert await cluster.leader(ROOT) == STANDBY
        await client.workloads.wait("web", timeout=DONE_S)
    assert fewest.seen >= REPLICAS
    await running(cluster, REPLICAS)
    # while no leader was there a node may have been given up, and its kept work overlaps with its successor's
    assert all(first.node != second.node for first, second in overlaps.seen.values()), overlaps.seen
    assert not on(cluster, SECOND)
    await asyncio.to_thread(cluster.restart, LEADER)
    await assert_clean(cluster)


async def test_a_removed_node_is_cut_off(cluster: Cluster, client: AsyncClient) -> None:
    with pytest.raises(errors.Conflict):
        await client.nodes.remove(THIRD)
    assert await client.nodes.remove(SECOND, reason="sold")
    with pytest.raises(errors.NotFound):
        await client.nodes.get(SECOND)
    await happened(client, f"node/{SECOND}", "NodeRemoved", "NodeRefused")
    assert {node.metadata.name for node in await client.nodes.list()} == {FIRST, THIRD}
    await client.workloads.scale("web", REPLICAS + 3)
    await client.workloads.wait("web", timeout=DONE_S)
    assert not on(cluster, SECOND)
    await assert_clean(cluster)


async def test_no_execute_moves_work_off_a_node(cluster: Cluster, client: AsyncClient) -> None:
    before = on(cluster, THIRD)
    assert before
    async with Fewest(cluster, "web") as fewest:
        await client.nodes.taint(THIRD, [BROKEN])
        await drained(client, THIRD)
        await running(cluster, REPLICAS + 3)
    assert fewest.seen >= REPLICAS + 3
    assert len(on(cluster, FIRST)) == REPLICAS + 3
    await assert_clean(cluster)


async def test_an_uneven_region_is_evened_out_without_a_gap(cluster: Cluster, client: AsyncClient) -> None:
    await client.workloads.apply(document("even", 2, cpu="700m"))
    await client.workloads.wait("even", timeout=DONE_S)
    assert not on(cluster, THIRD), "its taint keeps all work off"
    async with Overlaps(cluster) as overlaps, Fewest(cluster, "even") as fewest:
        await client.nodes.taint(THIRD, (), remove=[BROKEN])
        await happened(client, "workload/default/even", "Migrating", "Migrated")
        await running(cluster, REPLICAS + 3 + 2)
    assert [slot.split("/")[1] for slot in on(cluster, THIRD)] == ["even"], "76 % and 0 % have become 41 % and 35 %"
    assert fewest.seen >= 2
    assert not overlaps.seen, overlaps.seen
    await assert_clean(cluster)
