"""The same client of two clusters: the fake one, and the real programs on a real etcd."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.cli import playground
from atoll.cli.dev_cluster import DevCluster
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection
from tests.support.etcd import need_etcd
from tests.support.fake_global import FakeCluster


@pytest.fixture(scope="session")
def dev_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """One region with one agent; how to connect as admin."""
    need_etcd()
    cluster = DevCluster(tmp_path_factory.mktemp("dev"))
    try:
        playground.start(cluster, agents=1)
        yield cluster.connection
    finally:
        cluster.stop()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.etcd)])
def real(request: pytest.FixtureRequest) -> Connection | None:
    """None for the fake. Outside of any event loop, for the real cluster is started with loops of its own."""
    connection: Connection | None = request.getfixturevalue("dev_cluster") if request.param == "real" else None
    return connection


@pytest.fixture
async def client(real: Connection | None, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with contextlib.AsyncExitStack() as stack:
        if real is None:
            fake = FakeCluster(tmp_path)
            await fake.start()
            stack.push_async_callback(fake.stop)
            connected = AsyncClient(fake.address, ca=fake.ca, token=fake.token, tenant="default")
        else:
            connected = AsyncClient(
                real.address, ca=real.ca, certificate=real.certificate, key=real.key, tenant=real.tenant
            )
        yield await stack.enter_async_context(connected)
