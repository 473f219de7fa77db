"""What is placed next: scheduling classes in the order of fairness, parked ones under what could cure them.

A class is one task of one generation of a workload: all its replicas ask alike. Waiting replicas are ranges of indices,
not objects. Order (docs/scheduling.md): priority band, raised by one each time the class has waited `ageing_ms`; then
the tenant with the lowest weighted dominant share (DRF); then what must start first to meet its deadline (EDF), as long
as it still can; then age, or, of what asks for it and began to wait in the same second, the larger. One turn in
`overdue_turn` goes round among the classes that have waited past the highest band: so each class has its turn within a
bound, whatever others ask. Whichever class of a tenant has the turn, one with replicas that ran uses it instead, unless
its priority is lower: what ran gets back what it gave. A class that no node takes, or no quota, leaves the order until
an event of a kind in its `cures` comes; its age goes on. Replicas that failed come back at their time, and are kept off
the node they failed on where another takes them.
"""

import heapq
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import NamedTuple

from atoll.api.v1.objects_pb2 import PRIORITY_REAL_TIME, PendingReason
from regional.core.filters import Cure, Request
from regional.core.parking import Group, Key, Parking, Room

NEVER_MS = 1 << 62
TOP_BAND = int(PRIORITY_REAL_TIME)
BATCH_MS = 1_000  # what begins to wait within it is one batch to the strategies that place the larger first
MAY_PREEMPT = (Cure.RESOURCES, Cure.PROTECTED)  # stopping others could cure it
_DEAD_RAISES = 1_000  # at least so many before they are swept

_Heap = list[tuple[Key, "SchedulingClass"]]


@dataclass(slots=True, eq=False)
class SchedulingClass:
    """All waiting replicas of one task at one generation."""

    tenant: str
    workload: str
    task: str
    band: int
    request: Request
    latest_start_ms: int = NEVER_MS  # deadline - estimate
    decreasing: int = 0  # how large it is, where of a batch the larger comes first; 0 = by age alone
    may_burst: bool = False  # the burst account may pay for it
    gang: bool = False  # all members of a gang, as one item: its only index is 0
    queued_ms: int = 0
    ticket: int = 0  # its entry in the order; 0 = it has none
    level: int = 0  # the band it stands in, by its age
    dropped: bool = False
    cures: frozenset[Cure] = frozenset()  # not empty = parked
    group: Group | None = None  # of what is parked alike
    reasons: tuple[PendingReason, ...] = ()  # why, as found when last tried
    size: int = 0
    _ranges: list[tuple[int, int]] = field(default_factory=list)  # a heap of [start, end), disjoint
    _ran: dict[int, str] = field(default_factory=dict)  # index → node to avoid: these come before what has not run
    _retries: dict[int, str] = field(default_factory=dict)  # likewise, but for these it is as for any other
    delayed: int = 0

    @property
    def parked(self) -> bool:
        return bool(self.cures)

    @property
    def short_of_room(self) -> bool:
        return Cure.RESOURCES in self.cures

    @property
    def may_preempt(self) -> bool:
        return not self.cures.isdisjoint(MAY_PREEMPT)

    @property
    def ran(self) -> bool:
        return bool(self._ran)

    def indices(self) -> Iterator[int]:
        yield from sorted([*self._ran, *self._retries, *(i for start, end in self._ranges for i in range(start, end))])

    def take(self, count: int) -> tuple[list[int], str]:
        """Up to `count` indices that may be placed alike, and the node to keep them off ("" = none)."""
        if known := self._ran or self._retries:
            avoid = next(iter(known.values()))
            taken = [i for i, node in known.items() if node == avoid][:count]
            for i in taken:
                del known[i]
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

    def withdraw(self, index: int) -> None:
        """It waits no more, if it did so kept off a node."""
        for known in (self._ran, self._retries):
            if known.pop(index, None) is not None:
                self.size -= 1

    def take_among(self, count: int, known: Container[int]) -> tuple[list[int], str]:
        """As `take`, of those alone that are `known`; what ran or failed on a node always is."""
        if self._ran or self._retries:
            return self.take(count)
        waiting = [i for start, end in self._ranges for i in range(start, end)]
        taken = sorted(i for i in waiting if i in known)[:count]
        if taken:
            self._ranges.clear()
            self.size = 0
            self.put(set(waiting).difference(taken))
        return taken, ""

    def put(self, indices: Iterable[int], avoid: str = "", *, ran: bool = False) -> None:
        """Indices that wait (again); none of them does already."""
        ordered = sorted(indices)
        self.size += len(ordered)
        if ran or avoid:
            (self._ran if ran else self._retries).update(dict.fromkeys(ordered, avoid))
            return
        start = 0
        for position in range(1, len(ordered) + 1):
            if position == len(ordered) or ordered[position] != ordered[position - 1] + 1:
                heapq.heappush(self._ranges, (ordered[start], ordered[position - 1] + 1))
                start = position


class Hold(NamedTuple):
    """Nodes whose room is kept for what waits for it: see backfill.py."""

    cls: SchedulingClass
    rows: tuple[int, ...]
    start_ms: int  # when the room is expected


class Queue:
    def __init__(self, ageing_ms: int, overdue_turn: int) -> None:
        self.parking = Parking()
        self._ageing_ms = ageing_ms
        self._overdue_turn = overdue_turn
        self._bands: dict[int, dict[str, _Heap]] = {}  # by level and tenant
        self._raises: list[tuple[int, int, SchedulingClass]] = []  # (when, ticket, class)
        self._sweep_at = _DEAD_RAISES
        self._overdue: deque[tuple[int, SchedulingClass]] = deque()  # (ticket, class); they stand in their band too
        self._turns = 0
        self._now_ms = 0
        self._ran: dict[str, dict[SchedulingClass, None]] = {}  # by tenant: what stands and has replicas that ran
        self._delayed: list[tuple[int, int, SchedulingClass, int, str, bool]] = []
        self._tickets = 0

    def __bool__(self) -> bool:
        """Whether anything may be in the order."""
        return bool(self._bands)

    def put(
        self, cls: SchedulingClass, indices: Iterable[int], now_ms: int, avoid: str = "", *, ran: bool = False
    ) -> None:
        """`ran`: they come before what has not run, of their tenant and priority, and of lower ones."""
        if not cls.size and not cls.parked:
            cls.queued_ms, cls.ticket = now_ms, 0
        cls.put(indices, avoid, ran=ran)
        if cls.parked and (ran or Cure.REPAIR in cls.cures):
            self.unpark(cls)
        self.offer(cls)
        if cls.ran and not cls.parked:
            self._ran.setdefault(cls.tenant, {})[cls] = None

    def offer(self, cls: SchedulingClass) -> None:
        """Into the order, unless it is there, parked or empty."""
        if cls.ticket or cls.parked or cls.dropped or not cls.size:
            return
        self._stand(cls, cls.band)

    def _stand(self, cls: SchedulingClass, level: int) -> None:
        self._tickets += 1
        cls.ticket, cls.level = self._tickets, min(level, TOP_BAND)
        if cls.ran:
            self._ran.setdefault(cls.tenant, {})[cls] = None
        heap = self._bands.setdefault(cls.level, {}).setdefault(cls.tenant, [])
        heapq.heappush(heap, (self._key(cls), cls))
        if level > TOP_BAND:
            self._overdue.append((cls.ticket, cls))
        else:
            raised_ms = cls.queued_ms + (level - cls.band + 1) * self._ageing_ms
            heapq.heappush(self._raises, (raised_ms, cls.ticket, cls))

    def _key(self, cls: SchedulingClass) -> Key:
        """What cannot meet its deadline any more stands with what has none: else it would make others miss theirs."""
        latest_ms = cls.latest_start_ms
        queued_ms = cls.queued_ms - (cls.queued_ms % BATCH_MS if cls.decreasing else 0)
        return latest_ms if latest_ms >= self._now_ms else NEVER_MS, queued_ms, -cls.decreasing, cls.ticket

    def age(self, now_ms: int) -> None:
        """Raises what has waited long enough; to be called before `pick`, after classes were offered."""
        self._now_ms = now_ms
        while self._raises and self._raises[0][0] <= now_ms:
            _, ticket, cls = heapq.heappop(self._raises)
            if _stands(cls, ticket):
                self._stand(cls, cls.band + (now_ms - cls.queued_ms) // self._ageing_ms)
        if len(self._raises) > self._sweep_at:  # most of what is queued is placed long before it is raised
            self._raises = [raise_ for raise_ in self._raises if _stands(raise_[2], raise_[1])]
            heapq.heapify(self._raises)
            self._sweep_at = 2 * len(self._raises) + _DEAD_RAISES

    def delay(self, cls: SchedulingClass, index: int, until_ms: int, avoid: str, *, ran: bool = False) -> None:
        self._tickets += 1
        cls.delayed += 1
        heapq.heappush(self._delayed, (until_ms, self._tickets, cls, index, avoid, ran))

    def offer_due(self, now_ms: int) -> None:
        """What was delayed until now waits as others do."""
        while self._delayed and self._delayed[0][0] <= now_ms:
            _, _, cls, index, avoid, ran = heapq.heappop(self._delayed)
            cls.delayed -= 1
            if not cls.dropped:
                self.put(cls, (index,), now_ms, avoid, ran=ran)

    def next_due_ms(self) -> int:
        """When something is to be offered again; 0 = at once, NEVER_MS = nothing is."""
        if self.parking.pressing:
            return 0
        return self._delayed[0][0] if self._delayed else NEVER_MS

    def drop(self, cls: SchedulingClass) -> None:
        cls.dropped = True
        if cls.parked:
            self.unpark(cls)

    def pick(self, share_of: Callable[[str], float], lowest: int = 0) -> SchedulingClass | None:
        """The class whose turn it is, of those that stand in the band `lowest` or above; it stays in the order until it
        is empty, parked or dropped."""
        if lowest:
            return self._first(share_of, lowest)
        self._turns += 1
        if self._overdue and self._turns % self._overdue_turn == 0 and (overdue := self._next_overdue()):
            return self._that_ran(overdue)
        return self._first(share_of, lowest)

    def _first(self, share_of: Callable[[str], float], lowest: int) -> SchedulingClass | None:
        for band in sorted((band for band in self._bands if band >= lowest), reverse=True):
            tenants = self._bands[band]
            for tenant in [t for t in tenants if self._head(tenants[t]) is None]:
                del tenants[tenant]
            if tenants and (head := self._head(tenants[min(tenants, key=lambda t: (share_of(t), t))])):
                return self._that_ran(head)
            del self._bands[band]
        return None

    def _that_ran(self, turn: SchedulingClass) -> SchedulingClass:
        """Who uses the turn of this class: of its tenant and no lower in priority, the first that has replicas that
        ran; else itself."""
        classes = self._ran.get(turn.tenant, {})
        for cls in list(classes):
            if not cls.ran or not _stands(cls, cls.ticket):
                del classes[cls]
            elif cls.band >= turn.band:
                return cls
        if not classes:
            self._ran.pop(turn.tenant, None)
        return turn

    def upcoming(self, most: int) -> Iterator[SchedulingClass]:
        """Some of those whose turn is likely to come soon: by band, the tenants in turns. Changes nothing."""
        for band in sorted(self._bands, reverse=True):
            for nth in zip_longest(*(heap[:most] for heap in self._bands[band].values())):
                yield from (entry[1] for entry in nth if entry and _stands(entry[1], entry[0][-1]))

    def _next_overdue(self) -> SchedulingClass | None:
        while self._overdue:
            ticket, cls = self._overdue.popleft()
            if _stands(cls, ticket):
                self._overdue.append((ticket, cls))
                return cls
        return None

    def _head(self, heap: _Heap) -> SchedulingClass | None:
        while heap:
            (latest_ms, _, _, ticket), cls = heap[0]
            if _stands(cls, ticket):
                if latest_ms >= self._now_ms:
                    return cls
                heapq.heapreplace(heap, (self._key(cls), cls))
                continue
            if cls.ticket == ticket:
                cls.ticket = 0
            heapq.heappop(heap)
        return None

    @property
    def parked(self) -> Mapping[int, SchedulingClass]:
        """By ticket, in the order in which they were parked."""
        return self.parking.members

    def park(self, cls: SchedulingClass, cures: frozenset[Cure], reasons: tuple[PendingReason, ...]) -> None:
        self._tickets += 1
        cls.cures = cures
        cls.reasons = reasons
        cls.ticket = self._tickets
        key = self._key(cls)
        timely = key[0] != NEVER_MS
        self.parking.add(cls, (-1, *key[1:]) if cls.ran else key, timely=timely)

    def unpark(self, cls: SchedulingClass) -> None:
        """Offers it again."""
        self.parking.remove(cls)
        cls.cures = frozenset()
        cls.ticket = 0
        self.offer(cls)

    def wake(self, room: Room, most: int, now_ms: int) -> None:
        """Offers again what is due and has room, at most `most` that ask alike."""
        for cls in self.parking.offers(room, most, now_ms):
            self.unpark(cls)

    def level_of(self, cls: SchedulingClass, now_ms: int) -> int:
        """The band that its age raises a class to, whether it stands in the order or not."""
        waited_ms = max(0, now_ms - cls.queued_ms) if cls.size else 0
        return min(cls.band + waited_ms // self._ageing_ms, TOP_BAND)

    def position(self, cls: SchedulingClass) -> int:
        """1 = next within its band and tenant; 0 = not in the order."""
        if not _stands(cls, cls.ticket):
            return 0
        heap = self._bands[cls.level][cls.tenant]
        own = not cls.ran, self._key(cls)
        return 1 + sum(_stands(other, key[-1]) and (not other.ran, self._key(other)) < own for key, other in heap)


def _stands(cls: SchedulingClass, ticket: int) -> bool:
    """Whether this entry is the one by which the class stands in the order."""
    return cls.ticket == ticket != 0 and cls.size > 0 and not cls.cures and not cls.dropped
