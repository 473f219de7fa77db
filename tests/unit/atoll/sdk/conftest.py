"""A client of an in-memory cluster."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.sdk.client import AsyncClient
from tests.support.fake_global import FakeCluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeCluster]:
    fake = FakeCluster(tmp_path)
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def client(cluster: FakeCluster) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(cluster.address, ca=cluster.ca, token=cluster.token, tenant="default") as connected:
        yield connected
