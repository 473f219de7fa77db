"""Backfill: room that comes free is kept for the item that has waited longest for it; smaller work passes beside it.

While an item is parked because there is no room for it, for one replica of a class or for all members of a gang, the
first such item in the order holds nodes: those where it is expected to have its room first, by what the jobs that run
there are estimated to run. Where that is not known, because what is in the way has no estimate, nothing is kept: it
might be for ever. The hold is in memory only: no quota is charged, and another leader makes its own. Other work is
placed on other nodes; on these only what comes before the holder by its priority, or ends by its estimate before the
room is expected. What was expected is a promise: it is never put off for what passes, and so nothing that passes delays
the holder. Leaves to others: who passes (kept_room.py), and preemption, which is tried first.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from atoll.model.resources import Vector, total
from regional.core import gang_placing, gpus, kept_room
from regional.core.class_row import FEASIBLE
from regional.core.filters import FIRST_OF_ROOM, Cure, Request
from regional.core.gpus import WHOLE_MILLI
from regional.core.node_table import Integers
from regional.core.queue import Hold, SchedulingClass
from regional.core.records import TaskEntry
from regional.core.state import State

_NODES_LOOKED_AT = 64
_Asked = list[tuple[TaskEntry, int]]  # replicas of tasks, the largest first


def check(state: State, now_ms: int) -> None:
    """Makes, renews or ends the hold; to be called now and then."""
    waiting = [cls for cls in state.queue.parking.under(Cure.RESOURCES) if _may_hold(state, cls, now_ms)]
    first = min(waiting, key=lambda cls: (-cls.band, cls.queued_ms, cls.ticket), default=None)
    kept_room.keep(state, _hold_for(state, first, now_ms) if first else None)


def _may_hold(state: State, cls: SchedulingClass, now_ms: int) -> bool:
    return cls.short_of_room and bool(cls.size) and now_ms - cls.queued_ms >= state.settings.hold_after_ms


def _hold_for(state: State, cls: SchedulingClass, now_ms: int) -> Hold | None:
    """The nodes where it is expected to find room first. Others than those that are held only if that is sooner."""
    asked = _asked(state, cls)
    if not asked:
        return None
    before = state.hold if state.hold and state.hold.cls is cls and now_ms <= state.hold.start_ms else None
    with kept_room.opened(state, state.hold):
        rows = _rows(state, asked)
    best = _outlook(state, cls, asked, rows, now_ms)
    if before and (best is None or best.start_ms >= before.start_ms):
        usable = set(rows)
        same = _outlook(state, cls, asked, [row for row in before.rows if row in usable], now_ms)
        return before if same else best
    return best


def _asked(state: State, cls: SchedulingClass) -> _Asked:
    """What is to be placed at once; nothing where quota is lacking, or it is not a matter of room alone. Burst keeps
    nothing free."""
    workload = state.workloads.get((cls.tenant, cls.workload))
    if workload is None:
        return []
    task = workload.tasks.get(cls.task)
    if not cls.gang:
        asked = [(task, 1)] if task and task.cls is cls else []
    elif workload.gang is None or workload.gang.cls is not cls:
        return []
    else:
        asked = [(task, len(indices)) for task, indices in gang_placing.waiting(workload.gang)]
        asked = gang_placing.largest_first(state, asked)
        if any(task.request.topology or task.around.terms for task, _ in asked):
            return []
    amount = total([task.request.vector * count for task, count in asked])
    return asked if state.account(cls.tenant).affordable(amount, may_burst=False) else []


def _rows(state: State, asked: _Asked) -> list[int]:
    """Nodes that lack nothing but room for any of it, if that; those that lack least first. Of many the first few, and
    those that are held."""
    table, found = state.table, dict[int, float]()
    for task, _ in asked:
        row = state.class_row(task)
        row.refresh(task.copies)
        rows = np.flatnonzero((row.refusal >= FIRST_OF_ROOM) | (row.refusal == FEASIBLE))
        amounts = np.array(task.request.vector.amounts(), np.int64)
        rows = rows[(table.largest[rows] >= amounts).all(axis=1)]
        lacking = (amounts - table.capacity[rows] + table.used[rows]).clip(min=0)
        parts = (lacking / np.maximum(table.capacity[rows], 1)).max(axis=1, initial=0.0)
        for one, part in zip(rows.tolist(), parts.tolist(), strict=True):
            found[one] = min(part, found.get(one, part))
    most = max(_NODES_LOOKED_AT, 2 * sum(count for _, count in asked))
    first = sorted(found, key=lambda one: (found[one], one))
    held = [one for one in state.hold.rows if one in found] if state.hold else []
    return list(dict.fromkeys([*first[:most], *held]))


class _End(NamedTuple):
    """A job that runs on a node, and the room that it frees."""

    at_ms: int
    key: bytes
    place: int  # of its node among those looked at
    vector: Vector
    gpus: tuple[int, ...]


def _outlook(state: State, cls: SchedulingClass, asked: _Asked, rows: Sequence[int], now_ms: int) -> Hold | None:
    """The first moment at which all of it fits on these nodes, and on which of them."""
    ends = sorted(_ends(state, rows, now_ms))
    if not rows or _fitting(state, asked, rows, ends) is None:
        return None
    low, high = 0, len(ends)  # so many that have ended do not do, or do
    while low < high:
        middle = (low + high) // 2
        if _fitting(state, asked, rows, ends[:middle]) is None:
            low = middle + 1
        else:
            high = middle
    used = _fitting(state, asked, rows, ends[:high])
    return Hold(cls, tuple(sorted(used or ())), ends[high - 1].at_ms if high else now_ms)


def _ends(state: State, rows: Sequence[int], now_ms: int) -> Iterator[_End]:
    """Of the jobs that say how long they run. What has not started yet takes that long from now on."""
    for place, row in enumerate(rows):
        for key, entry in state.nodes[state.table.names[row]].slots.items():
            estimate_ms = entry.task.owner.share.spec.estimate_ms
            if entry.is_job and estimate_ms:
                started_ms = entry.status.started_ms if entry.status and entry.status.started_ms else now_ms
                at_ms = max(now_ms, started_ms + estimate_ms)
                yield _End(at_ms, key, place, entry.vector, tuple(entry.record.gpus))


def _fitting(state: State, asked: _Asked, rows: Sequence[int], ended: Sequence[_End]) -> set[int] | None:
    """Nodes that take all of it when these have ended, as few as may be; None when they do not."""
    table, found = state.table, set[int]()
    free = table.capacity[rows] - table.used[rows]
    left = table.gpus.left[rows].copy()
    for one in ended:
        free[one.place] += one.vector
        for number in one.gpus:
            left[one.place, number] += one.vector.gpu_milli // len(one.gpus)
    for task, count in asked:
        request = task.request
        may_have = gpus.may_have(table, request, np.array(rows))
        copies = _copies(request, free, np.where(may_have, left, 0))
        for place in np.argsort(-copies, kind="stable").tolist():
            here = min(count, int(copies[place]))
            if not here:
                break
            count -= here
            found.add(rows[place])
            free[place] -= request.vector * here
            for _ in range(here if request.vector.gpu_milli else 0):
                numbers = gpus.choose(np.where(may_have[place], left[place], 0).tolist(), request.vector.gpu_milli)
                left[place, list(numbers)] -= request.vector.gpu_milli // len(numbers)
        if count:
            return None
    return found


def _copies(request: Request, free: Integers, left: Integers) -> Integers:
    """How many replicas each node takes."""
    amounts = np.array(request.vector.amounts(), np.int64)
    copies: Integers = (free[:, amounts > 0].clip(min=0) // amounts[amounts > 0]).min(axis=1, initial=1 << 30)
    if asked := request.vector.gpu_milli:
        if gpus.asks_whole(asked):
            on_devices = (left >= WHOLE_MILLI).sum(axis=1) // (asked // WHOLE_MILLI)
        else:
            on_devices = (left.clip(min=0) // asked).sum(axis=1)
        copies = np.minimum(copies, on_devices)
    return copies
