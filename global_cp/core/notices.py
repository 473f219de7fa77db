"""Telling others that a job has ended: which ends are told to whom, when it is tried, and until when.

A notice is one address that is to be told of one end. It is written by the transaction that writes the end (STATUS, or
DELETE and EXPIRE of a job that has not ended), so every end is told at least once, whoever leads. It is sent at once,
and after each failure again, after pauses that double; so many at a time, and of one tenant, that a dead address holds
nobody up. What was delivered is deleted (NOTICE); what nobody took within `notify_give_up_ms` is given up, and kept for
a day for people to see. Leaves to others: HTTP (webhooks.py), and which addresses are allowed (notify_rules.py).
"""

import itertools
import json
from collections import Counter
from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.lane import Settled
from atoll.model.cron import rfc3339
from atoll.model.pauses import doubled_ms
from global_cp.config import CoreSettings
from global_cp.core import jobs, transactions
from global_cp.core.alarms import Alarms
from global_cp.core.commands import Announce, Command, Notify
from global_cp.core.events import Notified
from global_cp.core.records import Change, Records
from global_cp.core.reports import WorkloadPath
from global_cp.core.topics import Proposal

SUCCEEDED, FAILED = objects_pb2.JOB_OUTCOME_SUCCEEDED, objects_pb2.JOB_OUTCOME_FAILED
STOPPED = objects_pb2.JOB_OUTCOME_STOPPED
_OUTCOMES = {jobs.DONE: SUCCEEDED, jobs.FAILED: FAILED}
_LONGEST_TEXT = 300
_BATCH = 40
NoticePath = tuple[str, str]  # tenant, id


def of_end(
    workload: objects_pb2.Workload, before: objects_pb2.JobStatus, after: objects_pb2.JobStatus
) -> list[objects_pb2.Notice]:
    """Of a job whose status becomes `after`: none unless it ends by that."""
    again = (before.phase, before.ended_ms) == (after.phase, after.ended_ms)
    if not workload.spec.notify or after.phase not in jobs.OVER or again:
        return []
    return _notices(workload, after, _OUTCOMES[after.phase], after.reason, after.message, after.ended_ms)


def of_deletion(
    workload: objects_pb2.Workload, status: objects_pb2.WorkloadStatus | None, now_ms: int
) -> list[objects_pb2.Notice]:
    """Of a job that is deleted: none if it has ended, or is only the schedule of others."""
    spec, metadata = workload.spec, workload.metadata
    job = status.job if status is not None else jobs.NO_STATUS
    over = job.phase in jobs.OVER and job.generation == metadata.generation
    if not spec.notify or spec.HasField("schedule") or over or metadata.deleted_ms:
        return []
    return _notices(workload, job, STOPPED, "Deleted", "it was deleted before its end", now_ms)


def _notices(
    workload: objects_pb2.Workload,
    job: objects_pb2.JobStatus,
    outcome: "objects_pb2.JobOutcome.ValueType",
    reason: str,
    message: str,
    ended_ms: int,
) -> list[objects_pb2.Notice]:
    metadata = workload.metadata
    return [
        objects_pb2.Notice(
            id=f"{metadata.uid}.{metadata.generation}.{index}",
            tenant=metadata.tenant,
            workload=metadata.name,
            schedule=metadata.owner,
            uid=metadata.uid,
            generation=metadata.generation,
            outcome=outcome,
            reason=reason,
            message=message[:_LONGEST_TEXT],
            started_ms=job.started_ms,
            ended_ms=ended_ms,
            tasks=job.tasks,
            url=wish.url,
        )
        for index, wish in enumerate(workload.spec.notify)
        if not wish.on or outcome in wish.on
    ]


class Notices:
    """The topic: notices that nobody has taken yet."""

    def __init__(self, records: Records, settings: CoreSettings, reign: str) -> None:
        """`reign`: tells this leader's tries from every other's."""
        self._records = records
        self._settings = settings
        self._reign = reign
        self._numbers = 0
        self._alarms = Alarms()
        self._ready: dict[str, dict[NoticePath, None]] = {}  # by tenant; the one whose turn is next comes first
        self._tries: Counter[NoticePath] = Counter()  # that failed, of this leader
        self._errors: dict[NoticePath, str] = {}  # of the last of them
        self._under_way: dict[str, NoticePath] = {}  # by number
        self._of_tenant: Counter[str] = Counter()  # of these
        self._ended: dict[NoticePath, objects_pb2.Notice | None] = {}  # to be written: given up, or (None) deleted
        self._failed: dict[WorkloadPath, dict[str, objects_pb2.Notice]] = {}  # by workload, then id

    def read(self, change: Change) -> None:
        self.changed(change, [])

    def failed(self, path: WorkloadPath, uid: str) -> list[objects_pb2.Notice]:
        """Of a workload: what was given up."""
        return [notice for _, notice in sorted(self._failed.get(path, {}).items()) if notice.uid == uid]

    def heard(self, event: Notified, now_ms: int) -> None:
        path = self._under_way.pop(event.number, None)
        if path is None:
            return  # of another leader
        self._of_tenant[path[0]] -= 1
        notice = self._records.notices.get(*path)
        if notice is None:
            return
        if not event.error:
            self._ended[path] = None
            return
        self._tries[path] += 1
        self._errors[path] = event.error[:_LONGEST_TEXT]
        until_ms = notice.ended_ms + self._settings.notify_give_up_ms
        pause_ms = doubled_ms(
            self._settings.notify_first_ms, self._settings.notify_longest_ms, self._tries[path], notice.id
        )
        if event.final or now_ms + pause_ms > until_ms:
            self._give_up(path, notice, now_ms)
        else:
            self._alarms.set(path, now_ms + pause_ms)

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        for path in self._alarms.due(now_ms, self._settings.looks_at_once):
            if (notice := self._records.notices.get(*path)) and notice.failed_ms:
                self._ended[path] = None  # kept long enough
            elif notice:
                self._ready.setdefault(path[0], {})[path] = None
        self._send(now_ms, out)
        if not self._ended:
            return None
        batch = [(path, self._ended.pop(path)) for path in list(itertools.islice(self._ended, _BATCH))]
        return Proposal(transactions.notices(self._records, batch), batch)

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """What was not written is written again, if it is there still."""
        assert isinstance(item, list)
        for path, notice in item:
            stored = self._records.notices.get(*path)
            if stored is not None and (notice is None or not stored.failed_ms):
                self._ended[path] = notice

    def changed(self, change: Change, out: list[Command]) -> None:
        if change.kind != "notice":
            return
        if isinstance(change.before, objects_pb2.Notice):
            self._forget(change.before)
        if isinstance(change.after, objects_pb2.Notice):
            self._note(change.after)
            if change.after.failed_ms:
                out.append(Announce(_given_up(change.after)))

    def deadline(self) -> int | None:
        return 0 if self._ended else self._alarms.next_ms()

    def _note(self, notice: objects_pb2.Notice) -> None:
        if notice.failed_ms:
            self._failed.setdefault((notice.tenant, notice.workload), {})[notice.id] = notice
            self._alarms.set((notice.tenant, notice.id), notice.failed_ms + self._settings.notice_keep_ms)
        else:
            self._alarms.set((notice.tenant, notice.id), 0)

    def _forget(self, notice: objects_pb2.Notice) -> None:
        path, of = (notice.tenant, notice.id), (notice.tenant, notice.workload)
        self._alarms.set(path, None)
        self._ready.get(path[0], {}).pop(path, None)
        self._tries.pop(path, None)
        self._errors.pop(path, None)
        if self._failed.get(of, {}).pop(notice.id, None) and not self._failed[of]:
            del self._failed[of]

    def _send(self, now_ms: int, out: list[Command]) -> None:
        """Tenants take turns, so that dead addresses of some hold up no other's."""
        for tenant in list(self._ready) if len(self._under_way) < self._settings.notify_at_once else ():
            waiting, before = self._ready[tenant], self._of_tenant[tenant]
            while waiting and self._may_try(tenant):
                path = next(iter(waiting))
                del waiting[path]
                if notice := self._records.notices.get(*path):
                    self._try(path, notice, out)
            if not waiting or self._of_tenant[tenant] > before:
                del self._ready[tenant]
                self._ready |= {tenant: waiting} if waiting else {}
            if len(self._under_way) == self._settings.notify_at_once:
                break

    def _may_try(self, tenant: str) -> bool:
        settings = self._settings
        return len(self._under_way) < settings.notify_at_once and self._of_tenant[tenant] < settings.notify_of_tenant

    def _try(self, path: NoticePath, notice: objects_pb2.Notice, out: list[Command]) -> None:
        self._numbers += 1
        number = f"{self._reign}.{self._numbers}"
        self._under_way[number] = path
        self._of_tenant[path[0]] += 1
        out.append(Notify(number, notice.tenant, notice.id, notice.url, body(notice)))

    def _give_up(self, path: NoticePath, notice: objects_pb2.Notice, now_ms: int) -> None:
        failed = objects_pb2.Notice()
        failed.CopyFrom(notice)
        failed.failed_ms = now_ms
        failed.error = self._errors[path]
        self._ended[path] = failed


def _given_up(notice: objects_pb2.Notice) -> objects_pb2.Event:
    return objects_pb2.Event(
        at_ms=notice.failed_ms,
        type="NotifyFailed",
        object=f"workload/{notice.tenant}/{notice.workload}",
        tenant=notice.tenant,
        message=f"{notice.url} was not told of its end: {notice.error}",
    )


def body(notice: objects_pb2.Notice) -> bytes:
    """JSON: what is posted. Times are RFC 3339; what is not known is left out."""
    outcome = _word(objects_pb2.JobOutcome.Name(notice.outcome), "JOB_OUTCOME_")
    data: dict[str, Any] = {
        "tenant": notice.tenant,
        "workload": notice.schedule or notice.workload,
        "run": notice.workload if notice.schedule else "",
        "uid": notice.uid,
        "generation": notice.generation,
        "outcome": outcome,
        "reason": notice.reason,
        "message": notice.message,
        "startedAt": rfc3339(notice.started_ms) if notice.started_ms else "",
        "endedAt": rfc3339(notice.ended_ms),
        "tasks": [_task(task) for task in notice.tasks],
    }
    told = {"type": f"job.{outcome}", "timestamp": rfc3339(notice.ended_ms), "data": _known(data)}
    return json.dumps(told, ensure_ascii=False).encode()


def _task(task: objects_pb2.TaskStatus) -> dict[str, Any]:
    told: dict[str, Any] = {
        "task": task.task,
        "phase": _word(objects_pb2.TaskPhase.Name(task.phase), "TASK_PHASE_"),
        "succeeded": task.succeeded,
        "failed": task.failed,
        "reason": task.reason,
        "message": task.message[:_LONGEST_TEXT],
    }
    if task.HasField("exit"):
        told["exit"] = {"code": task.exit.code, "kind": task.exit.reason, "message": task.exit.message[:_LONGEST_TEXT]}
    return _known(told)


def _known(data: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value != ""}


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower().replace("_", "-")
