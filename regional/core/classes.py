"""How what waits stands in the queue: the replicas of one task as a scheduling class, a gang as one item."""

from dataclasses import replace

from atoll.api.v1 import objects_pb2
from regional.core.filters import Request
from regional.core.queue import NEVER_MS, SchedulingClass
from regional.core.records import GangEntry, TaskEntry


def class_of(task: TaskEntry) -> SchedulingClass:
    return _class(task, task.request)


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
    return SchedulingClass(task.owner.tenant, task.owner.name, task.name, int(band), request, latest_start_ms)
