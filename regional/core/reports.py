"""What the global plane is told: counts and reasons of each workload, use of each slice, a summary of the region.

All absolute, sent when changed and at most once a period, and all of it again when the uplink is back.
"""

import itertools

import numpy as np

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model import explain
from atoll.model.gpu_models import MOST_MODELS
from atoll.model.resources import NOTHING, Vector
from regional.core import ailing, bursting, gangs, headroom, slices
from regional.core.binding import announce
from regional.core.commands import SendUp
from regional.core.filters import Cure
from regional.core.queue import NEVER_MS, SchedulingClass
from regional.core.reasons import Refresher
from regional.core.records import TaskEntry, WorkloadEntry
from regional.core.state import State, Turn


class Reporter:
    """When what was sent last."""

    def __init__(self, now_ms: int) -> None:
        self._workloads_due_ms = now_ms
        self._summary_due_ms = now_ms
        self._summary: objects_pb2.RegionSummary | None = None  # but for its revision
        self._stale = True  # counts of replicas have changed since
        self._table_version = 0  # that it was made from
        self._refresher = Refresher()

    def next_due_ms(self, state: State) -> int:
        if not state.uplink:
            return NEVER_MS
        return min(self._workloads_due_ms, self._summary_due_ms) if state.changed else self._summary_due_ms

    def flush(self, state: State, turn: Turn) -> None:
        """To be called after every event."""
        state.demand.keep_up(state.workloads)
        if not state.uplink:
            return
        self._stale = self._stale or bool(state.changed)
        if state.changed and turn.now_ms >= self._workloads_due_ms:
            settings, unproven = state.settings, {}
            batch = list(itertools.islice(state.changed.items(), settings.report_batch))
            for key, workload in batch:
                del state.changed[key]
                if _unproven(state, workload):
                    unproven[key] = workload
                else:
                    _report(state, workload, turn)
            more = bool(state.changed) and len(unproven) < len(batch)
            state.changed.update(unproven)
            self._workloads_due_ms = turn.now_ms + (settings.report_more_ms if more else settings.report_period_ms)
        if turn.now_ms >= self._summary_due_ms:
            self._summary_due_ms = turn.now_ms + state.settings.summary_period_ms
            self._summarize(state, turn)
            self._refresher.look(state, turn.now_ms)

    def _summarize(self, state: State, turn: Turn) -> None:
        if self._stale or state.table.version != self._table_version:
            self._stale, self._table_version = False, state.table.version
            bare = _summary(state)
            if bare != self._summary:
                self._summary = bare
                message = regional_pb2.UplinkMessage(summary=bare)
                message.summary.revision = state.revision
                turn.do(SendUp(message))
        bursting.look(state)
        for account in state.accounts.values():
            if account.mod_revision and account.standing() != account.reported:
                slices.acknowledge(state, account, turn)

    def everything(self, state: State, turn: Turn) -> None:
        """The uplink is (again) up: nothing sent before counts."""
        self._summary, self._stale = None, True
        self._workloads_due_ms = self._summary_due_ms = turn.now_ms
        for account in state.accounts.values():
            account.reported = None
        for workload in state.workloads.values():
            workload.report = b""
        state.changed.update(state.workloads)


def _unproven(state: State, workload: WorkloadEntry) -> bool:
    """Whether it is too early to say that what nobody here knows is gone: not before this leader has proved that it
    still was one when it was asked, nor before every leader to come refuses whoever does not know of the removal."""
    reign = workload.share.store_life, workload.share.global_term
    return workload.asked_ms >= state.applied_sent_ms or (workload.asked_ms >= 0 and reign > state.noted)


def _report(state: State, workload: WorkloadEntry, turn: Turn) -> None:
    if not workload.share.metadata.name:
        return  # not admitted yet
    known = state.workloads.get((workload.tenant, workload.name))
    closed = workload.share.removed and known is not workload
    _announce_ailments(state, workload, turn)
    if known is not None and known is not workload:
        return  # forgotten, and admitted anew since
    report = regional_pb2.WorkloadReport(
        tenant=workload.tenant,
        workload=workload.name,
        generation=workload.generation,
        counts=counts(workload),
        pending=pending(workload),
        closed=closed,
        uid=workload.uid,
        tasks=[_task(task) for _, task in sorted(workload.tasks.items()) if task.spec or task.surplus],
        share_revision=_revision(state, workload.share),
    )
    digest = report.SerializeToString(deterministic=True)
    if digest != workload.report:
        workload.report = digest
        turn.do(SendUp(regional_pb2.UplinkMessage(workload=report)))


def _announce_ailments(state: State, workload: WorkloadEntry, turn: Turn) -> None:
    """Each code once, until all of it is well."""
    tasks = [task for task in workload.tasks.values() if task.ailing]
    if not tasks:
        if workload.ailments and all(
            t.tally.serving + t.tally.succeeded >= t.replicas for t in workload.tasks.values()
        ):
            workload.ailments.clear()
            announce(turn, state, workload.tenant, workload.name, "Well", "every replica is well again")
        return
    for task in tasks:
        for reason in ailing.ailments(task.ailing.values()):
            if reason.code not in workload.ailments:
                workload.ailments.add(reason.code)
                text = f"{task.name}: {reason.message} ({reason.code})"
                announce(turn, state, workload.tenant, workload.name, "Ailing", text)


def _task(task: TaskEntry) -> regional_pb2.TaskReport:
    cls, tally = gangs.stands_as(task), task.tally
    ended = tally.succeeded + tally.failed
    waiting = max(0, task.replicas - tally.bound - ended)
    parked = cls is not None and cls.parked and not _full(cls)
    unpaid = cls is not None and Cure.QUOTA in cls.cures
    tried = 0 if cls is None or not parked else waiting if cls.gang else min(cls.size, waiting)
    return regional_pb2.TaskReport(
        task=task.name,
        desired=task.replicas,
        healthy=tally.healthy,
        ended=ended,
        waiting=waiting,
        unplaced=0 if unpaid else tried,
        unpaid=tried if unpaid else 0,
        succeeded=tally.succeeded,
        failed=tally.failed,
        surplus=task.surplus,
        failure=_failure(task) if tally.failed else "",
        exit=_exit(task) if tally.failed else None,
    )


def _revision(state: State, share: objects_pb2.Share) -> int:
    """Of a share with parts of a parallelism, in the global plane's store as it is."""
    return share.global_revision if share.parallel and share.store_life == state.heard[0] else 0


def _failure(task: TaskEntry) -> str:
    """Of one replica that has failed for good; always the same while it is there."""
    index = _first_failed(task)
    return "" if index is None else f"{task.name}/{index}: {ailing.ailment(task.ailing[index]).message}"


def _exit(task: TaskEntry) -> objects_pb2.Exit | None:
    index = _first_failed(task)
    return None if index is None else task.ailing[index].record.exit


def _first_failed(task: TaskEntry) -> int | None:
    return min((i for i, entry in task.ailing.items() if entry.ended), default=None)


def _full(cls: SchedulingClass) -> bool:
    """It waits for others of its own task, not for room."""
    return bool(cls.reasons) and cls.reasons[0].code == explain.PARALLELISM


def counts(workload: WorkloadEntry) -> objects_pb2.SlotCounts:
    result = objects_pb2.SlotCounts()
    for task in workload.tasks.values():
        tally = task.tally
        result.desired += task.replicas
        result.bound += tally.bound
        result.started += tally.started
        result.ready += tally.ready
        result.serving += tally.serving
        result.succeeded += tally.succeeded
        result.failed += tally.failed
    result.waiting = result.desired - result.bound - result.succeeded - result.failed
    return result


def pending(workload: WorkloadEntry) -> list[objects_pb2.PendingReason]:
    """Why replicas wait, or are placed and not well, over all tasks; at most one entry a reason, the latter first."""
    ill: dict[str, objects_pb2.PendingReason] = {}
    found: dict[str, objects_pb2.PendingReason] = {}
    for task in workload.tasks.values():
        for reason in ailing.ailments(task.ailing.values()):
            ill.setdefault(reason.code, reason)
        cls = gangs.stands_as(task)
        if cls and cls.parked and cls.size:
            for reason in cls.reasons:
                found.setdefault(reason.code, reason)
        if cls and cls.delayed:
            found.setdefault(explain.BACK_OFF, explain.reason(explain.BACK_OFF))
    return [*(ill[code] for code in sorted(ill)), *(found[code] for code in sorted(found) if code not in ill)]


def summary(state: State) -> objects_pb2.RegionSummary:
    document = _summary(state)
    document.revision = state.revision
    return document


def _summary(state: State) -> objects_pb2.RegionSummary:
    table = state.table
    standing = table.standing()
    free = Vector(*np.maximum(table.free(standing.open), 0).sum(axis=0).tolist())
    if state.settings.headroom_percent:
        free = free.at_most(headroom.room(state).left.at_least(NOTHING))
    demand = state.demand
    demand.refresh(state.workloads)
    models = table.gpus.most()
    return objects_pb2.RegionSummary(
        nodes_ready=standing.ready,
        nodes_total=len(state.nodes),
        capacity=state.total_capacity().to_proto(),
        used=Vector(*table.in_use.tolist()).to_proto(),
        slots_waiting=demand.all.waiting,
        queue_limit=state.settings.queue_slots,
        queues=[objects_pb2.TenantQueue(tenant=t, waiting=n) for t, n in sorted(demand.waiting.items())],
        slots_bound=demand.all.bound,
        term=state.authority.term,
        largest_node=Vector(*standing.largest).to_proto(),
        free=free.to_proto(),
        waiting=demand.all.asked.to_proto(),
        open_capacity=Vector(*standing.capacity).to_proto(),
        gpu_models=[objects_pb2.GpuModel(model=m, most=n) for m, n in models.items() if len(models) <= MOST_MODELS],
    )
