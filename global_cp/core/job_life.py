"""Jobs that have ended are deleted by themselves when their time to live is over.

Decides when; the deletion is the same as a user's: marked first, forgotten when its last share is closed. Whether a job
has ended is what its stored status says.
"""

from atoll.api.v1 import objects_pb2
from atoll.lane import Settled
from global_cp.config import CoreSettings
from global_cp.core import jobs, transactions
from global_cp.core.alarms import Alarms
from global_cp.core.commands import Command
from global_cp.core.records import Change, Records
from global_cp.core.reports import WorkloadPath
from global_cp.core.topics import Proposal


class JobLife:
    """The topic."""

    def __init__(self, records: Records, settings: CoreSettings) -> None:
        self._records = records
        self._settings = settings
        self._alarms = Alarms()
        self._over: dict[WorkloadPath, None] = {}

    def read(self, change: Change) -> None:
        self._look((change.path[0], change.path[1]))

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        self._over.update(dict.fromkeys(self._alarms.due(now_ms, self._settings.looks_at_once)))
        while self._over:
            path = next(iter(self._over))
            workload, gone_ms = self._records.workloads.get(*path), self._gone_ms(path)
            if workload is not None and gone_ms is not None and gone_ms <= now_ms:
                marked = objects_pb2.Workload()
                marked.CopyFrom(workload)
                marked.metadata.deleted_ms = now_ms
                return Proposal(transactions.expire(self._records, marked), None)
            del self._over[path]
        return None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """Nothing to do: what was committed is marked, and what was not is looked at again."""

    def changed(self, change: Change, out: list[Command]) -> None:
        if change.kind in ("status", "workload"):
            self._look((change.path[0], change.path[1]))

    def deadline(self) -> int | None:
        return self._alarms.next_ms()

    def _look(self, path: WorkloadPath) -> None:
        self._alarms.set(path, self._gone_ms(path))

    def _gone_ms(self, path: WorkloadPath) -> int | None:
        workload, status = self._records.workloads.get(*path), self._records.statuses.get(*path)
        if workload is None or status is None or workload.metadata.deleted_ms:
            return None
        current = status.job.generation == workload.metadata.generation  # else its status is about to follow
        return jobs.gone_ms(workload.spec, status.job) if current else None
