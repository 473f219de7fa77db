"""Why what waits waits.

What a parked class was refused for is found when it is tried, and tried it is only when something may have cured that.
Meanwhile the amounts in it change: so a few of those that wait are looked at again each second, in turn, and what is
told of them is made right. That changes no reason for another, and wakes nothing.
"""

from collections.abc import Iterator

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from regional.core import gangs, headroom, kept_room, protection
from regional.core.placement import explain_refusals
from regional.core.queue import SchedulingClass
from regional.core.records import TaskEntry
from regional.core.state import State


def gang_progress(state: State, task: TaskEntry) -> str:
    return gangs.progress(state, task.owner.gang) if task.owner.gang else ""


def reasons_now(state: State, task: TaskEntry) -> list[objects_pb2.PendingReason]:
    """Of a task with something that waits, as of now; of a gang, as of when it was last tried."""
    if task.parallel is not None and task.at_once >= task.parallel:
        return [explain.reason(explain.PARALLELISM)]
    if gangs.together(task):
        if detail := gang_progress(state, task):
            return [explain.reason(explain.GANG_RESERVING, detail=detail)]
        cls = gangs.stands_as(task)
        return list(cls.reasons) if cls and cls.parked else [explain.reason(explain.QUEUED)]
    account = state.account(task.owner.tenant)
    payer, affordable = account.payer(task.request.vector, task.may_burst)
    if not affordable:
        return [account.refusal(task.request.vector, task.may_burst)]
    if not protection.replicas(state, account.tenant, task.request.vector):
        return [protection.reason(state, account.tenant, task.request.vector)]
    room = headroom.room(state)
    fresh = task.cls is not None and all(index not in task.entries for index in task.cls.indices())
    if fresh and task.cls and not headroom.replicas(room, task.cls, payer):
        return [headroom.reason(state, room, task.request.vector)]
    row = state.class_row(task)
    refusals = explain_refusals(row, task.around)
    if len(row.allowed(task.around)):
        return [explain.reason(explain.QUEUED)]
    return list(refusals.reasons)


class Refresher:
    """Whose turn it is."""

    def __init__(self) -> None:
        self._turns: Iterator[SchedulingClass] = iter(())

    def look(self, state: State, now_ms: int) -> None:
        """At the next few, once around at most."""
        looks = min(state.settings.refreshed_reasons, len(state.queue.parked))
        for _ in range(looks):
            cls = next(self._turns, None)
            if cls is None:
                self._turns = iter(list(state.queue.parked.values()))
                cls = next(self._turns)
            if cls.parked and not cls.dropped and not cls.gang:
                _refresh(state, cls, now_ms)


def _refresh(state: State, cls: SchedulingClass, now_ms: int) -> None:
    workload = state.workloads[cls.tenant, cls.workload]
    task = workload.tasks[cls.task]
    with kept_room.passing(state, cls, workload, now_ms):
        now = tuple(reasons_now(state, task))
    if now != cls.reasons and [r.code for r in now] == [r.code for r in cls.reasons]:
        cls.reasons = now
        state.mark_changed(workload)
