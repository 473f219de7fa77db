"""A local copy of everything under one prefix, and the revision up to which it is complete.

Decides when to list, follow, list again and compare. Invariants: `items` is the store's content at `revision`, or the
store lost an event, which the periodic resync then finds, counts and repairs; `revision` never goes back; a change is
in `items` before the callback hears of it. Nothing that matters may rest on it: it is late by nature.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType

from atoll.store.store import (
    Batch,
    Change,
    Compacted,
    KeyValue,
    Read,
    Store,
    StoreUnavailable,
    list_all,
)

_PAUSE_S = 0.2  # after the store did not answer


class Mirror:
    """`run` in a task of its own. `on_batch` hears every change once, as batches with rising revisions (a listing is
    one batch of what differs), and progress; it must not raise."""

    def __init__(
        self,
        store: Store,
        prefix: bytes,
        on_batch: Callable[[Batch], None] = lambda batch: None,
        *,
        resync_s: float = 300.0,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._on_batch = on_batch
        self._resync_s = resync_s
        self._items: dict[bytes, KeyValue] = {}
        self._moved = asyncio.Condition()
        self.items: Mapping[bytes, KeyValue] = MappingProxyType(self._items)
        self.revision = 0  # complete up to here; 0 before the first listing
        self.resyncs = 0
        self.differences = 0  # keys that a resync found wrong; should stay 0

    async def run(self) -> None:
        """Never returns. Raises StoreError when the store refuses to be read."""
        while True:
            try:
                await self._advance(self._relisted(await list_all(self._store, self._prefix)))
                await self._follow()
            except Compacted:
                continue
            except StoreUnavailable:
                await asyncio.sleep(_PAUSE_S)

    async def reached(self, revision: int) -> None:
        """Waits until the copy is complete up to `revision`."""
        async with self._moved:
            await self._moved.wait_for(lambda: self.revision >= revision)

    async def _follow(self) -> None:
        """Applies what the watch brings and resyncs when it is time. Ends only by raising."""
        resync_at_s = time.monotonic() + self._resync_s
        async with self._store.watch(self._prefix, start_revision=self.revision + 1) as batches:
            coming = asyncio.ensure_future(_next(batches))  # a task, since a timeout would end the iterator
            try:
                while True:
                    if (left_s := resync_at_s - time.monotonic()) <= 0:
                        await self._resync()
                        resync_at_s = time.monotonic() + self._resync_s
                    elif (await asyncio.wait({coming}, timeout=left_s))[0]:
                        batch = coming.result()
                        coming = asyncio.ensure_future(_next(batches))
                        await self._advance(batch)
            finally:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _resync(self) -> None:
        """Lists the store at the copy's own revision, so that any difference is an event lost. Raises Compacted when
        that revision is gone: the full listing that follows repairs, but cannot tell lost from late."""
        differing = self._relisted(await list_all(self._store, self._prefix, revision=self.revision))
        self.resyncs += 1
        self.differences += len(differing.changes)
        if differing.changes:
            await self._advance(differing)

    def _relisted(self, listing: Read) -> Batch:
        """What the listing changes in the copy."""
        listed = {item.key: item for item in listing.items}
        gone = (Change(key, None, before) for key, before in self._items.items() if key not in listed)
        new = (Change(key, item, self._items.get(key)) for key, item in listed.items() if self._items.get(key) != item)
        return Batch(listing.revision, (*gone, *new))

    async def _advance(self, batch: Batch) -> None:
        if batch.revision < self.revision:
            return  # a listing from a member behind, or an event delivered twice: the copy is newer
        for change in batch.changes:
            if change.item is None:
                self._items.pop(change.key, None)
            else:
                self._items[change.key] = change.item
        self.revision = batch.revision
        self._on_batch(batch)
        async with self._moved:
            self._moved.notify_all()


async def _next(batches: AsyncIterator[Batch]) -> Batch:
    return await anext(batches)
