"""A store that fails on purpose: wraps any Store and injects faults by a seed, or the ones a test asks for.

Decides which call meets which fault. Every fault is one that a real etcd can show: what it answers keeps the Store
protocol, but for `watch_skip` and `watch_repeat`, which are etcd's own known bugs and off unless asked for. With all
rates 0 it is the wrapped store.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import Enum

from atoll.store.store import (
    PAGE_SIZE,
    Batch,
    Compacted,
    KeyValue,
    Lease,
    NotSent,
    Outcome,
    Read,
    Refusal,
    Refused,
    Status,
    Store,
    StoreUnavailable,
    Txn,
    Unknown,
)


class Fault(Enum):
    """What can happen to one transaction."""

    NOT_SENT = "not sent"
    LOST = "unknown, never applied"
    UNANSWERED = "unknown, applied at once"
    LATE = "unknown, applied after later calls"
    BUSY = "refused as busy"


@dataclass(frozen=True, slots=True)
class Faults:
    """Probabilities between 0 and 1, each drawn for each call; the seed fixes every draw."""

    seed: int = 0
    not_sent: float = 0.0
    lost: float = 0.0
    unanswered: float = 0.0
    late: float = 0.0
    late_calls: int = 5  # a late transaction applies within that many later transactions
    busy: float = 0.0
    unavailable: float = 0.0  # reads, leases, compaction, status
    delay_s: float = 0.0  # every call waits up to this long first
    watch_delay_s: float = 0.0  # every batch is up to this late; order is kept
    watch_compacted: float = 0.0  # per batch: Compacted is raised in its place
    watch_skip: float = 0.0
    watch_repeat: float = 0.0


@dataclass(slots=True)
class _Late:
    txn: Txn
    calls_left: int


class FaultyStore:
    def __init__(self, store: Store, faults: Faults | None = None) -> None:
        self._store = store
        self._faults = faults or Faults()
        self._random = random.Random(self._faults.seed)
        self._asked_for: deque[Fault | None] = deque()
        self._late: list[_Late] = []
        self.injected: dict[Fault, int] = dict.fromkeys(Fault, 0)

    def inject(self, *faults: Fault | None) -> None:
        """The next transactions meet these, in order (None: no fault), whatever the rates say."""
        self._asked_for.extend(faults)

    async def apply_late(self) -> None:
        """Applies every transaction that is still under way, now."""
        late, self._late = self._late, []
        for one in late:
            await self._store.transact(one.txn)

    # ---- writes

    async def transact(self, txn: Txn, *, deadline_s: float = 2.0) -> Outcome:
        await self._delay()
        await self._apply_due()
        fault = self._next_fault()
        if fault is None:
            return await self._store.transact(txn, deadline_s=deadline_s)
        self.injected[fault] += 1
        match fault:
            case Fault.NOT_SENT:
                return NotSent("injected")
            case Fault.BUSY:
                return Refused(Refusal.BUSY, "injected")
            case Fault.UNANSWERED:
                await self._store.transact(txn, deadline_s=deadline_s)
            case Fault.LATE:
                self._late.append(_Late(txn, self._random.randint(1, self._faults.late_calls)))
            case Fault.LOST:
                pass
        return Unknown("injected: " + fault.value)

    def _next_fault(self) -> Fault | None:
        if self._asked_for:
            return self._asked_for.popleft()
        faults, drawn = self._faults, self._random.random()
        for fault, rate in (
            (Fault.NOT_SENT, faults.not_sent),
            (Fault.LOST, faults.lost),
            (Fault.UNANSWERED, faults.unanswered),
            (Fault.LATE, faults.late),
            (Fault.BUSY, faults.busy),
        ):
            drawn -= rate
            if drawn < 0:
                return fault
        return None

    async def _apply_due(self) -> None:
        for one in self._late:
            one.calls_left -= 1
        due = [one for one in self._late if one.calls_left <= 0]
        self._late = [one for one in self._late if one.calls_left > 0]
        for one in due:
            await self._store.transact(one.txn)

    # ---- everything else: unavailable or not

    async def get(self, key: bytes, *, deadline_s: float = 5.0) -> tuple[KeyValue | None, int]:
        await self._available()
        return await self._store.get(key, deadline_s=deadline_s)

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
        await self._available()
        return await self._store.range(
            key, range_end, revision=revision, limit=limit, keys_only=keys_only, deadline_s=deadline_s
        )

    async def grant(self, ttl_s: int, *, deadline_s: float = 2.0) -> Lease:
        await self._available()
        return await self._store.grant(ttl_s, deadline_s=deadline_s)

    async def keep_alive(self, lease_id: int, *, deadline_s: float = 2.0) -> int:
        await self._available()
        return await self._store.keep_alive(lease_id, deadline_s=deadline_s)

    async def revoke(self, lease_id: int, *, deadline_s: float = 2.0) -> None:
        await self._available()
        await self._store.revoke(lease_id, deadline_s=deadline_s)

    async def compact(self, revision: int, *, deadline_s: float = 5.0) -> None:
        await self._available()
        await self._store.compact(revision, deadline_s=deadline_s)

    async def status(self, *, deadline_s: float = 5.0) -> Status:
        await self._available()
        return await self._store.status(deadline_s=deadline_s)

    async def close(self) -> None:
        await self._store.close()

    @asynccontextmanager
    async def watch(
        self, prefix: bytes, *, start_revision: int, previous: bool = False
    ) -> AsyncGenerator[AsyncIterator[Batch], None]:
        async with (
            self._store.watch(prefix, start_revision=start_revision, previous=previous) as batches,
            aclosing(self._perturbed(batches)) as perturbed,
        ):
            yield perturbed

    async def _perturbed(self, batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch, None]:
        faults, draw = self._faults, self._random
        async for batch in batches:
            if faults.watch_delay_s:
                await asyncio.sleep(draw.uniform(0, faults.watch_delay_s))
            if draw.random() < faults.watch_compacted:
                raise Compacted(batch.revision + 1)
            if draw.random() < faults.watch_skip:
                continue
            yield batch
            if draw.random() < faults.watch_repeat:
                yield batch

    async def _available(self) -> None:
        await self._delay()
        if self._random.random() < self._faults.unavailable:
            raise StoreUnavailable("injected")

    async def _delay(self) -> None:
        if self._faults.delay_s:
            await asyncio.sleep(self._random.uniform(0, self._faults.delay_s))
