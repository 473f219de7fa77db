"""What people see of the queue: what waits, whose turn it is, and why something is not in line. Changes nothing."""

from collections.abc import Iterable

from atoll.api.v1 import objects_pb2
from atoll.api.v1.regional_pb2 import ListQueueRequest, ListQueueResponse, QueueItem, QueueView
from atoll.model import explain
from regional.core import gangs
from regional.core.binding import weighted_share
from regional.core.queue import TOP_BAND, SchedulingClass
from regional.core.records import TaskEntry
from regional.core.state import State

_Line = tuple[int, str]  # priority, tenant


def list_queue(state: State, asked: ListQueueRequest, now_ms: int) -> ListQueueResponse:
    lines: dict[_Line, list[QueueItem]] = {}
    for cls, waiting, backing_off in _waiting(state, asked):
        item = _item(state, cls, waiting, backing_off, now_ms)
        lines.setdefault((item.priority, item.tenant), []).append(item)
    total = state.total_capacity().amounts()
    shares = {tenant: weighted_share(state.account(tenant), total) for _, tenant in lines}
    answer = ListQueueResponse()
    for line in sorted(lines, key=lambda line: (-line[0], shares[line[1]], line[1])):
        items = sorted(lines[line], key=lambda item: (not item.position, item.position, item.workload, item.task))
        answer.queues.append(_view(state, line, items, shares[line[1]]))
        answer.items.extend(items)
    return answer


def _waiting(state: State, asked: ListQueueRequest) -> Iterable[tuple[SchedulingClass, int, int]]:
    """Each class with something in it, once, with how many of its replicas wait, and how many are in a back-off."""
    found: dict[int, tuple[SchedulingClass, int, int]] = {}
    for (tenant, name), workload in state.workloads.items():
        if asked.tenant in ("", tenant) and asked.workload in ("", name):
            for task in workload.tasks.values():
                cls = gangs.stands_as(task)
                if cls and not cls.dropped and (cls.size or cls.delayed):
                    _, waiting, backing_off = found.get(id(cls), (cls, 0, 0))
                    found[id(cls)] = cls, waiting + _in_line(task, cls), backing_off + _backing_off(task, cls)
    return found.values()


def _in_line(task: TaskEntry, cls: SchedulingClass) -> int:
    return gangs.members_waiting(task) * bool(cls.size) if cls.gang else cls.size


def _backing_off(task: TaskEntry, cls: SchedulingClass) -> int:
    return gangs.members_waiting(task) * bool(cls.delayed) if cls.gang else cls.delayed


def _item(state: State, cls: SchedulingClass, waiting: int, backing_off: int, now_ms: int) -> QueueItem:
    position = state.queue.position(cls)
    level = cls.level if position else state.queue.level_of(cls, now_ms)
    item = QueueItem(
        region=state.region,
        tenant=cls.tenant,
        workload=cls.workload,
        task="" if cls.gang else cls.task,
        priority=objects_pb2.Priority.ValueType(min(level, TOP_BAND)),
        replicas=waiting,
        position=position,
        waiting_ms=max(0, now_ms - cls.queued_ms) if cls.size else 0,
        backing_off=backing_off,
    )
    if cls.parked:
        item.reasons.extend(cls.reasons)
    elif backing_off:
        item.reasons.append(explain.reason(explain.BACK_OFF))
    return item


def _view(state: State, line: _Line, items: list[QueueItem], share: float) -> QueueView:
    priority, tenant = line
    head = next((item for item in items if item.position == 1), None)
    return QueueView(
        region=state.region,
        tenant=tenant,
        priority=objects_pb2.Priority.ValueType(priority),
        replicas=sum(item.replicas for item in items),
        parked=sum(item.replicas for item in items if not item.position),
        weighted_share=share,
        oldest_ms=max(item.waiting_ms for item in items),
        head=f"{head.workload}/{head.task}".rstrip("/") if head else "",
    )
