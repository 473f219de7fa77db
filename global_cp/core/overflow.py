"""Replicas that no node of their region takes: where they wait for long, and which regions might take them instead.

Decides which regions count as full, for a while after the last replica was stuck there, and for which workloads the
passing of time, or a region's new summary, may lead to another plan. They are few when very many wait, and only they
are planned again. Leaves the plan to spread.py.
"""

import itertools
from collections.abc import Mapping

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector, vector
from global_cp.config import CoreSettings
from global_cp.core import spread
from global_cp.core.records import Records
from global_cp.core.reports import Reports, WorkloadPath
from global_cp.core.rooms import Rooms

Live = Mapping[str, objects_pb2.Share]  # by region


class Overflow:
    def __init__(self, records: Records, settings: CoreSettings, reports: Reports, rooms: Rooms) -> None:
        self._records = records
        self._hold_ms = settings.overflow_hold_ms
        self._reports = reports
        self._rooms = rooms
        # workload → (task, region); that of which any was stuck last is the last
        self._full_until_ms: dict[WorkloadPath, dict[tuple[str, str], int]] = {}

    def forget(self, path: WorkloadPath) -> None:
        """The workload is gone."""
        self._full_until_ms.pop(path, None)

    def expire(self, now_ms: int, most: int) -> None:
        """Forgets up to `most` workloads that count as stuck nowhere any more."""
        for path in list(itertools.islice(self._full_until_ms, most)):
            if max(self._full_until_ms[path].values()) > now_ms:
                return
            del self._full_until_ms[path]

    def outlook(
        self,
        path: WorkloadPath,
        task: str,
        request: Vector,
        live: Live,
        taken: Mapping[str, Vector],
        now_ms: int,
    ) -> spread.Outlook:
        """What one task may hope for in each region of `taken`: what its other tasks are to have there."""
        stuck = self._stuck(path, task, live, now_ms)
        fitting = {region: self._rooms.of(region, request, taken[region]) for region in taken}
        room = {region: count for region, count in fitting.items() if count is not None}
        full = frozenset(region for region in taken if self._is_full(path, task, region, now_ms))
        return spread.Outlook(room, stuck, full)

    def may_move(self, path: WorkloadPath, now_ms: int) -> bool:
        """Whether another region might take replicas that wait for room."""
        workload = self._records.workloads.get(*path)
        if workload is None or path not in self._reports.with_unplaced():
            return False
        if workload.spec.spread.strategy == spread.EVEN:
            return True  # its level goes by which regions are full, whatever room they tell of
        live = {name: share for name, share in self._records.shares_of(*path).items() if not share.removed}
        return any(self._may_move(workload, task, live, now_ms) for task in workload.spec.tasks)

    def _may_move(self, workload: objects_pb2.Workload, task: objects_pb2.Task, live: Live, now_ms: int) -> bool:
        path = (workload.metadata.tenant, workload.metadata.name)
        if not any(self._stuck(path, task.name, live, now_ms).values()):
            return False
        request = vector(task.resources.requests)
        places = {*(workload.spec.regions or self._records.region_names()), *live}
        open_ = (region for region in places if not self._is_full(path, task.name, region, now_ms))
        return any(self._rooms.of(region, request) for region in open_)

    def _stuck(self, path: WorkloadPath, task: str, live: Live, now_ms: int) -> dict[str, int]:
        """How many in each region; where any are is full."""
        stuck = {name: self._reports.stuck(share, task, now_ms) for name, share in live.items()}
        if full := {(task, region): now_ms + self._hold_ms for region, count in stuck.items() if count}:
            self._full_until_ms[path] = self._full_until_ms.pop(path, {}) | full
        return stuck

    def _is_full(self, path: WorkloadPath, task: str, region: str, now_ms: int) -> bool:
        """Some found no place there not long ago, whatever the numbers say."""
        return self._full_until_ms.get(path, {}).get((task, region), 0) > now_ms
