"""Fixtures for every kind of test."""

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from atoll.store.etcd import EtcdStore
from tests.support.etcd import EtcdCluster

# How fast an example runs says something of the machine, not of the program.
settings.register_profile("atoll", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("atoll")


@pytest.fixture
def etcd() -> Iterator[EtcdCluster]:
    """A fresh single-member etcd of this test's own, as durable as production: it may be killed and restarted."""
    with EtcdCluster() as cluster:
        yield cluster


@pytest.fixture
async def etcd_store(etcd: EtcdCluster) -> AsyncIterator[EtcdStore]:
    """A client of the `etcd` fixture's server."""
    store = await EtcdStore.connect(etcd.endpoints)
    yield store
    await store.close()


@pytest.fixture(scope="session")
def session_etcd() -> Iterator[EtcdCluster]:
    """One single-member etcd for the whole run, for tests that work under keys of their own and kill nothing."""
    with EtcdCluster(fsync=False) as cluster:
        yield cluster
