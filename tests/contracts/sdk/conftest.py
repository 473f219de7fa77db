"""Both faces of the client on two clusters: the fake one, and the real programs on a real etcd."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import pytest

from atoll.cli import playground
from atoll.cli.dev_cluster import DevCluster
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection
from atoll.sdk.sync.client import Client
from tests.support.etcd import need_etcd
from tests.support.fake_global import FakeCluster
from tests.support.sync_face import SyncFace


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


@pytest.fixture(params=["async", "sync"])
async def client(request: pytest.FixtureRequest, real: Connection | None, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """Either face; the tests see no difference."""
    async with contextlib.AsyncExitStack() as stack:
        if real is None:
            fake = FakeCluster(tmp_path)
            await fake.start()
            stack.push_async_callback(fake.stop)
            real = Connection(fake.address, ca=str(fake.ca), token=fake.token, tenant="default")
        how = {name: getattr(real, name) for name in ("ca", "token", "certificate", "key", "tenant")}
        if request.param == "async":
            yield await stack.enter_async_context(AsyncClient(real.address, **how))
        else:
            sync = await asyncio.to_thread(Client, real.address, **how)
            stack.push_async_callback(asyncio.to_thread, sync.close)
            yield cast(AsyncClient, SyncFace(sync))
