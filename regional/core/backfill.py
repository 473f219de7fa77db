"""Backfill: room that comes free is kept for the item that has waited longest for it; smaller work passes beside it.

While a class is parked because no node has room for one of its replicas, the first such class in the order holds one
node: the one that is expected to have the room first, by what the jobs that run there are estimated to run. Where that
is not known, because what is in the way has no estimate, nothing is kept: it might be for ever. The hold is in memory
only: no quota is charged, and another leader makes its own. Other work is placed on other nodes; on this one only what
comes before the holder by its priority, or ends by its estimate before the room is expected. So the holder is never
delayed by what passes it. Leaves to others: preemption, which is tried first.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from atoll.model.resources import Vector
from regional.core.filters import FIRST_OF_ROOM
from regional.core.queue import NEVER_MS, Hold, SchedulingClass
from regional.core.records import NodeEntry, TaskEntry
from regional.core.state import State

_NODES_LOOKED_AT = 64


def check(state: State, now_ms: int) -> None:
    """Makes, renews or ends the hold; to be called now and then."""
    waiting = [cls for cls in state.queue.parked.values() if _may_hold(state, cls, now_ms)]
    first = min(waiting, key=lambda cls: (-cls.band, cls.queued_ms, cls.ticket), default=None)
    hold = _hold_for(state, first, now_ms) if first else None
    if hold is None:
        end(state)
    elif state.hold is None or (hold.cls, hold.row) != (state.hold.cls, state.hold.row):
        end(state)
        state.table.set_kept(hold.row, True)
        state.hold = hold
    else:
        state.hold = hold


def _may_hold(state: State, cls: SchedulingClass, now_ms: int) -> bool:
    waited_ms = now_ms - cls.queued_ms
    return cls.short_of_room and not cls.gang and bool(cls.size) and waited_ms >= state.settings.hold_after_ms


def end(state: State) -> None:
    if state.hold:
        state.table.set_kept(state.hold.row, False)
        state.hold = None
        state.nodes_changed = True  # what was kept out may fit


@contextmanager
def passing(state: State, cls: SchedulingClass, task: TaskEntry, now_ms: int) -> Iterator[None]:
    """While a class is placed: the node that is kept is open to it if it may pass."""
    hold = state.hold
    if hold is None or not (cls is hold.cls or cls.band > hold.cls.band or _ends_before(task, hold.start_ms, now_ms)):
        yield
        return
    state.table.set_kept(hold.row, False)
    yield
    state.table.set_kept(hold.row, True)


def _ends_before(task: TaskEntry, start_ms: int, now_ms: int) -> bool:
    estimate_ms = task.owner.share.spec.estimate_ms
    return task.owner.is_job and estimate_ms > 0 and start_ms != NEVER_MS and now_ms + estimate_ms <= start_ms


def _hold_for(state: State, cls: SchedulingClass, now_ms: int) -> Hold | None:
    """The node where the class is expected to find room first."""
    workload = state.workloads.get((cls.tenant, cls.workload))
    task = workload.tasks.get(cls.task) if workload else None
    if task is None or task.cls is not cls or not state.account(cls.tenant).affordable(task.request.vector):
        return None
    table = state.table
    if state.hold:
        table.set_kept(state.hold.row, False)
    row = state.class_row(task)
    row.refresh(task.copies)
    rows = np.flatnonzero(row.refusal >= FIRST_OF_ROOM)
    if state.hold:
        table.set_kept(state.hold.row, True)
    asked = np.array(task.request.vector.amounts(), np.int64)
    rows = rows[(table.capacity[rows] >= asked).all(axis=1)]
    if not len(rows):
        return None
    lacking = (asked - table.capacity[rows] + table.used[rows]).clip(min=0)
    parts = (lacking / np.maximum(table.capacity[rows], 1)).max(axis=1)
    order = np.argsort(parts, kind="stable")[:_NODES_LOOKED_AT].tolist()
    found = [
        Hold(
            cls,
            int(rows[i]),
            _expected_ms(state.nodes[table.names[int(rows[i])]], Vector(*lacking[i].tolist()), now_ms),
        )
        for i in order
    ]
    best = min(found, key=lambda hold: hold.start_ms)  # the first of equals lacks least
    return best if best.start_ms != NEVER_MS else None


def _expected_ms(node: NodeEntry, lacking: Vector, now_ms: int) -> int:
    """When the jobs there that say how long they run will have freed what is lacking."""
    ends = []
    for entry in node.slots.values():
        estimate_ms = entry.task.owner.share.spec.estimate_ms
        if entry.is_job and estimate_ms and entry.status and entry.status.started_ms:
            ends.append((max(now_ms, entry.status.started_ms + estimate_ms), entry.key, entry.vector))
    for end_ms, _, vector in sorted(ends):
        lacking = (lacking - vector).at_least(Vector())
        if not lacking:
            return end_ms
    return NEVER_MS
