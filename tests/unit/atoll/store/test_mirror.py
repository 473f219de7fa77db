"""The mirror is the store's content at its revision, whatever the watch does; what the watch lost is counted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from atoll.store.faulty import Faults, FaultyStore
from atoll.store.memory import MemoryState, MemoryStore
from atoll.store.mirror import Mirror
from atoll.store.store import Batch, Delete, KeyValue, Put, Store, StoreError, Txn, list_all
from tests.support.wait import until


@asynccontextmanager
async def running(mirror: Mirror) -> AsyncIterator[Mirror]:
    task = asyncio.create_task(mirror.run())
    try:
        yield mirror
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def put(store: Store, name: str, value: bytes = b"v") -> int:
    outcome = await store.transact(Txn(success=(Put(b"/m/" + name.encode(), value),)))
    return outcome.revision  # type: ignore[union-attr]


async def delete(store: Store, name: str) -> int:
    outcome = await store.transact(Txn(success=(Delete(b"/m/" + name.encode()),)))
    return outcome.revision  # type: ignore[union-attr]


async def content(store: Store) -> dict[bytes, KeyValue]:
    return {item.key: item for item in (await list_all(store, b"/m/")).items}


async def test_it_lists_then_follows() -> None:
    store, heard = MemoryStore(), list[Batch]()
    await put(store, "a")
    await store.transact(Txn(success=(Put(b"/other", b""),)))
    async with running(Mirror(store, b"/m/", heard.append)) as mirror, asyncio.timeout(10):
        await mirror.reached(3)
        assert [change.key for change in heard[0].changes] == [b"/m/a"] and heard[0].revision == 3
        await put(store, "b")
        await delete(store, "a")
        await mirror.reached(await put(store, "b", b"2"))
        assert mirror.items == await content(store)
        assert [batch.revision for batch in heard] == [3, 4, 5, 6]


async def test_progress_moves_the_revision_without_changes() -> None:
    store = MemoryStore()
    async with running(Mirror(store, b"/m/")) as mirror, asyncio.timeout(10):
        await mirror.reached(1)
        await store.transact(Txn(success=(Put(b"/other", b""),)))
        await mirror.reached(2)
        assert mirror.items == {}


async def test_after_a_compaction_it_lists_again_and_tells_the_difference() -> None:
    state, heard = MemoryState(), list[Batch]()
    store = FaultyStore(MemoryStore(state), Faults(seed=4, watch_compacted=0.5))
    for name in ("a", "b", "c"):
        await put(store, name)
    async with running(Mirror(store, b"/m/", heard.append)) as mirror, asyncio.timeout(10):
        for n in range(100):
            await put(store, "abcdef"[n % 6], b"%d" % n)
            revision = await delete(store, "abcdef"[n % 5])
        await mirror.reached(revision)
        assert mirror.items == await content(store)
    replayed: dict[bytes, KeyValue] = {}
    for batch in heard:
        for change in batch.changes:
            if change.item is None:
                del replayed[change.key]
            else:
                replayed[change.key] = change.item
    assert replayed == mirror.items and mirror.differences == 0


async def test_a_resync_finds_counts_and_repairs_what_the_watch_lost() -> None:
    heard: list[Batch] = []
    store = FaultyStore(MemoryStore(), Faults(seed=1, watch_skip=0.3))
    async with running(Mirror(store, b"/m/", heard.append, resync_s=0.05)) as mirror:
        await until(lambda: mirror.revision == 1)
        for n in range(60):
            await put(store, str(n % 9), b"%d" % n)
            await asyncio.sleep(0)
        await delete(store, "3")
        expected = await content(store)
        await until(lambda: mirror.items == expected)
        assert mirror.differences > 0 and mirror.resyncs > 0
        assert [batch.revision for batch in heard] == sorted(batch.revision for batch in heard)


async def test_a_sound_watch_has_no_differences() -> None:
    store = FaultyStore(MemoryStore(), Faults(watch_delay_s=0.005))
    async with running(Mirror(store, b"/m/", resync_s=0.01)) as mirror:
        for n in range(100):
            await put(store, str(n % 7), b"%d" % n)
            await asyncio.sleep(0)
        await until(lambda: mirror.resyncs >= 5 and mirror.revision == 101)
        assert mirror.differences == 0


async def test_a_repeated_batch_does_no_harm() -> None:
    store = FaultyStore(MemoryStore(), Faults(seed=2, watch_repeat=0.5))
    async with running(Mirror(store, b"/m/")) as mirror, asyncio.timeout(10):
        await mirror.reached(1)
        for n in range(50):
            await put(store, "a")
            revision = await delete(store, "a") if n % 2 else await put(store, "b")
        await mirror.reached(revision)
        assert mirror.items == await content(store)


async def test_an_unavailable_store_is_asked_again() -> None:
    store = FaultyStore(MemoryStore(), Faults(seed=1, unavailable=0.7))
    await put(store, "a")
    async with running(Mirror(store, b"/m/")) as mirror, asyncio.timeout(20):
        await mirror.reached(2)
        assert list(mirror.items) == [b"/m/a"]


async def test_a_store_that_went_back_is_not_followed() -> None:
    """After a restore the revision is lower: the mirror ends with an error rather than wait for ever."""
    state = MemoryState()
    mirror = Mirror(MemoryStore(state), b"/m/", resync_s=0.02)
    task = asyncio.create_task(mirror.run())
    await mirror.reached(1)
    mirror.revision = 1_000
    with pytest.raises(StoreError, match="future"):
        await asyncio.wait_for(task, 10)
