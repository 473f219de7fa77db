"""The random-program comparison, short; `python -m tests.contracts.store.compare` runs the long one."""

import os

import pytest

from atoll.store.etcd import EtcdStore
from atoll.store.faulty import Fault, FaultyStore
from atoll.store.memory import MemoryStore
from tests.contracts.store.compare import compare
from tests.support.etcd import EtcdCluster

OPERATIONS = int(os.environ.get("ATOLL_STORE_COMPARE_OPS", "5000"))


@pytest.mark.etcd
@pytest.mark.timeout(60 + OPERATIONS // 200)
async def test_memory_and_etcd_give_the_same_answers() -> None:
    with EtcdCluster(fsync=False) as cluster:
        etcd = await EtcdStore.connect(cluster.endpoints)
        result = await compare(MemoryStore(), etcd, operations=OPERATIONS, seed=7)
        await etcd.close()
    assert result.differences == []
    assert result.operations == OPERATIONS
    assert result.revisions > OPERATIONS / 4, "the program hardly wrote"


async def test_the_comparison_finds_a_difference() -> None:
    """One transaction of hundreds that was lost, answered as if unknown, ends the comparison."""
    other = FaultyStore(MemoryStore())
    other.inject(*[None] * 200, Fault.LOST)
    result = await compare(MemoryStore(), other, operations=1_000, seed=7)
    assert result.differences and result.operations < 1_000
