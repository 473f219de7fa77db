"""Runs of jobs that have a schedule: each is a workload of its own, called after its schedule and its minute (UTC).

Decides when a run begins, whether it is missed, and which runs that have ended are kept. A time that is due is settled
once: the run and the note that its time is over are one transaction (RUN), so no leader begins it again, and none loses
it. Of several times that were due while nobody led only the last one is caught up, the others are missed. A run whose
schedule is deleted, or gone, is deleted as well.
"""

import itertools
from collections.abc import Sequence

from atoll.api.v1 import objects_pb2
from atoll.lane import Settled
from atoll.model.cron import Cron, CronError, Offset, Zones, compact_utc, parse
from global_cp.config import CoreSettings
from global_cp.core import jobs, notices, transactions
from global_cp.core.alarms import Alarms
from global_cp.core.commands import Command
from global_cp.core.records import Change, Records
from global_cp.core.reports import WorkloadPath
from global_cp.core.topics import Proposal

SCHEDULE_LABEL = "atoll/schedule"  # of its runs, for selectors
FORBID, REPLACE = objects_pb2.CONCURRENCY_FORBID, objects_pb2.CONCURRENCY_REPLACE
TOO_LATE, STILL_RUNNING, NAME_TAKEN = "TooLate", "StillRunning", "NameTaken"
_S_IN_MS = 1_000
_COUNTED = 1_000  # missed times at once; beyond, so many at least


class Schedules:
    """The topic."""

    def __init__(self, records: Records, settings: CoreSettings, zones: Zones) -> None:
        self._records = records
        self._settings = settings
        self._zones = zones
        self._alarms = Alarms()
        self._dirty: dict[WorkloadPath, None] = {}  # schedules to be looked at
        self._runs: dict[WorkloadPath, dict[str, None]] = {}  # by schedule, the names of its runs
        self._goes_on = False  # more than may be looked at before other events are handled

    def read(self, change: Change) -> None:
        assert isinstance(change.after, objects_pb2.Workload)
        self._note(change.after)

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        self._dirty.update(dict.fromkeys(self._alarms.due(now_ms, self._settings.looks_at_once)))
        for path in list(itertools.islice(self._dirty, self._settings.looks_at_once)):
            if proposal := self._step(path, now_ms):
                return proposal
            del self._dirty[path]
        self._goes_on = bool(self._dirty)
        return None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """Nothing to do: what was committed is in the records, and what was not is looked at again."""

    def changed(self, change: Change, out: list[Command]) -> None:
        path = (change.path[0], change.path[1]) if len(change.path) > 1 else None
        if path is None:
            return
        if change.kind == "workload":
            for document in (change.before, change.after):
                if isinstance(document, objects_pb2.Workload):
                    self._note(document)
            if change.after is None and path in self._runs:
                self._dirty[path] = None
        elif change.kind == "status":
            told = self._records.workloads.get(*path)
            if told is not None and told.metadata.owner:
                self._dirty[path[0], told.metadata.owner] = None  # a run may have ended
            elif told is not None and told.spec.HasField("schedule"):
                self._dirty[path] = None  # its first status may have been awaited

    def deadline(self) -> int | None:
        return 0 if self._goes_on else self._alarms.next_ms()

    def _note(self, workload: objects_pb2.Workload) -> None:
        metadata = workload.metadata
        if workload.spec.HasField("schedule"):
            self._dirty[metadata.tenant, metadata.name] = None
        if metadata.owner:
            owner = (metadata.tenant, metadata.owner)
            names = self._runs.setdefault(owner, {})
            if self._records.workloads.get(metadata.tenant, metadata.name) is not None:
                names[metadata.name] = None
            else:
                names.pop(metadata.name, None)
            if not names:
                del self._runs[owner]
            self._dirty[owner] = None

    # ---- one step of one schedule

    def _step(self, path: WorkloadPath, now_ms: int) -> Proposal | None:
        parent = self._records.workloads.get(*path)
        runs = [run for name in sorted(self._runs.get(path, ())) if (run := self._records.workloads.get(path[0], name))]
        live = [run for run in runs if not run.metadata.deleted_ms]
        if parent is None or parent.metadata.deleted_ms or not parent.spec.HasField("schedule"):
            self._alarms.set(path, None)
            return self._expire(live[0], now_ms) if live else None
        if surplus := self._surplus(parent, live):
            return self._expire(surplus, now_ms)
        return self._next(parent, runs, now_ms)

    def _surplus(
        self, parent: objects_pb2.Workload, live: Sequence[objects_pb2.Workload]
    ) -> objects_pb2.Workload | None:
        """The oldest run that is not to be kept: of another schedule of that name, or one too many."""
        schedule = parent.spec.schedule
        left = {jobs.DONE: schedule.keep_succeeded, jobs.FAILED: schedule.keep_failed}
        found = None
        for run in reversed(live):  # the newest are kept
            phase = self._job(run).phase
            if run.metadata.owner_uid != parent.metadata.uid:
                found = run
            elif phase in left:
                left[phase] -= 1
                found = run if left[phase] < 0 else found
        return found

    def _next(self, parent: objects_pb2.Workload, runs: Sequence[objects_pb2.Workload], now_ms: int) -> Proposal | None:
        schedule, metadata = parent.spec.schedule, parent.metadata
        path = (metadata.tenant, metadata.name)
        stored = self._records.statuses.get(*path)
        if stored is None:
            return None  # it is being written; then its change is told
        status = objects_pb2.WorkloadStatus()
        status.CopyFrom(stored)
        now = status.schedule
        cron = self._cron(schedule)
        if cron is None:
            return None  # a zone that is no more: admission has checked it
        spelled = f"{schedule.cron} {schedule.time_zone}"
        if now.cron != spelled:
            now.Clear()
            now.cron, now.last_ms = spelled, now_ms
        due = None if schedule.suspended else cron.last_ms(now_ms, now.last_ms, self._offset(schedule))
        begun = None
        if due is not None:
            active = [run for run in runs if run.metadata.deleted_ms or self._job(run).phase not in jobs.OVER]
            if schedule.concurrency == REPLACE and active and not self._late(schedule, due, now_ms):
                return self._replace(path, active, due + schedule.starting_deadline_s * _S_IN_MS, now_ms)
            begun = self._settle(parent, now, cron, due, active, now_ms)
        following = None if schedule.suspended else cron.next_ms(max(now_ms, now.last_ms), self._offset(schedule))
        now.next_ms = following or 0
        self._alarms.set(path, following)
        if status == stored:
            return None
        return Proposal(transactions.run(self._records, parent, status, begun), None)

    def _replace(
        self, path: WorkloadPath, active: Sequence[objects_pb2.Workload], until_ms: int, now_ms: int
    ) -> Proposal | None:
        """Earlier runs are deleted; their end is told. None: they are going, and until then the new one waits."""
        self._alarms.set(path, until_ms + 1 if until_ms >= now_ms else None)
        earlier = next((run for run in active if not run.metadata.deleted_ms), None)
        return self._expire(earlier, now_ms) if earlier else None

    def _settle(
        self,
        parent: objects_pb2.Workload,
        now: objects_pb2.ScheduleStatus,
        cron: Cron,
        due: int,
        active: Sequence[objects_pb2.Workload],
        now_ms: int,
    ) -> objects_pb2.Workload | None:
        """The run of a time that is due, noted in `now`; None: it is missed."""
        schedule, metadata = parent.spec.schedule, parent.metadata
        begun = run_of(parent, due, now_ms)
        reason = ""
        if self._late(schedule, due, now_ms):
            reason = TOO_LATE
        elif schedule.concurrency == FORBID and active:
            reason = STILL_RUNNING
        elif self._records.workloads.get(metadata.tenant, begun.metadata.name) is not None:
            reason = NAME_TAKEN
        earlier = self._between(cron, schedule, now.last_ms, due)
        now.missed += earlier + bool(reason)
        now.reason = reason or (TOO_LATE if earlier else now.reason)
        now.last_ms = due
        if reason:
            return None
        now.last_run = begun.metadata.name
        return begun

    def _between(self, cron: Cron, schedule: objects_pb2.Schedule, after_ms: int, due: int) -> int:
        """How many times were due behind `after_ms` and before `due`."""
        count, at = 0, cron.next_ms(after_ms, self._offset(schedule))
        while at is not None and at < due and count < _COUNTED:
            count, at = count + 1, cron.next_ms(at, self._offset(schedule))
        return count

    @staticmethod
    def _late(schedule: objects_pb2.Schedule, due: int, now_ms: int) -> bool:
        return bool(schedule.starting_deadline_s) and now_ms - due > schedule.starting_deadline_s * _S_IN_MS

    def _cron(self, schedule: objects_pb2.Schedule) -> Cron | None:
        try:
            return parse(schedule.cron) if self._zones(schedule.time_zone, 0) is not None else None
        except CronError:
            return None

    def _offset(self, schedule: objects_pb2.Schedule) -> Offset:
        return lambda at_ms: self._zones(schedule.time_zone, at_ms) or 0

    def _job(self, run: objects_pb2.Workload) -> objects_pb2.JobStatus:
        status = self._records.statuses.get(run.metadata.tenant, run.metadata.name)
        current = status is not None and status.job.generation == run.metadata.generation
        return status.job if status is not None and current else jobs.NO_STATUS

    def _expire(self, run: objects_pb2.Workload, now_ms: int) -> Proposal:
        marked = objects_pb2.Workload()
        marked.CopyFrom(run)
        marked.metadata.deleted_ms = now_ms
        status = self._records.statuses.get(run.metadata.tenant, run.metadata.name)
        told = notices.of_deletion(run, status, now_ms)
        return Proposal(transactions.expire(self._records, marked, told), None)


def run_of(parent: objects_pb2.Workload, due_ms: int, now_ms: int) -> objects_pb2.Workload:
    """The workload that runs what is due: the job as its schedule has it."""
    metadata = parent.metadata
    run = objects_pb2.Workload(spec=parent.spec)
    run.spec.ClearField("schedule")
    run.spec.ClearField("resumed")  # the job was, when it had no schedule yet; a run begins anew
    run.metadata.CopyFrom(
        objects_pb2.Metadata(
            name=f"{metadata.name}-{compact_utc(due_ms)}",
            tenant=metadata.tenant,
            annotations=metadata.annotations,
            generation=1,
            created_ms=now_ms,
            uid=f"{metadata.uid}.{due_ms // 60_000}",
            owner=metadata.name,
            owner_uid=metadata.uid,
        )
    )
    labels = {label.key: label.value for label in metadata.labels} | {SCHEDULE_LABEL: metadata.name}
    run.metadata.labels.extend(objects_pb2.Label(key=key, value=labels[key]) for key in sorted(labels))
    return run
