"""How what waits stands in the queue: the replicas of one task as a scheduling class, a gang as one item."""

from dataclasses import replace

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.core.filters import Request
from regional.core.queue import NEVER_MS, SchedulingClass
from regional.core.records import GangEntry, TaskEntry


def together(task: TaskEntry) -> bool:
    """Whether what waits of a task is placed only with the rest of its gang."""
    gang = task.owner.gang
    if not task.gang or gang is None:
        return task.gang
    return task.owner.is_job or not gang.committed or not any(member.copies for member in gang.tasks)


def class_of(task: TaskEntry) -> SchedulingClass:
    cls = _class(task, task.request)
    cls.decreasing = _size(task.request.vector) if task.decreasing else 0
    return cls


def _size(amount: Vector) -> int:
    """The largest of its dimensions, in processors' milli: a GPU counts as 8 processors, 4 GiB of memory and 64 GiB of
    disk as one."""
    return max(amount.cpu_milli, amount.memory_mib * 1_000 // 4_096, amount.disk_mib // 64, 8 * amount.gpu_milli, 1)


def class_of_gang(gang: GangEntry) -> SchedulingClass:
    """Its request is what room must be free for any member to fit: less cannot wake it."""
    first = gang.tasks[0]
    least = first.request.vector
    for task in gang.tasks:
        least = least.at_most(task.request.vector)
    cls = _class(first, replace(first.request, vector=least))
    cls.gang = True
    return cls


def _class(task: TaskEntry, request: Request) -> SchedulingClass:
    spec = task.owner.share.spec
    band = spec.priority or objects_pb2.PRIORITY_DEFAULT
    latest_start_ms = spec.deadline_ms - spec.estimate_ms if spec.deadline_ms else NEVER_MS
    cls = SchedulingClass(task.owner.tenant, task.owner.name, task.name, int(band), request, latest_start_ms)
    cls.may_burst = task.may_burst
    return cls
