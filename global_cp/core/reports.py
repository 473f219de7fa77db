"""What the regions last said of their shares. In memory only: after a takeover they say it again.

Decides which replicas count as stuck: a region has said for `overflow_settle_ms` without a break that no node takes
them. Leaves to others what follows from that.
"""

from collections.abc import KeysView, Mapping

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import NOTHING, Vector, total, vector
from global_cp.core.records import at_once

WorkloadPath = tuple[str, str]  # (tenant, name)
NEVER: Mapping[str, regional_pb2.WorkloadReport] = {}


def _ended(share: objects_pb2.Share, report: regional_pb2.WorkloadReport) -> Vector:
    """What of a share is needed no more, because it has ended; nothing until its region speaks of its generation."""
    if (report.uid, report.generation) != (share.metadata.uid, share.metadata.generation):
        return NOTHING
    ended = {task.task: task.ended for task in report.tasks if task.ended}
    if not ended:
        return NOTHING
    each = [
        vector(task.resources.requests) * (at_once(share, task) - at_once(share, task, ended.get(task.name, 0)))
        for task in share.spec.tasks
    ]
    return total(each)


class Reports:
    def __init__(self, settle_ms: int) -> None:
        self._settle_ms = settle_ms
        self._last: dict[WorkloadPath, dict[str, regional_pb2.WorkloadReport]] = {}
        self._unplaced_since: dict[tuple[WorkloadPath, str], dict[str, int]] = {}  # (workload, region) → task → when
        self._waiting_in: dict[WorkloadPath, int] = {}  # of those, in how many regions each workload has any
        self._ended_of: dict[tuple[WorkloadPath, str], Vector] = {}  # (workload, region)
        self._ended: dict[tuple[str, str], Vector] = {}  # (tenant, region): their sums

    def heard(self, share: objects_pb2.Share, report: regional_pb2.WorkloadReport, now_ms: int) -> bool:
        """The region's word on one of its shares. Returns whether other replicas have ended."""
        path, region = (report.tenant, report.workload), share.region
        self._last.setdefault(path, {})[region] = report
        before = self._unplaced_since.get((path, region), {})
        self._note_waits(path, region, {t.task: before.get(t.task, now_ms) for t in report.tasks if t.unplaced})
        return self._add_up(path, region, _ended(share, report))

    def told(self, path: WorkloadPath, region: str, share: objects_pb2.Share | None) -> None:
        """The share changed. What ended of the same generation stays so; of another it is to be said again."""
        said = self._last.get(path, {}).get(region)
        self._add_up(path, region, _ended(share, said) if share and said else NOTHING)

    def forget(self, path: WorkloadPath, region: str) -> None:
        """The share is gone."""
        said = self._last.get(path, {})
        said.pop(region, None)
        self._note_waits(path, region, {})
        if not said:
            self._last.pop(path, None)

    def of(self, path: WorkloadPath) -> Mapping[str, regional_pb2.WorkloadReport]:
        """By region."""
        return self._last.get(path, NEVER)

    def of_task(self, share: objects_pb2.Share, task: str) -> regional_pb2.TaskReport | None:
        """What its region says of the task of this very share; nothing until it has."""
        metadata = share.metadata
        report = self.of((metadata.tenant, metadata.name)).get(share.region)
        if report is None or report.generation != metadata.generation or report.uid != metadata.uid:
            return None
        said = next((each for each in report.tasks if each.task == task), None)
        told = next((each.replicas for each in share.spec.tasks if each.name == task), None)
        return said if said is not None and said.desired == told else None

    def surplus(self, share: objects_pb2.Share, revision: int, task: str) -> int | None:
        """How many of the task are bound in the region beyond its part, by its word on the share of this revision."""
        report = self.of((share.metadata.tenant, share.metadata.name)).get(share.region)
        if report is None or report.uid != share.metadata.uid or report.share_revision != revision:
            return None
        return next((each.surplus for each in report.tasks if each.task == task), 0)

    def stuck(self, share: objects_pb2.Share, task: str, now_ms: int) -> int:
        """How many of the share's replicas of the task wait for room, for so long that they should go elsewhere."""
        metadata = share.metadata
        since = self._unplaced_since.get(((metadata.tenant, metadata.name), share.region), {}).get(task)
        if since is None or now_ms - since < self._settle_ms:
            return 0
        said = self.of_task(share, task)
        return said.unplaced if said else 0

    def ended(self, tenant: str, region: str) -> Vector:
        """What the tenant's replicas there need no more, because they have ended for good."""
        return self._ended.get((tenant, region), NOTHING)

    def _add_up(self, path: WorkloadPath, region: str, ended: Vector) -> bool:
        more = ended - self._ended_of.pop((path, region), NOTHING)
        if ended:
            self._ended_of[path, region] = ended
        place = (path[0], region)
        self._ended[place] = self._ended.get(place, NOTHING) + more
        return bool(more)

    def with_unplaced(self) -> KeysView[WorkloadPath]:
        """Workloads with replicas that wait for room, who began to first. It follows what is heard."""
        return self._waiting_in.keys()

    def _note_waits(self, path: WorkloadPath, region: str, waits: dict[str, int]) -> None:
        """`waits`: since when each task does."""
        before = self._unplaced_since.pop((path, region), {})
        if waits:
            self._unplaced_since[path, region] = waits
        if count := self._waiting_in.get(path, 0) + bool(waits) - bool(before):
            self._waiting_in[path] = count
        else:
            self._waiting_in.pop(path, None)
