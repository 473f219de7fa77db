"""The back ends that must keep the store contract, each as a fresh client and a prefix nobody else uses."""

import itertools
from collections.abc import AsyncIterator

import pytest

from atoll.store.etcd import EtcdStore
from atoll.store.faulty import FaultyStore
from atoll.store.memory import MemoryStore
from atoll.store.store import Store
from tests.contracts.store.place import Place
from tests.support.etcd import EtcdCluster

_numbers = itertools.count()


@pytest.fixture(params=["memory", "faulty", pytest.param("etcd", marks=pytest.mark.etcd)])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    store: Store
    if request.param == "etcd":
        cluster: EtcdCluster = request.getfixturevalue("session_etcd")
        store = await EtcdStore.connect(cluster.endpoints, watch_idle_s=0.5)
    else:
        store = MemoryStore() if request.param == "memory" else FaultyStore(MemoryStore())
    began = (await store.status()).revision
    yield Place(store, b"/contract/%d/" % next(_numbers), began)
    await store.close()
