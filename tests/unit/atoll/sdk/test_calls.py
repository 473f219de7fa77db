"""A call when one of its servers stands still: connections are accepted there, and nothing is ever said."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from atoll.sdk import calls
from atoll.sdk.client import AsyncClient
from tests.support.fake_global import FakeCluster
from tests.unit.atoll.sdk.test_client import HELLO


@pytest.fixture
def frozen() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
async def between(frozen: str, cluster: FakeCluster) -> AsyncIterator[AsyncClient]:
    addresses = f"{frozen} {cluster.address}"
    async with AsyncClient(addresses, ca=cluster.ca, token=cluster.token, tenant="default") as client:
        yield client


async def test_the_next_one_is_asked_in_time(between: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "TURN_S", 0.2)
    assert (await between.workloads.apply(HELLO)).outcome == "created"


async def test_a_caller_without_patience_is_not_led_back_to_it(
    between: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TURN_S", 60.0)
    monkeypatch.setattr(calls, "SILENT_S", 0.1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await between.workloads.apply(HELLO)
    async with asyncio.timeout(10):
        assert (await between.workloads.apply(HELLO)).outcome == "created"
