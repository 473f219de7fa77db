"""The store contract of ranges, watches, compaction and leases, point by point, on every back end."""

import asyncio

import pytest

from atoll.store.store import (
    MAX_OPERATIONS,
    Batch,
    Change,
    Compacted,
    Delete,
    KeyValue,
    LeaseGone,
    Put,
    Refusal,
    StoreError,
    Txn,
    list_all,
    prefix_end,
)
from tests.contracts.store.place import Place, applied, collect, refused

# ---- ranges


async def test_ranges_are_sorted_and_paged_at_one_revision(place: Place) -> None:
    for name in ("c", "a", "b"):
        revision = await place.put(name)
    start, end = place.prefix, prefix_end(place.prefix)
    page = await place.store.range(start, end, limit=2)
    assert [item.key for item in page.items] == [place.key("a"), place.key("b")]
    assert page.more and page.revision == revision
    applied(await place.transact(Txn(success=(Delete(place.key("c")), Put(place.key("d"), b"")))))
    rest = await place.store.range(page.items[-1].key + b"\x00", end, revision=page.revision)
    assert [item.key for item in rest.items] == [place.key("c")]
    assert not rest.more and rest.revision == page.revision


async def test_keys_only_leaves_the_values_out(place: Place) -> None:
    await place.put("a", b"large")
    read = await place.store.range(place.prefix, prefix_end(place.prefix), keys_only=True)
    assert [item.value for item in read.items] == [b""]


async def test_history_is_as_it_was(place: Place) -> None:
    first = await place.put("a", b"1")
    await place.put("a", b"2")
    await place.put("b")
    applied(await place.transact(Txn(success=(Delete(place.key("a")),))))
    read = await list_all(place.store, place.prefix, revision=first)
    assert read.revision == first
    assert read.items == (KeyValue(place.key("a"), b"1", first, first, 1),)


async def test_a_revision_to_come_cannot_be_read(place: Place) -> None:
    with pytest.raises(StoreError):
        await place.store.range(place.prefix, b"", revision=await place.put("a") + 1000)


async def test_a_large_listing_arrives_whole(place: Place) -> None:
    value = bytes(50_000)
    for i in range(0, 120, 20):
        await place.transact(Txn(success=tuple(Put(place.key(f"{j:04}"), value) for j in range(i, i + 20))))
    read = await list_all(place.store, place.prefix)
    assert [item.key for item in read.items] == [place.key(f"{j:04}") for j in range(120)]
    assert all(item.value == value for item in read.items)


# ---- watches


async def test_a_watch_brings_the_past_and_what_comes(place: Place) -> None:
    first = await place.put("a", b"1")
    seen: asyncio.Queue[Batch] = asyncio.Queue()

    async def follow() -> None:
        async with place.store.watch(place.prefix, start_revision=first) as batches:
            async for batch in batches:
                if batch.changes:
                    seen.put_nowait(batch)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(20):
        assert await seen.get() == Batch(
            first, (Change(place.key("a"), KeyValue(place.key("a"), b"1", first, first, 1)),)
        )
        second = await place.put("a", b"2")
        item = KeyValue(place.key("a"), b"2", first, second, 2)
        assert await seen.get() == Batch(second, (Change(place.key("a"), item),))
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_a_batch_is_a_whole_revision_in_order_of_operations(place: Place) -> None:
    await place.put("gone")
    await place.transact(Txn(success=(Put(b"/elsewhere", b""), Put(place.key("b"), b""), Delete(place.key("gone")))))
    last = await place.put("a")
    batches = await collect(place.store, place.prefix, place.began + 1, last)
    assert [[change.key for change in batch.changes] for batch in batches] == [
        [place.key("gone")],
        [place.key("b"), place.key("gone")],
        [place.key("a")],
    ]
    assert batches[1].changes[1].item is None


async def test_a_large_revision_is_not_split(place: Place) -> None:
    puts = tuple(Put(place.key(f"{i:03}"), bytes(11_000)) for i in range(MAX_OPERATIONS))
    revisions = [applied(await place.transact(Txn(success=puts))).revision for _ in range(3)]
    batches = await collect(place.store, place.prefix, revisions[0], revisions[-1], previous=True)
    assert [batch.revision for batch in batches] == revisions
    assert [len(batch.changes) for batch in batches] == [MAX_OPERATIONS] * 3


async def test_a_long_history_arrives_in_order_each_once(place: Place) -> None:
    revisions = [await place.put(str(i % 7)) for i in range(1_500)]
    batches = await collect(place.store, place.prefix, revisions[0], revisions[-1])
    assert [batch.revision for batch in batches] == revisions


async def test_previous_comes_when_asked_for(place: Place) -> None:
    first = await place.put("a", b"1")
    second = await place.put("a", b"2")
    without = await collect(place.store, place.prefix, first, second)
    assert [batch.changes[0].previous for batch in without] == [None, None]
    batches = await collect(place.store, place.prefix, first, second, previous=True)
    before = KeyValue(place.key("a"), b"1", first, first, 1)
    assert [batch.changes[0].previous for batch in batches] == [None, before]


async def test_a_watch_from_a_revision_to_come_brings_nothing_older(place: Place) -> None:
    now = await place.put("a")
    watching = asyncio.create_task(collect(place.store, place.prefix, now + 2, now + 3))
    for name in ("b", "c", "d"):
        await place.put(name)
    assert [batch.changes[0].key for batch in await watching] == [place.key("c"), place.key("d")]


async def test_leaving_a_watch_early_is_clean(place: Place) -> None:
    revision = await place.put("a")
    before = asyncio.all_tasks()
    for _ in range(5):
        async with place.store.watch(place.prefix, start_revision=revision) as batches:
            async with asyncio.timeout(20):
                await anext(batches)
    left = asyncio.all_tasks() - before  # gRPC ends its own a moment later
    if left:
        _, running = await asyncio.wait(left, timeout=20)
        assert not running


# ---- compaction


async def test_compaction_forgets_what_was_before(place: Place) -> None:
    first = await place.put("a", b"1")
    second = await place.put("a", b"2")
    third = await place.put("b")
    await place.store.compact(second)
    with pytest.raises(Compacted):
        await place.store.range(place.prefix, b"", revision=first)
    with pytest.raises(Compacted):
        await place.store.compact(second)
    with pytest.raises(Compacted):
        await collect(place.store, place.prefix, first, third)
    at_second = await place.store.range(place.key("a"), b"", revision=second)
    assert at_second.items == (KeyValue(place.key("a"), b"2", first, second, 2),)
    assert [batch.revision for batch in await collect(place.store, place.prefix, third, third)] == [third]


async def test_what_is_to_come_cannot_be_compacted(place: Place) -> None:
    with pytest.raises(StoreError):
        await place.store.compact(await place.put("a") + 1000)


# ---- leases


async def test_a_revoked_lease_takes_its_keys_at_one_revision(place: Place) -> None:
    lease = await place.store.grant(60)
    await place.put("b", lease=lease.id)
    last = await place.put("a", lease=lease.id)
    await place.store.revoke(lease.id)
    batches = await collect(place.store, place.prefix, last + 1, last + 1)
    assert [(change.key, change.item) for change in batches[0].changes] == [
        (place.key("a"), None),
        (place.key("b"), None),
    ]
    await place.store.revoke(lease.id)
    with pytest.raises(LeaseGone):
        await place.store.keep_alive(lease.id)


async def test_a_lease_that_is_gone_cannot_be_used(place: Place) -> None:
    lease = await place.store.grant(60)
    await place.store.revoke(lease.id)
    put = Put(place.key("a"), b"", lease.id)
    refused(await place.transact(Txn(success=(Put(place.key("b"), b""), put))), Refusal.INVALID)
    assert (await place.store.get(place.key("b")))[0] is None
    applied(await place.transact(Txn(failure=(put,))))


async def test_a_put_without_the_lease_leaves_it(place: Place) -> None:
    lease = await place.store.grant(60)
    await place.put("a", lease=lease.id)
    await place.put("a")
    await place.store.revoke(lease.id)
    item, _ = await place.store.get(place.key("a"))
    assert item is not None and item.lease == 0


async def test_a_deleted_key_leaves_its_lease(place: Place) -> None:
    lease = await place.store.grant(60)
    await place.put("a", lease=lease.id)
    await place.transact(Txn(success=(Delete(place.key("a")),)))
    revision = await place.put("a")
    await place.store.revoke(lease.id)
    assert await place.store.get(place.key("a")) == (KeyValue(place.key("a"), b"v", revision, revision, 1), revision)


async def test_a_lease_says_its_real_time_to_live(place: Place) -> None:
    short, long = await place.store.grant(1), await place.store.grant(60)
    assert short.ttl_s == 2 and long.ttl_s == 60
    assert await place.store.keep_alive(long.id) == 60


async def test_an_expired_lease_takes_its_keys_and_watchers_hear_of_it(place: Place) -> None:
    lease = await place.store.grant(1)
    last = await place.put("a", lease=lease.id)
    batches = await collect(place.store, place.prefix, last + 1, last + 1)
    assert batches[0].changes == (Change(place.key("a"), None),)


async def test_status_speaks_of_the_store(place: Place) -> None:
    revision = await place.put("a")
    status = await place.store.status()
    assert (status.version.count("."), status.revision, status.members) == (2, revision, 1)
