"""How much more work each region has room for, as far as the global plane can know.

room = what is free on nodes that take work - what waits there already - what was told to the region since it last
summed up, or is on its way there. An estimate, good for a first choice only: nothing that has a place is moved because
of it.
"""

from collections.abc import Iterable, Mapping

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import NOTHING, Vector, vector
from global_cp.core.records import Change, share_demand
from global_cp.core.reports import WorkloadPath


class Rooms:
    def __init__(self, summaries: Mapping[str, objects_pb2.RegionSummary]) -> None:
        self._summaries = summaries
        self._told: dict[str, dict[WorkloadPath, Vector]] = {}  # by region: not in its summary yet
        self._taken: dict[str, Vector] = {}  # by region: the sum of that, and of what is promised
        self._admitted: dict[str, dict[WorkloadPath, None]] = {}  # in the next summary

    def told(self, change: Change) -> None:
        """A share changed."""
        before, after = change.before, change.after
        region, path = change.path[0], (change.path[1], change.path[2])
        more = (_demand(after) - _demand(before)).at_least(NOTHING)
        if more:
            known = self._told.setdefault(region, {})
            known[path] = known.get(path, NOTHING) + more
            self._take(region, more)
            self._admitted.get(region, {}).pop(path, None)
        if after is None:
            self._forget(region, path)
            self._admitted.get(region, {}).pop(path, None)

    def promised(self, shares: Iterable[objects_pb2.Share]) -> None:
        """They are on their way into the store; until they are `settled` they take room already."""
        for share in shares:
            self._take(share.region, _demand(share))

    def settled(self, shares: Iterable[objects_pb2.Share]) -> None:
        """They are told, or they are not."""
        for share in shares:
            self._take(share.region, -_demand(share))

    def admitted(self, region: str, report: regional_pb2.WorkloadReport, share: objects_pb2.Share) -> None:
        """The region reports on the share as it is now."""
        told = sum(task.replicas for task in share.spec.tasks)
        if (report.generation, report.counts.desired) == (share.metadata.generation, told):
            self._admitted.setdefault(region, {})[report.tenant, report.workload] = None

    def summed_up(self, region: str) -> None:
        """A summary came: what was admitted before is in it."""
        for path in self._admitted.pop(region, {}):
            self._forget(region, path)

    def of(self, region: str, request: Vector, taken: Vector = NOTHING) -> int | None:
        """For how many more replicas that ask for `request`, `taken` apart; None: not known."""
        summary = self._summaries.get(region)
        if summary is None:
            return None
        if not request.fits(vector(summary.largest_node)):
            return 0
        free = vector(summary.free) - vector(summary.waiting) - self._taken.get(region, NOTHING) - taken
        fitting = [have // each for have, each in zip(free.amounts(), request.amounts(), strict=True) if each]
        return max(0, min(fitting, default=summary.nodes_ready))

    def _take(self, region: str, more: Vector) -> None:
        self._taken[region] = self._taken.get(region, NOTHING) + more

    def _forget(self, region: str, path: WorkloadPath) -> None:
        self._take(region, -self._told.get(region, {}).pop(path, NOTHING))


def _demand(share: object) -> Vector:
    return share_demand(share) if isinstance(share, objects_pb2.Share) and not share.removed else NOTHING
