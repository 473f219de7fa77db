"""Parked classes: which of them are offered again, and how many at a time.

An event makes every class due that is parked under a cure of its kind. Of those that ask alike only as many are offered
as there is room for, the first of their order first, and the next ones when these have been tried and room is left: so
one replica that ends does not wake ten thousand that wait for its place, and each of them that could have it is still
tried before the next event of the kind. What costs here grows with what is offered, and with the number of groups that
ask alike, not with what is parked.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from atoll.model.resources import Vector
from regional.core.filters import Cure

if TYPE_CHECKING:
    from regional.core.queue import SchedulingClass

Room = Callable[[Cure, "SchedulingClass"], int]
"""How many replicas that ask like this one an event of this kind has made room for: at least as many as it has."""
Key = tuple[int, int, int, int]  # latest start, queued, size (negative), ticket
_Heap = list[tuple[Key, "SchedulingClass"]]
_DEAD = 1_000  # at least so many before they are swept


class _Asked(NamedTuple):
    tenant: str
    vector: Vector
    band: int
    may_burst: bool
    timely: bool  # it may still meet a deadline: those stand apart, so that they never keep back what has none
    cures: frozenset[Cure]


@dataclass(slots=True, eq=False)
class Group:
    """Parked classes that ask alike, under the same cures."""

    asked: _Asked
    due: _Heap = field(default_factory=list)  # an event came since they were tried
    tried: _Heap = field(default_factory=list)
    events: dict[Cure, None] = field(default_factory=dict)  # of kinds that may still have left room for what is due
    size: int = 0  # without what has left, and is still in a heap

    def make_due(self) -> None:
        for entry in self.tried:
            if _is_parked(entry):
                heapq.heappush(self.due, entry)
        self.tried.clear()

    def sweep(self) -> None:
        if len(self.due) + len(self.tried) > 2 * self.size + _DEAD:
            self.due, self.tried = ([entry for entry in heap if _is_parked(entry)] for heap in (self.due, self.tried))
            heapq.heapify(self.due)

    def head(self) -> "SchedulingClass | None":
        while self.due and not _is_parked(self.due[0]):
            heapq.heappop(self.due)
        return self.due[0][1] if self.due else None

    def outlived(self, most: int, now_ms: int) -> "list[SchedulingClass]":
        """What has missed its deadline: it stands elsewhere, and finds its place when it is tried."""
        late: list[SchedulingClass] = []
        while self.asked.timely and len(late) < most and (cls := self.head()) and cls.latest_start_ms < now_ms:
            heapq.heappop(self.due)
            late.append(cls)
        return late

    def take(self, room: Room, most: int) -> "list[SchedulingClass]":
        """What there is room for; an event that has left none is over."""
        taken: list[SchedulingClass] = []
        for cure in list(self.events):
            if (cls := self.head()) is None:
                break
            places = room(cure, cls)
            if places <= 0:
                del self.events[cure]
            while len(taken) < min(places, most) and (cls := self.head()):
                heapq.heappop(self.due)
                taken.append(cls)
        if self.head() is None:
            self.events.clear()
        return taken

    def members(self) -> Iterator["SchedulingClass"]:
        return (cls for key, cls in (*self.due, *self.tried) if _is_parked((key, cls)))


class Parking:
    def __init__(self) -> None:
        self.members: dict[int, SchedulingClass] = {}  # by ticket of parking, in order
        self._groups: dict[_Asked, Group] = {}
        self._by_cure: dict[Cure, dict[_Asked, Group]] = {cure: {} for cure in Cure}
        self._active: dict[_Asked, Group] = {}  # with something due, and an event that may have left room for it

    @property
    def pressing(self) -> bool:
        """More is due than was offered."""
        return bool(self._active)

    def add(self, cls: "SchedulingClass", key: Key, *, timely: bool) -> None:
        """`key`: its place in the order, by its ticket in the end."""
        self.members[cls.ticket] = cls
        asked = _Asked(cls.tenant, cls.request.vector, cls.band, cls.may_burst, timely, cls.cures)
        group = self._groups.get(asked)
        if group is None:
            group = self._groups[asked] = Group(asked)
            for cure in Cure:
                if cure in asked.cures:
                    self._by_cure[cure][asked] = group
        group.size += 1
        group.tried.append((key, cls))
        cls.group = group

    def remove(self, cls: "SchedulingClass") -> None:
        del self.members[cls.ticket]
        group, cls.group = cls.group, None
        assert group is not None
        group.size -= 1
        if group.size:
            group.sweep()
            return
        for groups in (self._groups, self._active, *(self._by_cure[cure] for cure in group.asked.cures)):
            groups.pop(group.asked, None)

    def happened(self, cure: Cure, tenant: str = "") -> None:
        """An event of this kind, for all tenants or one."""
        for asked, group in self._by_cure[cure].items():
            if not tenant or asked.tenant == tenant:
                group.make_due()
                group.events[cure] = None
                self._active[asked] = group

    def waits_for(self, cure: Cure) -> bool:
        """Whether something due may still use the room that events of this kind have left."""
        return any(cure in group.events for group in self._active.values())

    def under(self, *cures: Cure) -> "list[SchedulingClass]":
        """In the order in which they were parked."""
        groups = {group.asked: group for cure in cures for group in self._by_cure[cure].values()}
        return sorted((cls for group in groups.values() for cls in group.members()), key=lambda cls: cls.ticket)

    def offers(self, room: Room, most: int, now_ms: int) -> "list[SchedulingClass]":
        """What is to be tried next: of each group what there is room for, at most `most`."""
        found: list[SchedulingClass] = []
        for asked, group in list(self._active.items()):
            found += group.outlived(most, now_ms)
            found += group.take(room, most)
            if not group.events:
                del self._active[asked]
        return found


def _is_parked(entry: tuple[Key, "SchedulingClass"]) -> bool:
    return entry[1].ticket == entry[0][-1]
