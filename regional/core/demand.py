"""What is bound in a region and what still waits, as sums over its workloads, kept by differences.

A replica waits that is wanted and neither bound nor over. What may burst is counted apart, by what one asks for,
without those that are about to be bound: these are charged already. Decides nothing.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from atoll.errors import require
from atoll.model.resources import NOTHING, Vector

if TYPE_CHECKING:
    from regional.core.records import TaskEntry, WorkloadEntry

MUCH = 500  # marked workloads, then they are counted
_Place = tuple[str, str]  # tenant, workload


class Sums(NamedTuple):
    bound: int = 0
    waiting: int = 0
    asked: Vector = NOTHING  # by what waits
    bursting: tuple[tuple[Vector, int], ...] = ()  # what one asks for, and how many; of one workload


class Demand:
    def __init__(self) -> None:
        self.all = Sums()
        self.waiting: dict[str, int] = {}  # by tenant
        self.bursting: dict[str, dict[Vector, int]] = {}  # by tenant and by what one asks for
        self._counted: dict[_Place, Sums] = {}
        self._changed: dict[_Place, None] = {}

    def mark(self, place: _Place) -> None:
        """The workload changed, came or went."""
        self._changed[place] = None

    def refresh(self, workloads: Mapping[_Place, "WorkloadEntry"]) -> None:
        """Counts anew what was marked."""
        for place in self._changed:
            workload = workloads.get(place)
            self._count(place, sums_of(workload) if workload else Sums())
        self._changed.clear()

    def keep_up(self, workloads: Mapping[_Place, "WorkloadEntry"]) -> None:
        """To be called after every event: whoever asks is not to pay for all that happened since somebody did last."""
        if len(self._changed) >= MUCH:
            self.refresh(workloads)

    def _count(self, place: _Place, now: Sums) -> None:
        before = self._counted.pop(place, Sums())
        if now != Sums():
            self._counted[place] = now
        self.all = Sums(
            self.all.bound + now.bound - before.bound,
            self.all.waiting + now.waiting - before.waiting,
            self.all.asked + now.asked - before.asked,
        )
        tenant = place[0]
        if now.bursting != before.bursting:
            self._count_bursting(tenant, before.bursting, -1)
            self._count_bursting(tenant, now.bursting, 1)
        if waiting := self.waiting.pop(tenant, 0) + now.waiting - before.waiting:
            self.waiting[tenant] = waiting

    def _count_bursting(self, tenant: str, asked: Iterable[tuple[Vector, int]], sign: int) -> None:
        sums = self.bursting.setdefault(tenant, {})
        for one, count in asked:
            if left := sums.pop(one, 0) + sign * count:
                sums[one] = left
        if not sums:
            del self.bursting[tenant]

    def check(self, workloads: Mapping[_Place, "WorkloadEntry"]) -> None:
        self.refresh(workloads)
        plain = {place: sums for place, workload in workloads.items() if (sums := sums_of(workload)) != Sums()}
        require(plain == self._counted, "what waits is what workloads say")


def sums_of(workload: "WorkloadEntry") -> Sums:
    bound, waiting, asked, bursting = 0, 0, NOTHING, []
    for task in workload.tasks.values():
        bound += task.tally.bound
        waits = task.replicas - task.tally.provided
        if waits > 0:
            waiting += waits
            asked += task.request.vector * waits
            if task.may_burst and (uncharged := _uncharged(task)):
                bursting.append((task.request.vector, uncharged))
    return Sums(bound, waiting, asked, tuple(bursting))


def _uncharged(task: "TaskEntry") -> int:
    """How many of those that wait nothing is charged for."""
    waits = task.replicas - task.tally.succeeded - task.tally.failed - task.at_once
    return max(0, waits if task.parallel is None else min(waits, task.parallel - task.at_once))
