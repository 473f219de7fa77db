"""What becomes of a job: which of its tasks may run, which have ended and how, and when the whole has.

Decides from the spec, the status as stored, and what the regions say of ended replicas. Invariants: what has ended
stays so until the task is another one or the job is resumed; a task runs only when the stored status says that all it
depends on has succeeded. So a step survives every leader: it is written (STATUS), then told to the regions (SET-SHARE).
Leaves to others: where replicas run (spread.py), retries of one replica (the region). Pure.
"""

import hashlib
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import NamedTuple

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.errors import Conflict
from atoll.model import demand, explain
from atoll.model.dag import ordered

JOB = objects_pb2.WORKLOAD_TYPE_JOB
WAITS, RUNS = objects_pb2.JOB_PHASE_PENDING, objects_pb2.JOB_PHASE_RUNNING
DONE, FAILED = objects_pb2.JOB_PHASE_SUCCEEDED, objects_pb2.JOB_PHASE_FAILED
T_PENDING, T_RUNNING = objects_pb2.TASK_PHASE_PENDING, objects_pb2.TASK_PHASE_RUNNING
T_SUCCEEDED, T_FAILED = objects_pb2.TASK_PHASE_SUCCEEDED, objects_pb2.TASK_PHASE_FAILED
T_SKIPPED, T_STOPPED = objects_pb2.TASK_PHASE_SKIPPED, objects_pb2.TASK_PHASE_STOPPED
OVER = (DONE, FAILED)
T_OVER = demand.TASK_OVER
NO_STATUS = objects_pb2.JobStatus()
NOT_OVER = "E3006"
DEADLINE_EXCEEDED, WINDOW_OVER, TASK_FAILED = "DeadlineExceeded", "WindowOver", "TaskFailed"
UPSTREAM_FAILED = "UpstreamFailed"
_S_IN_MS = 1_000


class Ended(NamedTuple):
    """What all regions together say of a task's replicas that have ended for good."""

    succeeded: int = 0
    failed: int = 0
    failure: str = ""  # of one of them
    exit: objects_pb2.Exit | None = None  # likewise


class Opening(Enum):
    """What the regions are told of a task."""

    OPEN = 1
    CLOSED = 2  # nothing of it starts yet, or ever
    STOPPED = 3  # what has not ended is stopped


def said(reports: Iterable[regional_pb2.WorkloadReport]) -> dict[str, Ended]:
    """By task, of reports on the job's present generation."""
    found: dict[str, Ended] = {}
    for report in reports:
        for task in report.tasks:
            before = found.get(task.task, Ended())
            first = before if before.failure else Ended(failure=task.failure, exit=task.exit)
            found[task.task] = Ended(
                before.succeeded + task.succeeded, before.failed + task.failed, first.failure, first.exit
            )
    return found


def follow(
    workload: objects_pb2.Workload, before: objects_pb2.JobStatus, ended: Mapping[str, Ended], now_ms: int
) -> objects_pb2.JobStatus:
    """The status that follows from the one stored; of a job that is not being deleted."""
    spec, generation = workload.spec, workload.metadata.generation
    again = before.generation < spec.resumed
    job = objects_pb2.JobStatus(generation=generation, started_ms=0 if again else before.started_ms)
    if not job.started_ms and now_ms >= spec.not_before_ms:
        job.started_ms = now_ms
    known = {task.task: task for task in before.tasks}
    tasks: dict[str, objects_pb2.TaskStatus] = {}
    open_ = bool(job.started_ms)
    specs = {task.name: task for task in spec.tasks}
    for name in ordered({task.name: task.depends_on for task in spec.tasks}):
        tasks[name] = _task(specs[name], known.get(name), again, tasks, ended.get(name, Ended()), open_)
    if before.phase in OVER and any(task.phase not in T_OVER for task in tasks.values()):
        job.started_ms = now_ms  # a task was changed, or the job resumed: it begins anew
    reason, message = _stopped_by_time(spec, job, now_ms)
    failed = [task for task in tasks.values() if task.phase == T_FAILED]
    if not reason and failed and spec.on_failure != objects_pb2.ON_FAILURE_CONTINUE:
        reason, message = TASK_FAILED, f"task {failed[0].task} failed: {failed[0].message}"
    if reason and any(task.phase not in T_OVER for task in tasks.values()):
        _stop(tasks.values(), reason, message)
    job.tasks.extend(tasks[task.name] for task in spec.tasks)
    _close(job, before, again, reason, message, now_ms)
    return job


def _task(
    spec: objects_pb2.Task,
    before: objects_pb2.TaskStatus | None,
    again: bool,
    others: Mapping[str, objects_pb2.TaskStatus],
    ended: Ended,
    open_: bool,
) -> objects_pb2.TaskStatus:
    """`others`: at least those that it depends on, as they are now. `again`: what did not succeed begins anew."""
    digest = digest_of(spec)
    task = objects_pb2.TaskStatus(task=spec.name, phase=T_PENDING, digest=digest)
    if before is not None and before.digest == digest and (before.phase == T_SUCCEEDED or not again):
        task.CopyFrom(before)
    upstream = [others[name] for name in spec.depends_on if name in others]
    lost = [each.task for each in upstream if each.phase in T_OVER and each.phase != T_SUCCEEDED]
    if task.phase == T_SKIPPED and task.reason == UPSTREAM_FAILED and not lost:  # what it was skipped for runs anew
        task = objects_pb2.TaskStatus(task=spec.name, phase=T_PENDING, digest=digest)
    if task.phase in T_OVER and task.phase not in (T_FAILED, T_STOPPED):
        return task
    if task.phase == T_PENDING:
        if lost:
            task.phase, task.reason = T_SKIPPED, UPSTREAM_FAILED
            task.message = f"{', '.join(lost)} did not succeed"
        elif open_ and all(each.phase == T_SUCCEEDED for each in upstream):
            task.phase = T_RUNNING
        else:
            names = [each.task for each in upstream if each.phase != T_SUCCEEDED]
            task.reason = explain.UPSTREAM if names else explain.NOT_YET
            task.message = f"waits for {', '.join(names)}" if names else "waits for its notBefore"
    if task.phase == T_PENDING or task.phase == T_SKIPPED:
        return task
    task.succeeded = max(task.succeeded, ended.succeeded)
    task.failed = max(task.failed, ended.failed)
    if task.phase == T_RUNNING:
        _count(spec, task, ended)
    return task


def _count(spec: objects_pb2.Task, task: objects_pb2.TaskStatus, ended: Ended) -> None:
    """A running task whose replicas have ended so far."""
    needed = spec.completions or spec.replicas
    task.reason = task.message = ""
    if task.succeeded >= needed:
        task.phase, task.reason = T_SUCCEEDED, "Succeeded"
        task.message = f"{task.succeeded} of {spec.replicas} succeeded"
    elif spec.replicas - task.failed < needed:
        task.phase, task.reason = T_FAILED, "ReplicasFailed"
        task.message = f"{explain.counted(task.failed, 'replica')} failed for good"
        task.message += f"; {ended.failure}" if ended.failure else ""
        if ended.exit is not None:
            task.exit.CopyFrom(ended.exit)


def _stopped_by_time(spec: objects_pb2.WorkloadSpec, job: objects_pb2.JobStatus, now_ms: int) -> tuple[str, str]:
    if spec.active_deadline_s and job.started_ms and now_ms >= job.started_ms + spec.active_deadline_s * _S_IN_MS:
        return DEADLINE_EXCEEDED, f"it has run for longer than its activeDeadline, {spec.active_deadline_s} s"
    if spec.not_after_ms and now_ms >= spec.not_after_ms:
        return WINDOW_OVER, "its notAfter has passed"
    return "", ""


def _stop(tasks: Iterable[objects_pb2.TaskStatus], reason: str, message: str) -> None:
    for task in tasks:
        if task.phase not in T_OVER:
            task.phase = T_SKIPPED if task.phase == T_PENDING else T_STOPPED
            task.reason, task.message = reason, message


def _close(
    job: objects_pb2.JobStatus, before: objects_pb2.JobStatus, again: bool, reason: str, message: str, now_ms: int
) -> None:
    """The phase of the whole. What it ended with first stays said."""
    phases = {task.phase for task in job.tasks}
    if any(phase not in T_OVER for phase in phases):
        job.phase = RUNS if job.started_ms else WAITS
        return
    job.phase = DONE if phases <= {T_SUCCEEDED} else FAILED
    if before.phase == job.phase and not again:
        job.ended_ms, job.reason, job.message = before.ended_ms, before.reason, before.message
        return
    job.ended_ms = now_ms
    if job.phase == DONE:
        job.reason, job.message = "Succeeded", "every task has succeeded"
    else:
        first = next(task for task in job.tasks if task.phase != T_SUCCEEDED)
        worst = next((task for task in job.tasks if task.phase == T_FAILED), first)
        job.reason = reason or (TASK_FAILED if worst.phase == T_FAILED else worst.reason)
        job.message = message or f"task {worst.task} failed: {worst.message}"


def resumed(before: objects_pb2.Workload, status: objects_pb2.WorkloadStatus | None) -> objects_pb2.Workload | Conflict:
    """The job as it is to go on: its next generation, which says that it was resumed."""
    metadata, job = before.metadata, status.job if status else NO_STATUS
    if before.spec.type != JOB:
        return Conflict(f"{metadata.name} is a service: it never ends, so there is nothing to resume", code=NOT_OVER)
    if job.phase != FAILED or job.generation < metadata.generation:
        hint = "change it and apply it, to run it again" if job.phase == DONE else "wait, it has not failed"
        return Conflict(f"job {metadata.name} has not failed, so there is nothing to resume", hint=hint, code=NOT_OVER)
    after = objects_pb2.Workload()
    after.CopyFrom(before)
    after.metadata.generation += 1
    after.spec.resumed = after.metadata.generation
    return after


def corrected(
    before: objects_pb2.Workload, status: objects_pb2.WorkloadStatus | None, wanted: objects_pb2.WorkloadSpec
) -> bool:
    """Whether a job that has failed is to have another task than before: then it goes on, as when resumed."""
    job = status.job if status else NO_STATUS
    if job.phase != FAILED or job.generation < before.metadata.generation:
        return False
    known = {task.name: digest_of(task) for task in before.spec.tasks}
    return any(known.get(task.name) != digest_of(task) for task in wanted.tasks)


def digest_of(task: objects_pb2.Task) -> bytes:
    """Of all that a task's success is a success of; another parallelism or policy of retries changes nothing of it."""
    bare = objects_pb2.Task()
    bare.CopyFrom(task)
    bare.ClearField("parallelism")
    bare.ClearField("retries")
    bare.ClearField("speculation")
    bare.ClearField("depends_on")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).digest()[:8]


def ended(
    workload: objects_pb2.Workload, status: objects_pb2.WorkloadStatus | None, *, changed: bool = False
) -> demand.Ended:
    """How many replicas of each task need nothing any more. A status of another spec, as of one that is `changed` and
    not stored yet, says so of the tasks that are as they were."""
    if workload.spec.type != JOB or status is None or not status.job.tasks:
        return demand.NONE_ENDED
    job = status.job
    if changed or job.generation != workload.metadata.generation:
        job = follow(workload, job, {}, 0)
    return demand.ended(workload.spec, job)


def openings(workload: objects_pb2.Workload, stored: objects_pb2.JobStatus, now_ms: int) -> dict[str, Opening]:
    """By task. `stored` is the committed status: nothing that only this leader has heard opens a task."""
    spec = workload.spec
    job = follow(workload, stored, {}, now_ms) if stored.generation < workload.metadata.generation else stored
    return {task.task: _opening(task, each) for task, each in zip(job.tasks, spec.tasks, strict=True)}


def _opening(task: objects_pb2.TaskStatus, spec: objects_pb2.Task) -> Opening:
    if task.phase in (T_PENDING, T_SKIPPED):
        return Opening.CLOSED
    if task.phase in T_OVER and task.succeeded + task.failed < spec.replicas:
        return Opening.STOPPED
    return Opening.OPEN


def next_look_ms(spec: objects_pb2.WorkloadSpec, job: objects_pb2.JobStatus) -> int | None:
    """When time alone changes the status of a job that has not ended; None: never."""
    if job.phase in OVER:
        return None
    if not job.started_ms and spec.not_before_ms:
        return min(spec.not_before_ms, spec.not_after_ms or spec.not_before_ms)
    ends = [spec.not_after_ms] if spec.not_after_ms else []
    if spec.active_deadline_s:
        ends.append(job.started_ms + spec.active_deadline_s * _S_IN_MS)
    return min(ends, default=None)


def gone_ms(spec: objects_pb2.WorkloadSpec, job: objects_pb2.JobStatus) -> int | None:
    """When a job that has ended is deleted by itself; None: never, or not yet known."""
    if job.phase not in OVER or not spec.time_to_live_s:
        return None
    return job.ended_ms + spec.time_to_live_s * _S_IN_MS


def settled(plan: Mapping[str, int], placed: Mapping[str, int], replicas: int) -> dict[str, int]:
    """The plan, but that what has a place stays there: replicas of a job run to their end where they are. What others
    were to have of it they do not get, the least preferred first. Fewer replicas than have a place: as planned."""
    kept = {region: placed.get(region, 0) for region in plan}
    if sum(kept.values()) > replicas:
        return dict(plan)
    counts = {region: max(wanted, kept[region]) for region, wanted in plan.items()}
    surplus = max(0, sum(counts.values()) - replicas)
    for region in reversed(counts):
        cut = min(surplus, counts[region] - kept[region])
        counts[region] -= cut
        surplus -= cut
    return counts
