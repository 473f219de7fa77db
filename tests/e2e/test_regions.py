"""Three regions of real processes: spread, a drain, and work that goes on while the global plane is away."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(300)]
REGIONS = ("east", "north", "west")
GLOBAL = "global-1"
SETTLED_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("regions"), REGIONS, agents=2) as running:
        yield running


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[AsyncClient]:
    async with cluster.client() as client:
        yield client


def _workload(name: str, replicas: int | None = None, **spread: object) -> Workload:
    return Workload(name=name, command=("sleep", "1000"), replicas=replicas, cpu="10m", memory="16Mi", **spread)  # type: ignore[arg-type]


async def _ready(client: AsyncClient, name: str, **wanted: int) -> objects_pb2.Workload:
    """Waits until exactly these counts are ready, by region."""
    document = objects_pb2.Workload()
    try:
        async with asyncio.timeout(SETTLED_S):
            while True:
                document = await client.workloads.get(name)
                if {part.region: part.counts.ready for part in document.status.regions} == wanted:
                    return document
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"wanted {wanted}, and it is:\n{document.status}") from None


async def _gone(client: AsyncClient, *names: str) -> None:
    for name in names:
        await client.workloads.delete(name)
    for name in names:
        with contextlib.suppress(errors.NotFound):  # it is gone already
            await client.workloads.wait(name, until="deleted", timeout=SETTLED_S)


async def _running(cluster: Cluster, workload: str, count: int, *without: str) -> None:
    """Waits for so many processes of the workload on nodes that are not among `without`."""
    try:
        async with asyncio.timeout(SETTLED_S):
            while True:
                found = await asyncio.to_thread(cluster.replicas)
                alive = [r for runs in found.values() for r in runs if r.workload == workload and r.node not in without]
                if len(alive) == count:
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"{len(alive)} of {count} run: {alive}") from None


async def test_even_fixed_and_preferred(cluster: Cluster, client: AsyncClient) -> None:
    await client.workloads.apply(_workload("even", 5, spread="even"))
    await client.workloads.apply(_workload("fixed", fixed={"west": 2, "north": 1}))
    await client.workloads.apply(_workload("first", 3, regions=["north", "east"]))
    await _ready(client, "even", east=2, north=2, west=1)
    await _ready(client, "fixed", north=1, west=2)
    await _ready(client, "first", north=3)
    why = await client.slots.why("even")
    assert sorted(answer.region for answer in why) == ["east", "east", "north", "north", "west"]
    assert {answer.state for answer in why} == {objects_pb2.SLOT_STATE_BOUND}
    listed = await client.slots.list(workload="fixed")
    assert sorted(view.region for view in listed) == ["north", "west", "west"]
    assert {answer.region for answer in await client.slots.why("fixed", index=1)} == {"west"}
    assert [part async for part in client.slots.logs("fixed", index=1)] == [], "found where it runs; it wrote nothing"
    with pytest.raises(errors.Invalid) as several:  # each region counts its replicas from 0
        _ = [part async for part in client.slots.logs("even", index=1)]
    assert "one of: east, north" in several.value.mistakes[0].message
    with pytest.raises(errors.NotFound):
        await client.slots.why("even", index=9)
    with pytest.raises(errors.NotFound):
        _ = [part async for part in client.slots.logs("even", index=9)]
    await client.workloads.scale("even", 3)
    await _ready(client, "even", east=1, north=1, west=1)
    await _gone(client, "even", "fixed", "first")


async def test_a_drained_region_is_left_without_a_gap(cluster: Cluster, client: AsyncClient) -> None:
    await client.workloads.apply(_workload("web", 4, regions=["east", "west"]))
    await _ready(client, "web", east=4)
    fewest = 4

    async def watch() -> None:
        nonlocal fewest
        while True:
            found = await asyncio.to_thread(cluster.replicas)
            fewest = min(fewest, sum(r.workload == "web" for runs in found.values() for r in runs))
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    await client.regions.update("east", draining=True)
    await _ready(client, "web", west=4)
    watching.cancel()
    assert fewest >= 4, "the quota has room, so nothing is stopped before its successor is ready"
    await client.regions.update("east", cordoned=False)
    await _ready(client, "web", west=4)
    await _gone(client, "web")


async def test_a_closed_region_is_told(cluster: Cluster, client: AsyncClient) -> None:
    await client.regions.update("north", cordoned=True)
    await client.workloads.apply(_workload("only", 1, regions=["north"]))
    with pytest.raises(errors.NotPlaced, match="north is cordoned"):
        await client.workloads.wait("only", timeout=3)
    await client.regions.update("north", cordoned=False)
    await _ready(client, "only", north=1)
    await _gone(client, "only")


def _weighing(name: str, **weights: float) -> objects_pb2.SchedulerPolicy:
    """A policy with this strategy, its default."""
    scores = [objects_pb2.ScoreWeight(score=score, weight=weight) for score, weight in weights.items()]
    spec = objects_pb2.SchedulerPolicySpec(default_strategy=name)
    spec.strategies.add(name=name, weights=scores)
    return objects_pb2.SchedulerPolicy(metadata=objects_pb2.Metadata(name="test"), spec=spec)


async def test_a_policy_is_tried_promoted_and_rolled_back(cluster: Cluster, client: AsyncClient) -> None:
    async def grown(name: str, region: str, replicas: int) -> tuple[list[int], int]:
        """How many replicas the nodes have then, and the policy of the last decision. The last index is the newest."""
        await client.workloads.scale(name, replicas)
        await _ready(client, name, **{region: replicas})
        why = await client.slots.why(name)
        counts = Counter(answer.node for answer in why)
        return sorted(counts.values()), max(why, key=lambda answer: answer.id.index).decision.policy_revision

    for name, region in (("home", "east"), ("trial", "west")):
        await client.workloads.apply(_workload(name, 2, regions=[region]))
        assert await grown(name, region, 2) == ([2], 0), "packed"
    number = (await client.policies.apply(_weighing("calm", emptiness=1))).policy.metadata.generation
    await client.policies.promote(number, regions=["west"])
    assert await grown("trial", "west", 3) == ([1, 2], number)
    assert await grown("home", "east", 3) == ([3], 0)
    await client.policies.promote(number)
    await client.workloads.apply(_workload("named", 1, regions=["north"], strategy="calm"))
    with pytest.raises(errors.Conflict, match="lacks strategies that 1 workload name"):
        await client.policies.promote(0)
    assert await grown("home", "east", 4) == ([1, 3], number)
    await client.policies.roll_back()
    assert await grown("home", "east", 5) == ([1, 4], 0), "what ran stayed where it was"
    await _gone(client, "home", "trial", "named")


async def test_a_revoked_token_is_refused_by_every_region_within_5_s(cluster: Cluster, client: AsyncClient) -> None:
    made = await client.tokens.create_user("ann", objects_pb2.ROLE_OPERATOR)
    addresses = [cluster.addresses[f"{region}-1"][0] for region in REGIONS]
    ca = cluster.folder / "ca" / "ca.crt"
    async with contextlib.AsyncExitStack() as connections:
        them = [
            await connections.enter_async_context(AsyncClient(address, ca=ca, token=made.token, tenant="default"))
            for address in addresses
        ]
        for ann in them:
            await _until(ann, knows=True, within_s=SETTLED_S)
        await client.tokens.revoke_user(made.record.id)
        await asyncio.gather(*(_until(ann, knows=False, within_s=5.0) for ann in them))


async def _until(someone: AsyncClient, *, knows: bool, within_s: float) -> None:
    """Until the region they ask knows their token, or no more."""
    async with asyncio.timeout(within_s):
        while True:
            try:
                await someone.nodes.list()
                known = True
            except errors.NotAuthenticated:
                known = False
            if known is knows:
                return
            await asyncio.sleep(0.05)


async def test_regions_work_on_while_the_global_plane_is_away(cluster: Cluster, client: AsyncClient) -> None:
    await client.workloads.apply(_workload("steady", 9, spread="even"))
    await _ready(client, "steady", east=3, north=3, west=3)
    cluster.kill(GLOBAL)
    lost = "east-n1"
    cluster.kill(lost)
    await _running(cluster, "steady", 9, lost)
    cluster.restart(GLOBAL)
    await _ready(client, "steady", east=3, north=3, west=3)
    slots = await client.slots.list(workload="steady")
    assert lost not in {view.slot.node for view in slots if view.slot.state == objects_pb2.SLOT_STATE_BOUND}
    cluster.restart(lost)
    await _gone(client, "steady")
    verdict = await cluster.verdict()
    assert not verdict.broken, verdict
