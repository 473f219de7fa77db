"""The etcd adapter while its members die, fall silent, fill up or forget. Real members, real signals."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from atoll.api.etcd import etcd_pb2
from atoll.lane import Authority, Committed, Lane, Plan, Rejected
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import (
    Applied,
    Batch,
    Compacted,
    NotSent,
    Put,
    Refused,
    StoreError,
    StoreUnavailable,
    Txn,
    Unknown,
    list_all,
)
from tests.support.etcd import EtcdCluster, free_ports
from tests.support.pki import Pki
from tests.support.wait import until

pytestmark = pytest.mark.etcd
IDLE_S = 0.5


def put(name: str, value: bytes = b"v") -> Txn:
    return Txn(success=(Put(b"/f/" + name.encode(), value),))


@asynccontextmanager
async def connected(cluster: EtcdCluster) -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.connect(cluster.endpoints, watch_idle_s=IDLE_S)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def following(store: EtcdStore, start: int, *, prefix: bytes = b"/f/") -> AsyncIterator[list[Batch]]:
    """The batches a watch brings, as a list that grows."""
    seen: list[Batch] = []

    async def follow() -> None:
        async with store.watch(prefix, start_revision=start) as batches:
            async for batch in batches:
                seen.append(batch)  # noqa: PERF401 - it grows while the watch goes on

    task = asyncio.create_task(follow())
    try:
        yield seen
    finally:
        task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            raise outcome


@pytest.fixture
def three() -> Iterator[EtcdCluster]:
    with EtcdCluster(3, fsync=False) as cluster:
        yield cluster


def changed(batches: list[Batch]) -> list[int]:
    return [batch.revision for batch in batches if batch.changes]


# ---- writes


async def test_a_dead_member_was_not_sent_to(etcd: EtcdCluster) -> None:
    async with connected(etcd) as store:
        before = await applied(store, put("a"))
        etcd.kill(0)
        outcomes = [await store.transact(put("a")) for _ in range(20)]
        assert isinstance(outcomes[-1], NotSent)
        assert all(isinstance(outcome, NotSent | Unknown) for outcome in outcomes)
        with pytest.raises(StoreUnavailable):
            await store.get(b"/f/a", deadline_s=0.5)
        await asyncio.to_thread(etcd.restart, 0)
        item, _ = await store.get(b"/f/a", deadline_s=30.0)
        assert item is not None
        unknown = sum(isinstance(outcome, Unknown) for outcome in outcomes)
        assert before.revision <= item.mod_revision <= before.revision + unknown
        await applied(store, put("a"))


async def test_a_silent_member_leaves_the_outcome_unknown_and_a_seal_settles_it(etcd: EtcdCluster) -> None:
    """The request waits in the member's socket: whether it is done after all is open, until the seal."""
    root = keys.region_root("eu")
    async with connected(etcd) as store:
        won = await applied(store, Txn(success=(Put(keys.leader(root), b""),)))
        lane = Lane(Authority(root, won.revision), 0, 0)
        for n in range(6):
            plan = Plan("BIND", writes=(Put(root + b"%d" % n, b""),))
            etcd.pause(0)
            outcome = await store.transact(lane.begin(plan), deadline_s=0.2)
            assert isinstance(outcome, Unknown)
            etcd.resume(0)
            settled = lane.settle(outcome)
            while isinstance(settled, Txn):
                settled = lane.settle(await store.transact(settled))
            item, _ = await store.get(root + b"%d" % n, deadline_s=30.0)
            if item:
                assert settled == Committed(item.mod_revision)
            else:
                assert settled == Rejected("sealed")


async def test_a_full_database_leaves_the_outcome_unknown() -> None:
    with EtcdCluster(fsync=False, flags=("--quota-backend-bytes=200000",)) as cluster:
        async with connected(cluster) as store:
            outcome = await store.transact(put("a", bytes(20_000)))
            async with asyncio.timeout(30):
                while isinstance(outcome, Applied):
                    outcome = await store.transact(put("a", bytes(20_000)), deadline_s=30.0)
            assert isinstance(outcome, Unknown) and "database space exceeded" in outcome.message


async def test_etcd_itself_never_refuses_for_size_what_was_counted_as_fitting(etcd: EtcdCluster) -> None:
    """At the limit: one byte more is refused here, and what is sent is accepted there."""
    async with connected(etcd) as store:
        low, high = 1_000_000, 2_000_000
        while high - low > 1:
            middle = (low + high) // 2
            if isinstance(await store.transact(put("a", bytes(middle)), deadline_s=30.0), Refused):
                high = middle
            else:
                low = middle
        await applied(store, put("a", bytes(low)))


# ---- reads and leases


async def test_reads_and_leases_go_on_with_the_next_member(three: EtcdCluster) -> None:
    async with connected(three) as store:
        await applied(store, put("a"))
        lease = await store.grant(60)
        leader = await asyncio.to_thread(three.leader)
        for index in (leader, (leader + 1) % 3):
            three.pause(index)
            try:
                assert (await store.get(b"/f/a", deadline_s=12.0))[0] is not None
                assert await store.keep_alive(lease.id, deadline_s=12.0) == 60
                assert (await store.status(deadline_s=1.5)).members == 2
            finally:
                three.resume(index)


async def test_writes_leave_a_silent_member_after_one_unknown_outcome(three: EtcdCluster) -> None:
    leader = await asyncio.to_thread(three.leader)
    follower = (leader + 1) % 3
    endpoints = [three.endpoints[follower], three.endpoints[leader]]
    store = await EtcdStore.connect(endpoints)
    await applied(store, put("a"))
    three.pause(follower)
    outcomes = [await store.transact(put("a"), deadline_s=deadline_s) for deadline_s in (0.5, 30.0, 30.0)]
    three.resume(follower)
    await store.close()
    assert [type(outcome) for outcome in outcomes] == [Unknown, Applied, Applied]


# ---- watches


async def test_a_watch_goes_on_after_its_member_was_killed(etcd: EtcdCluster) -> None:
    async with connected(etcd) as store, following(store, 1) as seen:
        await applied(store, put("a"))
        await until(lambda: changed(seen) == [2], 60.0)
        etcd.kill(0)
        await asyncio.to_thread(etcd.restart, 0)
        await until_applied(store, put("b"))
        await until_applied(store, put("c"))
        await until(lambda: len(changed(seen)) == 3, 60.0)
        assert changed(seen) == [2, 3, 4]


async def test_a_watch_leaves_a_silent_member(three: EtcdCluster) -> None:
    for index in range(3):
        others = [three.endpoints[i] for i in range(3) if i != index]
        store = await EtcdStore.connect([three.endpoints[index], *others], watch_idle_s=IDLE_S)
        began = (await store.status()).revision
        async with following(store, began + 1) as seen:
            await until_applied(store, put("a"))
            await until(lambda: len(changed(seen)) == 1, 60.0)
            three.pause(index)
            try:
                await until_applied(store, put("a"))
                await until(lambda: len(changed(seen)) == 2, 60.0)
            finally:
                three.resume(index)
        await store.close()


async def test_a_watch_cut_off_over_a_compaction_says_so(etcd: EtcdCluster) -> None:
    async with connected(etcd) as store, connected(etcd) as other:
        await applied(store, put("a"))
        async with asyncio.timeout(30), store.watch(b"/f/", start_revision=1) as batches:
            assert (await anext(batches)).revision == 2
            etcd.kill(0)
            await asyncio.to_thread(etcd.restart, 0)
            for _ in range(3):
                await until_applied(other, put("a"))
            newest = (await other.get(b"/f/a"))[1]
            await other.compact(newest)
            with pytest.raises(Compacted) as raised:
                await anext(batches)
        assert raised.value.revision == newest


async def test_an_idle_watch_reports_progress() -> None:
    """By etcd's own notifications: 3.4.23 answers requests out of order."""
    with EtcdCluster(fsync=False, flags=("--experimental-watch-progress-notify-interval=200ms",)) as cluster:
        async with connected(cluster) as store, following(store, 1) as seen:
            for n in range(5):
                await applied(store, Txn(success=(Put(b"/elsewhere", b"%d" % n),)))
            await until(lambda: seen and seen[-1].revision == 6, 60.0)
            assert changed(seen) == []
            await applied(store, put("a"))
            await until(lambda: changed(seen) == [7], 60.0)


async def test_a_slow_reader_loses_nothing(etcd: EtcdCluster) -> None:
    async with connected(etcd) as store:
        for _ in range(40):
            await applied(store, Txn(success=tuple(Put(b"/f/%d" % i, bytes(8_000)) for i in range(100))))
        revisions: list[int] = []
        async with asyncio.timeout(60), store.watch(b"/f/", start_revision=1) as batches:
            async for batch in batches:
                assert len(batch.changes) == 100
                revisions.append(batch.revision)
                await asyncio.sleep(0.01)
                if batch.revision == 41:
                    break
        assert revisions == list(range(2, 42))


@pytest.mark.slow
async def test_a_watch_under_kills_and_pauses_brings_each_revision_once(three: EtcdCluster) -> None:
    """A writer goes on while members die and fall silent; the watch's history is the store's."""
    draw, stop = random.Random(5), asyncio.Event()

    async def write(store: EtcdStore) -> None:
        n = 0
        while not stop.is_set():
            n += 1
            outcome = await store.transact(put(str(n % 20), b"%d" % n), deadline_s=0.5)
            if isinstance(outcome, NotSent):
                await asyncio.sleep(0.02)

    async with connected(three) as writing, connected(three) as store, following(store, 1) as seen:
        writer = asyncio.create_task(write(writing))
        for _ in range(6):
            index = draw.randrange(3)
            if draw.random() < 0.5:
                three.kill(index)
                await until_grown(seen)
                await asyncio.to_thread(three.restart, index)
            else:
                three.pause(index)
                await until_grown(seen)
                three.resume(index)
        stop.set()
        await writer
        await until_applied(writing, put("last"))
        last = (await store.get(b"/f/last"))[1]
        await until(lambda: seen[-1].revision >= last, 30.0)
        final = {item.key: item for item in (await list_all(store, b"/f/", revision=last)).items}
    seen = [batch for batch in seen if batch.revision <= last]  # a write of unknown outcome may still come after it
    truth: list[Batch] = []
    async with connected(three) as fresh, fresh.watch(b"/f/", start_revision=1) as batches:
        async for batch in batches:
            truth.append(batch)
            if batch.revision >= last:
                break
    assert [batch for batch in seen if batch.changes] == [batch for batch in truth if batch.changes]
    assert {c.key: c.item for batch in seen for c in batch.changes} == final
    assert len(truth) > 300


async def applied(store: EtcdStore, txn: Txn) -> Applied:
    """Sent once, with time enough for a busy machine."""
    outcome = await store.transact(txn, deadline_s=30.0)
    assert isinstance(outcome, Applied), outcome
    return outcome


async def until_grown(seen: list[Batch]) -> None:
    """Until fifty more have come: the watch and the writer both go on."""
    enough = len(seen) + 50
    await until(lambda: len(seen) >= enough, 60.0)


async def until_applied(store: EtcdStore, txn: Txn) -> None:
    """Sends until it is applied; only for puts that may be done twice."""
    async with asyncio.timeout(60):
        while not isinstance(await store.transact(txn, deadline_s=1.0), Applied):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# ---- connecting


async def test_nobody_answers() -> None:
    (port,) = free_ports(1)
    with pytest.raises(StoreUnavailable):
        await EtcdStore.connect([f"127.0.0.1:{port}"], deadline_s=0.5)
    with pytest.raises(ValueError, match="no etcd endpoint"):
        await EtcdStore.connect([])


async def test_a_store_that_comes_up_later_is_waited_for(etcd: EtcdCluster) -> None:
    etcd.kill(0)
    connecting = asyncio.create_task(EtcdStore.connect(etcd.endpoints, deadline_s=30.0))
    await asyncio.to_thread(etcd.restart, 0)
    store = await connecting
    assert (await store.status()).members == 1
    await store.close()


async def test_a_bad_version_is_refused_with_the_reason() -> None:
    async def status(request: etcd_pb2.StatusRequest, context: object) -> etcd_pb2.StatusResponse:
        return etcd_pb2.StatusResponse(version="3.5.1", header=etcd_pb2.ResponseHeader(revision=1))

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        status, etcd_pb2.StatusRequest.FromString, etcd_pb2.StatusResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("etcdserverpb.Maintenance", {"Status": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(StoreError, match="lose committed data"):
        await EtcdStore.connect([f"127.0.0.1:{port}"])
    await server.stop(0)


async def test_tls_both_ways(tmp_path: Path) -> None:
    pki, stranger = Pki(tmp_path / "ours"), Pki(tmp_path / "theirs")
    with EtcdCluster(tls=pki.global_plane()) as cluster:
        store = await EtcdStore.connect([f"https://{e}" for e in cluster.endpoints], tls=pki.region("eu"))
        await applied(store, put("a"))
        await store.close()
        for wrong in (None, stranger.global_plane()):
            with pytest.raises(StoreUnavailable):
                await EtcdStore.connect(cluster.endpoints, tls=wrong, deadline_s=0.5)


async def test_closing_ends_the_calls_under_way(etcd: EtcdCluster) -> None:
    """They get an outcome, not a cancellation that nobody asked for."""
    store = await EtcdStore.connect(etcd.endpoints)
    etcd.pause(0)
    writing = asyncio.create_task(store.transact(put("a"), deadline_s=30.0))
    reading = asyncio.create_task(store.get(b"/f/a", deadline_s=30.0))
    await asyncio.wait({writing, reading}, timeout=0.2)
    await store.close()
    etcd.resume(0)
    assert isinstance(await writing, Unknown)
    with pytest.raises(StoreUnavailable, match="closed"):
        await reading


async def test_a_closed_store_says_so(etcd: EtcdCluster) -> None:
    store = await EtcdStore.connect(etcd.endpoints)
    await store.close()
    assert await store.transact(put("a")) == NotSent("the store is closed")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.get(b"/f/a")
    with pytest.raises(StoreUnavailable, match="closed"):
        async with store.watch(b"/f/", start_revision=1) as batches:
            await anext(batches)
