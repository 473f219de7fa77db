"""Each injected fault is what its name says, and a seed fixes them all."""

import pytest

from atoll.store.faulty import Fault, Faults, FaultyStore
from atoll.store.memory import MemoryStore
from atoll.store.store import Applied, Batch, Compacted, NotSent, Put, Refusal, Refused, StoreUnavailable, Txn, Unknown


def put(key: bytes) -> Txn:
    return Txn(success=(Put(key, b""),))


async def test_outcomes_and_what_happened() -> None:
    store = FaultyStore(MemoryStore())
    store.inject(Fault.NOT_SENT, Fault.LOST, Fault.UNANSWERED, Fault.BUSY, None)
    outcomes = [await store.transact(put(b"/%d" % n)) for n in range(6)]
    assert [type(outcome) for outcome in outcomes] == [NotSent, Unknown, Unknown, Refused, Applied, Applied]
    assert isinstance(outcomes[3], Refused) and outcomes[3].refusal is Refusal.BUSY
    there = [n for n in range(6) if (await store.get(b"/%d" % n))[0]]
    assert there == [2, 4, 5]
    assert store.injected == {**dict.fromkeys(Fault, 1), Fault.LATE: 0}


async def test_a_late_transaction_applies_within_its_calls() -> None:
    store = FaultyStore(MemoryStore(), Faults(late_calls=3))
    store.inject(Fault.LATE)
    assert isinstance(await store.transact(put(b"/late")), Unknown)
    assert (await store.get(b"/late"))[0] is None
    for n in range(3):
        await store.transact(put(b"/%d" % n))
    assert (await store.get(b"/late"))[0] is not None


async def test_what_is_under_way_can_be_made_to_arrive() -> None:
    store = FaultyStore(MemoryStore())
    store.inject(Fault.LATE)
    await store.transact(put(b"/late"))
    await store.apply_late()
    item, revision = await store.get(b"/late")
    assert item is not None
    await store.apply_late()
    assert (await store.get(b"/late")) == (item, revision)


async def test_a_seed_is_one_history() -> None:
    async def run(seed: int) -> list[str]:
        faults = Faults(seed, not_sent=0.2, lost=0.2, unanswered=0.2, late=0.2, busy=0.1)
        store = FaultyStore(MemoryStore(), faults)
        return [repr(await store.transact(put(b"/%d" % n))) for n in range(200)]

    assert await run(1) == await run(1) != await run(2)


async def test_rates_are_rates() -> None:
    store = FaultyStore(MemoryStore(), Faults(seed=3, lost=0.25, late=0.25))
    outcomes = [await store.transact(put(b"/a")) for _ in range(2_000)]
    assert 900 < sum(isinstance(outcome, Unknown) for outcome in outcomes) < 1_100
    assert 400 < store.injected[Fault.LOST] < 600 and 400 < store.injected[Fault.LATE] < 600


async def test_reads_may_be_unavailable() -> None:
    store = FaultyStore(MemoryStore(), Faults(unavailable=1.0))
    with pytest.raises(StoreUnavailable):
        await store.get(b"/a")
    with pytest.raises(StoreUnavailable):
        await store.range(b"/", b"0")
    with pytest.raises(StoreUnavailable):
        await store.grant(5)


async def watched(faults: Faults, count: int) -> list[int]:
    store = FaultyStore(MemoryStore(), faults)
    for _ in range(60):
        await store.transact(put(b"/a"))
    revisions = []
    async with store.watch(b"/", start_revision=1) as batches:
        async for batch in batches:
            revisions.append(batch.revision)
            if len(revisions) == count:
                break
    return revisions


async def test_watches_may_repeat_skip_and_be_late() -> None:
    assert await watched(Faults(watch_repeat=1.0), 6) == [2, 2, 3, 3, 4, 4]
    assert len(set(await watched(Faults(seed=5, watch_skip=0.5), 8))) == 8
    assert await watched(Faults(seed=5, watch_skip=0.5), 8) != list(range(2, 10))
    assert await watched(Faults(watch_delay_s=0.001), 3) == [2, 3, 4]


async def test_watches_may_be_compacted() -> None:
    with pytest.raises(Compacted):
        await watched(Faults(watch_compacted=1.0), 1)


async def test_without_faults_it_is_the_store() -> None:
    store = FaultyStore(MemoryStore())
    assert await store.transact(put(b"/a")) == Applied(2)
    async with store.watch(b"/", start_revision=1) as batches:
        assert isinstance(await anext(batches), Batch)
