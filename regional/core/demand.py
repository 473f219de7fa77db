"""What is bound in a region and what still waits, as sums over its workloads, kept by differences.

A replica waits that is wanted and neither bound nor over. Decides nothing.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from atoll.errors import require
from atoll.model.resources import NOTHING, Vector

if TYPE_CHECKING:
    from regional.core.records import WorkloadEntry

_Place = tuple[str, str]  # tenant, workload


class Sums(NamedTuple):
    bound: int = 0
    waiting: int = 0
    asked: Vector = NOTHING  # by what waits
    may_burst: int = 0  # of what waits


class Demand:
    def __init__(self) -> None:
        self.all = Sums()
        self.waiting: dict[str, int] = {}  # by tenant
        self.bursting: dict[str, dict[str, None]] = {}  # by tenant: workloads of which something waits that may burst
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

    def _count(self, place: _Place, now: Sums) -> None:
        before = self._counted.pop(place, Sums())
        if now != Sums():
            self._counted[place] = now
        self.all = Sums(
            self.all.bound + now.bound - before.bound,
            self.all.waiting + now.waiting - before.waiting,
            self.all.asked + now.asked - before.asked,
            self.all.may_burst + now.may_burst - before.may_burst,
        )
        tenant, name = place
        if now.may_burst and not before.may_burst:
            self.bursting.setdefault(tenant, {})[name] = None
        elif before.may_burst and not now.may_burst:
            del self.bursting[tenant][name]
            if not self.bursting[tenant]:
                del self.bursting[tenant]
        if waiting := self.waiting.pop(tenant, 0) + now.waiting - before.waiting:
            self.waiting[tenant] = waiting

    def check(self, workloads: Mapping[_Place, "WorkloadEntry"]) -> None:
        self.refresh(workloads)
        plain = {place: sums for place, workload in workloads.items() if (sums := sums_of(workload)) != Sums()}
        require(plain == self._counted, "what waits is what workloads say")


def sums_of(workload: "WorkloadEntry") -> Sums:
    bound, waiting, asked, may_burst = 0, 0, NOTHING, 0
    for task in workload.tasks.values():
        bound += task.tally.bound
        waits = task.replicas - task.tally.provided
        if waits > 0:
            waiting += waits
            asked += task.request.vector * waits
            may_burst += waits if task.may_burst else 0
    return Sums(bound, waiting, asked, may_burst)
