"""The memory store: the Store protocol over a MemoryState. Several clients may share one state.

Decides nothing; the state does. A client's watch sleeps until the state has a new revision or a lease runs out.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

from atoll.clock import Clock, SystemClock
from atoll.store.memory_state import MemoryState
from atoll.store.store import PAGE_SIZE, Batch, KeyValue, Lease, Outcome, Read, Status, Txn

__all__ = ["MemoryState", "MemoryStore"]

VERSION = "3.4.23"  # whose semantics the state has
_PROGRESS_S = 1.0


class MemoryStore:
    """One client. The state is shared, the clock only runs its leases."""

    def __init__(self, state: MemoryState | None = None, clock: Clock | None = None) -> None:
        self.state = state or MemoryState()
        self._clock = clock or SystemClock()

    def _now(self) -> MemoryState:
        """The state as of now: leases whose time is over are gone."""
        self.state.expire(self._clock.now_ms())
        return self.state

    async def get(self, key: bytes, *, deadline_s: float = 5.0) -> tuple[KeyValue | None, int]:
        state = self._now()
        return state.get(key), state.revision

    async def range(
        self,
        key: bytes,
        range_end: bytes,
        *,
        revision: int = 0,
        limit: int = PAGE_SIZE,
        keys_only: bool = False,
        deadline_s: float = 5.0,
    ) -> Read:
        return self._now().range(key, range_end, revision=revision, limit=limit, keys_only=keys_only)

    async def transact(self, txn: Txn, *, deadline_s: float = 2.0) -> Outcome:
        return self._now().transact(txn)

    @asynccontextmanager
    async def watch(
        self, prefix: bytes, *, start_revision: int, previous: bool = False
    ) -> AsyncGenerator[AsyncIterator[Batch], None]:
        async with aclosing(self._batches(prefix, start_revision, previous)) as batches:
            yield batches

    async def _batches(self, prefix: bytes, start_revision: int, previous: bool) -> AsyncGenerator[Batch, None]:
        changed = asyncio.Event()
        following = start_revision
        told = start_revision - 1  # the last revision delivered or reported as progress
        stop_listening = self.state.listen(lambda batch: changed.set())
        try:
            while True:
                changed.clear()
                state = self._now()
                upto = state.revision
                if following <= upto:
                    for batch in list(state.batches(prefix, following, previous=previous)):
                        told = batch.revision
                        yield batch
                    following = upto + 1
                elif not await self._woken(changed) and told < upto:
                    told = upto
                    yield Batch(upto)
        finally:
            stop_listening()

    async def _woken(self, changed: asyncio.Event) -> bool:
        """Waits for a change; False when it was time to report progress."""
        expiry_ms = self.state.next_expiry_ms()
        until_expiry_s = _PROGRESS_S if expiry_ms is None else (expiry_ms - self._clock.now_ms()) / 1000
        try:
            async with asyncio.timeout(min(max(until_expiry_s, 0.001), _PROGRESS_S)):
                await changed.wait()
        except TimeoutError:
            return until_expiry_s < _PROGRESS_S
        return True

    async def grant(self, ttl_s: int, *, deadline_s: float = 2.0) -> Lease:
        return self._now().grant(ttl_s, self._clock.now_ms())

    async def keep_alive(self, lease_id: int, *, deadline_s: float = 2.0) -> int:
        return self._now().keep_alive(lease_id, self._clock.now_ms())

    async def revoke(self, lease_id: int, *, deadline_s: float = 2.0) -> None:
        self._now().revoke(lease_id)

    async def compact(self, revision: int, *, deadline_s: float = 5.0) -> None:
        self._now().compact(revision)

    async def status(self, *, deadline_s: float = 5.0) -> Status:
        state = self._now()
        return Status(VERSION, state.revision, size_bytes=0, members=1)

    async def close(self) -> None:
        """Nothing is open."""
