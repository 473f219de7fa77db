"""What users are told of a workload: counts, conditions and reasons, from the regions' reports.

Decides `WorkloadStatus` and writes it in batches at a bounded rate. Only reports at the workload's present generation
count; `observed_generation` follows when every live share has one. Status is a rolled-up view and authorizes nothing.
After a takeover a region's counts are those of the stored status until it reports again, so nothing flaps.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.lane import Committed, Settled
from atoll.model.accounts import limits, missing
from atoll.model.resources import NOTHING
from global_cp.config import CoreSettings
from global_cp.core import jobs, notices, recovery, transactions
from global_cp.core.alarms import Alarms
from global_cp.core.bundles import MOST_BYTES
from global_cp.core.commands import Command
from global_cp.core.records import Change, Records
from global_cp.core.reports import Reports, WorkloadPath
from global_cp.core.shares import planned
from global_cp.core.spread import meets
from global_cp.core.topics import Proposal

TRUE, FALSE = objects_pb2.CONDITION_STATUS_TRUE, objects_pb2.CONDITION_STATUS_FALSE
NO_COUNTS = objects_pb2.SlotCounts()
PIPELINE = ("Bound", "Started", "Ready", "Serving")


class Holds(NamedTuple):
    """A condition as it is now."""

    type: str
    holds: bool
    reason: str
    message: str


def add_counts(total: objects_pb2.SlotCounts, parts: Iterable[objects_pb2.SlotCounts]) -> None:
    for part in parts:
        total.desired += part.desired
        total.bound += part.bound
        total.started += part.started
        total.ready += part.ready
        total.serving += part.serving
        total.succeeded += part.succeeded
        total.failed += part.failed
        total.waiting += part.waiting


def set_conditions(
    status: objects_pb2.WorkloadStatus,
    workload: objects_pb2.Workload,
    counts: objects_pb2.SlotCounts,
    observed: bool,
    before: Sequence[objects_pb2.Condition],
    now_ms: int,
    job: objects_pb2.JobStatus | None = None,
    more: Iterable[Holds] = (),
) -> None:
    """Sorted by type; `since_ms` moves only when the status does. Replicas of a job that have succeeded count as
    having come all the way."""
    spec = workload.spec
    desired = sum(task.replicas for task in spec.tasks)
    finished = counts.succeeded if spec.type == objects_pb2.WORKLOAD_TYPE_JOB else 0
    result = [Holds("Admitted", True, "Admitted", ""), *more]
    if not spec.HasField("schedule"):
        deleted = bool(workload.metadata.deleted_ms)
        for name, count in zip(PIPELINE, (counts.bound, counts.started, counts.ready, counts.serving), strict=True):
            holds = observed and count + finished >= desired
            if deleted:
                reason = "Deleting"
            elif not observed:
                reason = "NotObserved"
            elif holds:
                reason = f"All{name}"
            else:
                reason = "Failed" if counts.failed else "Waiting"
            result.append(Holds(name, holds, reason, f"{count + finished}/{desired}"))
    if job is not None:
        over = job.phase in jobs.OVER
        result.append(Holds("Done", over, job.reason if over else "Running", job.message))
    since = {(condition.type, condition.status): condition.since_ms for condition in before}
    for name, holds, reason, message in sorted(result):
        is_ = TRUE if holds else FALSE
        since_ms = since.get((name, is_), now_ms)
        status.conditions.add(type=name, status=is_, reason=reason, message=message, since_ms=since_ms)


def pending_reasons(
    records: Records,
    workload: objects_pb2.Workload,
    reports: Mapping[str, regional_pb2.WorkloadReport],
    waiting: bool,
    job: objects_pb2.JobStatus | None = None,
) -> list[objects_pb2.PendingReason]:
    """What the global plane knows first, then what each region says of itself."""
    reasons: list[objects_pb2.PendingReason] = []
    tenant = workload.metadata.tenant
    shares = records.shares_of(tenant, workload.metadata.name).values()
    held = {task.task for task in job.tasks if task.phase != jobs.T_RUNNING} if job else set()
    tasks = [task for task in workload.spec.tasks if task.name not in held]
    live = [share for share in shares if not share.removed]
    spread = sum(planned(share, task.name) for task in tasks for share in live)
    if spread < sum(task.replicas for task in tasks) and not workload.metadata.deleted_ms:
        reasons.append(objects_pb2.PendingReason(code="NoRegion", message=_closed(records, workload.spec)))
    if job and job.phase not in jobs.OVER:
        reasons += [
            objects_pb2.PendingReason(code=task.reason, message=f"{task.task} {task.message}")
            for task in job.tasks
            if task.phase == jobs.T_PENDING and task.reason
        ]
    document = records.tenants.get(tenant)
    if waiting and document is not None:
        firm, limit = records.firm(tenant), limits(document.spec)
        if lacking := missing(records.asked(tenant), firm, limit):
            burst = " and burst" if limit.burst and not lacking.fits((firm - limit.hard).at_least(NOTHING)) else ""
            message = f"the tenant's workloads ask for {lacking} more than its quota{burst}"
            reasons.append(objects_pb2.PendingReason(code="QuotaExhausted", message=message))
    for region in sorted(reports):
        for reason in reports[region].pending:
            here = objects_pb2.PendingReason(region=region)
            here.MergeFrom(reason)
            reasons.append(here)
    return reasons


def _closed(records: Records, spec: objects_pb2.WorkloadSpec) -> str:
    """Why no region takes more of it."""
    regions = {region.metadata.name: region for region in records.regions}
    named = list(spec.regions) or [count.region for count in spec.spread.fixed] or list(regions)
    words = []
    for name in named:
        region = regions.get(name)
        if region is None:
            words.append(f"{name} is not known")
        elif not meets(spec.spread.residency, region):
            words.append(f"{name} does not meet the residency")
        elif region.state != objects_pb2.REGION_STATE_ACTIVE:
            words.append(f"{name} is not active")
        elif region.cordoned:
            words.append(f"{name} is {'draining' if region.draining else 'cordoned'}")
    return "no allowed region takes more" + (f": {', '.join(words)}" if words else "")


class Statuses:
    """The topic: workloads whose status may have changed."""

    def __init__(
        self,
        records: Records,
        settings: CoreSettings,
        reports: Reports,
        recoveries: recovery.Recovery,
        told: notices.Notices,
    ) -> None:
        self._records = records
        self._settings = settings
        self._reports = reports
        self._recoveries = recoveries
        self._told = told
        self._dirty: dict[WorkloadPath, None] = {}
        self._flying: dict[WorkloadPath, bool] = {}  # in a plan in flight; whether they changed since
        self._alarms = Alarms()  # of jobs whose status time alone changes
        self._not_before_ms = 0

    def read(self, change: Change) -> None:
        path, workload = (change.path[0], change.path[1]), change.after
        assert isinstance(workload, objects_pb2.Workload)
        status = self._records.statuses.get(*path)
        if status is None or not self._records.shares_of(*path):
            self._dirty[path] = None  # of all others the regions tell again
        if status is not None and status.HasField("job"):
            self._alarms.set(path, jobs.next_look_ms(workload.spec, status.job))

    def reported(self, report: regional_pb2.WorkloadReport) -> None:
        self._mark((report.tenant, report.workload))

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        for due in self._alarms.due(now_ms, self._settings.looks_at_once):
            self._mark(due)
        while self._recoveries.touched:
            self._mark(self._recoveries.touched.popitem()[0])
        if not self._dirty or now_ms < self._not_before_ms:
            return None
        batch: dict[WorkloadPath, tuple[objects_pb2.Workload, objects_pb2.WorkloadStatus]] = {}
        news: list[objects_pb2.Notice] = []
        size = 0
        for path in list(itertools.islice(self._dirty, self._settings.looks_at_once)):
            if len(batch) + len(news) >= self._settings.status_batch or size >= MOST_BYTES:
                break
            del self._dirty[path]
            workload = self._records.workloads.get(*path)
            if workload is not None:
                status = self._status(workload, now_ms)
                if status != self._records.statuses.get(*path):
                    batch[path] = workload, status
                    before = self._records.statuses.get(*path)
                    told = notices.of_end(workload, before.job if before else jobs.NO_STATUS, status.job)
                    news += told
                    size += sum(record.ByteSize() for record in (status, *told))
        if not batch:
            return None
        self._not_before_ms = now_ms + self._settings.status_interval_ms
        self._flying.update(dict.fromkeys(batch, False))
        return Proposal(transactions.status(self._records, list(batch.values()), news), tuple(batch))

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """What was written is right unless something changed meanwhile."""
        assert isinstance(item, tuple)
        for path in item:
            if self._flying.pop(path) or not isinstance(settled, Committed):
                self._dirty[path] = None

    def changed(self, change: Change, out: list[Command]) -> None:
        match change.kind:
            case "workload":
                if change.after is not None:
                    self._mark((change.path[0], change.path[1]))
            case "share":
                self._mark((change.path[1], change.path[2]))
            case "status":
                self._status_changed((change.path[0], change.path[1]), change.after)
            case "notice":
                for notice in (change.before, change.after):
                    if isinstance(notice, objects_pb2.Notice) and notice.failed_ms:
                        self._mark((notice.tenant, notice.workload))
            case "region":
                for workload in self._records.workloads:
                    self._mark((workload.metadata.tenant, workload.metadata.name))
            case "tenant":
                for owned in self._records.workloads_of(change.path[0]):
                    self._mark(owned)

    def _mark(self, path: WorkloadPath) -> None:
        """Something that its status rests on may have changed."""
        if path in self._flying:
            self._flying[path] = True
        else:
            self._dirty[path] = None

    def _status_changed(self, path: WorkloadPath, status: Message | None) -> None:
        workload = self._records.workloads.get(*path)
        if isinstance(status, objects_pb2.WorkloadStatus) and status.HasField("job") and workload is not None:
            self._mark(path)  # a job goes on from what was written
            self._alarms.set(path, jobs.next_look_ms(workload.spec, status.job))
        else:
            self._alarms.set(path, None)

    def deadline(self) -> int | None:
        return self._not_before_ms if self._dirty or self._recoveries.touched else self._alarms.next_ms()

    def _status(self, workload: objects_pb2.Workload, now_ms: int) -> objects_pb2.WorkloadStatus:
        """Filled in place: messages inside of messages cost a multiple when they are made first and copied then."""
        metadata, result = workload.metadata, objects_pb2.WorkloadStatus()
        before = self._records.statuses.get(metadata.tenant, metadata.name) or objects_pb2.WorkloadStatus()
        if workload.spec.HasField("schedule"):
            result.observed_generation = metadata.generation
            set_conditions(result, workload, NO_COUNTS, True, before.conditions, now_ms)
            result.schedule.CopyFrom(before.schedule)
            result.schedule.SetInParent()
            return result
        shares = self._records.shares_of(metadata.tenant, metadata.name)
        parts = self._counts(workload, before)
        live = [region for region, share in shares.items() if not share.removed]
        observed = bool(live) and all(
            region in parts and shares[region].metadata.generation == metadata.generation for region in live
        )
        result.observed_generation = metadata.generation if observed else before.observed_generation
        counts = result.counts
        add_counts(counts, parts.values())
        counts.desired = sum(task.replicas for task in workload.spec.tasks)
        for region in sorted(parts):
            result.regions.add(region=region, counts=parts[region])
        reports = self._reports.of((metadata.tenant, metadata.name))
        job = self._job(workload, before.job, reports, now_ms)
        more = [*self._recoverable(workload, before), *self._undelivered(workload)]
        set_conditions(result, workload, counts, observed, before.conditions, now_ms, job, more)
        waits = counts.bound + counts.succeeded < counts.desired and not (job and job.phase in jobs.OVER)
        result.pending.extend(pending_reasons(self._records, workload, reports, waits, job))
        if job is not None:
            result.job.CopyFrom(job)
            result.job.SetInParent()
        return result

    def _recoverable(self, workload: objects_pb2.Workload, before: objects_pb2.WorkloadStatus) -> list[Holds]:
        """What was told last stays said until more is known."""
        if not recovery.asks(workload):
            return []
        verdict = self._recoveries.told((workload.metadata.tenant, workload.metadata.name))
        if verdict is not None:
            return [Holds(recovery.CONDITION, *verdict)] if verdict.reason else []
        kept = [condition for condition in before.conditions if condition.type == recovery.CONDITION]
        return [Holds(each.type, each.status == TRUE, each.reason, each.message) for each in kept]

    def _undelivered(self, workload: objects_pb2.Workload) -> list[Holds]:
        failed = self._told.failed((workload.metadata.tenant, workload.metadata.name), workload.metadata.uid)
        if not failed:
            return []
        return [Holds("Notified", False, "DeliveryFailed", "; ".join(f"{each.url}: {each.error}" for each in failed))]

    @staticmethod
    def _job(
        workload: objects_pb2.Workload,
        before: objects_pb2.JobStatus,
        reports: Mapping[str, regional_pb2.WorkloadReport],
        now_ms: int,
    ) -> objects_pb2.JobStatus | None:
        metadata = workload.metadata
        if workload.spec.type != jobs.JOB:
            return None
        if metadata.deleted_ms:
            return before
        present = (metadata.uid, metadata.generation)
        said = jobs.said(report for report in reports.values() if (report.uid, report.generation) == present)
        return jobs.follow(workload, before, said, now_ms)

    def _counts(
        self, workload: objects_pb2.Workload, before: objects_pb2.WorkloadStatus
    ) -> dict[str, objects_pb2.SlotCounts]:
        """By region: the last report at the present generation, or what the stored status has of that generation."""
        metadata = workload.metadata
        shares = self._records.shares_of(metadata.tenant, metadata.name)
        parts = {}
        if before.observed_generation == metadata.generation:
            parts = {part.region: part.counts for part in before.regions if part.region in shares}
        for region, report in self._reports.of((metadata.tenant, metadata.name)).items():
            if region in shares and report.uid == metadata.uid and report.generation == metadata.generation:
                parts[region] = report.counts
        return parts
