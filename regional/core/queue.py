"""What is placed next: scheduling classes in the order of fairness, parked ones under what could cure them.

A class is one task of one generation of a workload: all its replicas ask alike. Waiting replicas are ranges of indices,
not objects. Order: priority band, then the tenant with the lowest weighted dominant share (DRF), then age. A class that
no node takes, or no quota, leaves the order until an event of a kind in its `cures` comes. Replicas that failed come
back at their time, and are kept off the node they failed on where another takes them.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from atoll.api.v1.objects_pb2 import PendingReason
from regional.core.filters import Cure, Request

NEVER_MS = 1 << 62


@dataclass(slots=True, eq=False)
class SchedulingClass:
    """All waiting replicas of one task at one generation."""

    tenant: str
    workload: str
    task: str
    band: int
    request: Request
    queued_ms: int = 0
    ticket: int = 0  # its entry in the order; 0 = it has none
    dropped: bool = False
    cures: frozenset[Cure] = frozenset()  # not empty = parked
    reasons: tuple[PendingReason, ...] = ()  # why, as found when last tried
    size: int = 0
    _ranges: list[tuple[int, int]] = field(default_factory=list)  # a heap of [start, end), disjoint
    _retries: dict[int, str] = field(default_factory=dict)  # index → node to avoid
    delayed: int = 0

    @property
    def parked(self) -> bool:
        return bool(self.cures)

    def indices(self) -> Iterator[int]:
        yield from sorted([*self._retries, *(i for start, end in self._ranges for i in range(start, end))])

    def take(self, count: int) -> tuple[list[int], str]:
        """Up to `count` indices that may be placed alike, and the node to keep them off ("" = none)."""
        if self._retries:
            avoid = next(iter(self._retries.values()))
            taken = [i for i, node in self._retries.items() if node == avoid][:count]
            for i in taken:
                del self._retries[i]
        else:
            avoid, taken = "", []
            while self._ranges and len(taken) < count:
                start, end = heapq.heappop(self._ranges)
                middle = min(end, start + count - len(taken))
                taken.extend(range(start, middle))
                if middle < end:
                    heapq.heappush(self._ranges, (middle, end))
        self.size -= len(taken)
        return taken, avoid

    def put(self, indices: Iterable[int], avoid: str = "") -> None:
        """Indices that wait (again); none of them does already."""
        ordered = sorted(indices)
        self.size += len(ordered)
        if avoid:
            self._retries.update(dict.fromkeys(ordered, avoid))
            return
        start = 0
        for position in range(1, len(ordered) + 1):
            if position == len(ordered) or ordered[position] != ordered[position - 1] + 1:
                heapq.heappush(self._ranges, (ordered[start], ordered[position - 1] + 1))
                start = position


class Queue:
    def __init__(self) -> None:
        self.parked: dict[int, SchedulingClass] = {}  # by ticket of parking, in order
        self._bands: dict[int, dict[str, list[tuple[int, int, SchedulingClass]]]] = {}
        self._delayed: list[tuple[int, int, SchedulingClass, int, str]] = []
        self._tickets = 0

    def __bool__(self) -> bool:
        """Whether anything may be in the order."""
        return bool(self._bands)

    def put(self, cls: SchedulingClass, indices: Iterable[int], now_ms: int, avoid: str = "") -> None:
        if not cls.size and not cls.ticket:
            cls.queued_ms = now_ms
        cls.put(indices, avoid)
        self.offer(cls)

    def offer(self, cls: SchedulingClass) -> None:
        """Into the order, unless it is there, parked or empty."""
        if cls.ticket or cls.parked or cls.dropped or not cls.size:
            return
        self._tickets += 1
        cls.ticket = self._tickets
        band = self._bands.setdefault(cls.band, {})
        heapq.heappush(band.setdefault(cls.tenant, []), (cls.queued_ms, cls.ticket, cls))

    def delay(self, cls: SchedulingClass, index: int, until_ms: int, avoid: str) -> None:
        self._tickets += 1
        cls.delayed += 1
        heapq.heappush(self._delayed, (until_ms, self._tickets, cls, index, avoid))

    def due(self, now_ms: int) -> Iterator[tuple[SchedulingClass, int, str]]:
        """Takes out what may be tried again."""
        while self._delayed and self._delayed[0][0] <= now_ms:
            _, _, cls, index, avoid = heapq.heappop(self._delayed)
            cls.delayed -= 1
            if not cls.dropped:
                yield cls, index, avoid

    def next_due_ms(self) -> int:
        return self._delayed[0][0] if self._delayed else NEVER_MS

    def drop(self, cls: SchedulingClass) -> None:
        cls.dropped = True
        if cls.parked:
            self._unpark(cls)

    def pick(self, share_of: Callable[[str], float]) -> SchedulingClass | None:
        """The class whose turn it is; it stays in the order until it is empty, parked or dropped."""
        for band in sorted(self._bands, reverse=True):
            tenants = self._bands[band]
            for tenant in [t for t in tenants if self._head(tenants[t]) is None]:
                del tenants[tenant]
            if tenants:
                return self._head(tenants[min(tenants, key=lambda t: (share_of(t), t))])
            del self._bands[band]
        return None

    @staticmethod
    def _head(heap: list[tuple[int, int, SchedulingClass]]) -> SchedulingClass | None:
        while heap:
            _, ticket, cls = heap[0]
            if cls.ticket == ticket and cls.size and not cls.parked and not cls.dropped:
                return cls
            if cls.ticket == ticket:
                cls.ticket = 0
            heapq.heappop(heap)
        return None

    def park(self, cls: SchedulingClass, cures: frozenset[Cure], reasons: tuple[PendingReason, ...]) -> None:
        self._tickets += 1
        cls.cures = cures
        cls.reasons = reasons
        cls.ticket = self._tickets
        self.parked[cls.ticket] = cls

    def _unpark(self, cls: SchedulingClass) -> None:
        del self.parked[cls.ticket]
        cls.cures = frozenset()
        cls.ticket = 0
        self.offer(cls)

    def wake(self, cure: Cure, curable: Callable[[SchedulingClass], bool]) -> None:
        """Offers again every class parked under `cure` for which the event may really make room."""
        for cls in [c for c in self.parked.values() if cure in c.cures]:
            if curable(cls):
                self._unpark(cls)

    def position(self, cls: SchedulingClass) -> int:
        """1 = next within its band and tenant; 0 = not in the order."""
        if not cls.ticket or cls.parked:
            return 0
        heap = self._bands.get(cls.band, {}).get(cls.tenant, [])
        return 1 + sum((queued, ticket) < (cls.queued_ms, cls.ticket) for queued, ticket, _ in heap)
