"""Nodes whose room is kept for what waits for it, and who may use it all the same. Which nodes: backfill.py."""

from collections.abc import Iterator
from contextlib import contextmanager

from regional.core.queue import Hold, SchedulingClass
from regional.core.records import WorkloadEntry
from regional.core.state import State


def keep(state: State, hold: Hold | None) -> None:
    """From now on; None: nothing any more. Who was kept out may fit then, or another holder of the same nodes."""
    before = state.hold
    if (before and (before.cls, before.rows)) != (hold and (hold.cls, hold.rows)):
        if before:
            _mark(state, before, False)
        if hold:
            _mark(state, hold, True)
        state.nodes_changed = state.nodes_changed or before is not None
    state.hold = hold


def _mark(state: State, hold: Hold, kept: bool) -> None:
    for row in hold.rows:
        state.table.set_kept(row, kept)


@contextmanager
def opened(state: State, hold: Hold | None) -> Iterator[None]:
    if hold is None:
        yield
        return
    _mark(state, hold, False)
    yield
    _mark(state, hold, True)


@contextmanager
def passing(state: State, cls: SchedulingClass, workload: WorkloadEntry, now_ms: int) -> Iterator[None]:
    """While a class or a gang is placed: it may use what is kept if its priority is above the holder's, or if it
    ends, by its estimate, before the room is expected."""
    hold = state.hold
    may = hold and (cls is hold.cls or cls.band > hold.cls.band or _ends_before(workload, hold, now_ms))
    with opened(state, hold if may else None):
        yield


def _ends_before(workload: WorkloadEntry, hold: Hold, now_ms: int) -> bool:
    estimate_ms = workload.share.spec.estimate_ms
    return workload.is_job and estimate_ms > 0 and now_ms + estimate_ms <= hold.start_ms
