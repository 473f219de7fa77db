"""What the SDK relies on of a server: held by the real programs, so the fake may stand for them elsewhere."""

import asyncio
import secrets

import pytest

from atoll import errors
from atoll.api.v1 import global_pb2
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def spec() -> Workload:
    """A workload of a name that no other test has."""
    command = ("sh", "-c", "while :; do sleep 1; done")
    return Workload(name=f"w-{secrets.token_hex(4)}", command=command, replicas=2, cpu="10m", memory="32Mi")


async def test_apply_again_changes_nothing(client: AsyncClient, spec: Workload) -> None:
    first = await client.workloads.apply(spec)
    again = await client.workloads.apply(spec)
    assert (first.outcome, again.outcome) == ("created", "unchanged")
    assert again.workload.metadata.generation == first.workload.metadata.generation == 1
    scaled = await client.workloads.scale(spec.name, 3)
    assert (scaled.outcome, scaled.workload.metadata.generation) == ("updated", 2)


async def test_one_request_id_is_one_request(client: AsyncClient, spec: Workload) -> None:
    request_id = secrets.token_hex(8)
    first = await client.workloads.apply(spec, request_id=request_id)
    assert await client.workloads.apply(spec, request_id=request_id) == first
    with pytest.raises(errors.Conflict):
        await client.workloads.scale(spec.name, 5, request_id=request_id)


async def test_a_generation_that_has_passed_is_a_conflict(client: AsyncClient, spec: Workload) -> None:
    document = (await client.workloads.apply(spec)).workload
    await client.workloads.scale(spec.name, 3)
    with pytest.raises(errors.Conflict):
        await client.workloads.apply(document, if_generation=1)


async def test_a_dry_run_leaves_nothing(client: AsyncClient, spec: Workload) -> None:
    assert (await client.workloads.apply(spec, dry_run=True)).outcome == "created"
    with pytest.raises(errors.NotFound):
        await client.workloads.get(spec.name)


async def test_a_bad_name_is_told_by_its_path(client: AsyncClient) -> None:
    for name in ("UPPER", "A/B", "Å", "X" * 10_240):
        with pytest.raises(errors.Invalid) as caught:
            await client.workloads.apply(Workload(name=name, command=("x",), cpu="10m", memory="32Mi"))
        assert "metadata.name" in [mistake.path for mistake in caught.value.mistakes]


async def test_wait_until_serving_then_gone(client: AsyncClient, spec: Workload) -> None:
    applied = await client.workloads.apply(spec)
    workload = await client.workloads.wait(applied, timeout=60)
    assert workload.status.counts.serving == 2
    await client.workloads.delete(spec.name)
    await client.workloads.wait(applied, until="deleted", timeout=60)
    with pytest.raises(errors.NotFound):
        await client.workloads.get(spec.name)


async def test_a_watch_shows_what_exists_and_then_each_change(client: AsyncClient, spec: Workload) -> None:
    await client.workloads.apply(spec)
    generations: list[int] = []
    async with asyncio.timeout(60), client.workloads.watch() as events:
        async for event in events:
            if event.workload.metadata.name == spec.name:
                generations.append(event.workload.metadata.generation)
                if event.type == global_pb2.EVENT_TYPE_EXISTS:
                    await client.workloads.scale(spec.name, 3)
                    await client.workloads.delete(spec.name)
                if event.type == global_pb2.EVENT_TYPE_DELETED:
                    break
    assert generations == sorted(generations)
    assert generations[0] == 1
    assert 2 in generations


async def test_pages_and_regions(client: AsyncClient, spec: Workload) -> None:
    await client.workloads.apply(spec)
    assert spec.name in [workload.metadata.name for workload in await client.workloads.list()]
    assert [region.metadata.name for region in await client.regions.list()] == ["r1"]
    assert (await client.tokens.whoami()).name
