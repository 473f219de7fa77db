"""History is forgotten behind a leader: never too early, in the end, and through an unavailable store."""

import asyncio
from contextlib import suppress

from atoll.compaction import STEPS, compact_behind
from atoll.store.faulty import Faults, FaultyStore
from atoll.store.memory import MemoryState, MemoryStore
from atoll.store.store import Put, Store, Txn
from tests.support import virtual_time
from tests.support.virtual_time import VirtualClock

HISTORY_S = 120


async def _write_for(state: MemoryState, seconds: int) -> dict[int, int]:
    """One revision a second; which one was the newest at each second."""
    newest = {}
    for second in range(seconds):
        state.transact(Txn(success=(Put(b"/r/eu/x", b"%d" % second),)))
        newest[second] = state.revision
        await asyncio.sleep(1)
    return newest


async def _compacted_after(store: Store, state: MemoryState, seconds: int) -> tuple[dict[int, int], int]:
    compacting = asyncio.create_task(compact_behind(store, HISTORY_S))
    newest = await _write_for(state, seconds)
    compacting.cancel()
    with suppress(asyncio.CancelledError):
        await compacting
    return newest, state.compacted


def test_nothing_younger_than_the_history_is_forgotten_and_the_rest_is() -> None:
    state = MemoryState()
    newest, compacted = virtual_time.run(_compacted_after(MemoryStore(state, VirtualClock()), state, 400))
    assert newest[399 - HISTORY_S - HISTORY_S // STEPS] <= compacted <= newest[399 - HISTORY_S]


def test_a_history_that_is_not_full_yet_is_kept_whole() -> None:
    state = MemoryState()
    _, compacted = virtual_time.run(_compacted_after(MemoryStore(state, VirtualClock()), state, HISTORY_S - 1))
    assert compacted == 0


def test_two_leaders_of_one_store_and_a_store_that_often_fails() -> None:
    state = MemoryState()
    store = FaultyStore(MemoryStore(state, VirtualClock()), Faults(seed=1, unavailable=0.5))

    async def both() -> int:
        other = asyncio.create_task(compact_behind(MemoryStore(state, VirtualClock()), HISTORY_S))
        _, compacted = await _compacted_after(store, state, 2_000)
        assert not other.done()
        other.cancel()
        return compacted

    assert virtual_time.run(both()) > 0
