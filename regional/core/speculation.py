"""Second copies of replicas that take far longer than others of their task: the first result counts.

Decides when one is asked for: the replica runs for longer than `percent` of the median of those that completed here, or
of the job's estimate while fewer than three have; at most `most` copies of a task live at once. A copy is a slot of its
own, charged like any other and kept off the replica's node where another takes it. It is tried once. What was asked for
and is not bound yet only this leader knows; what is bound is in the records (indices.py).
"""

from statistics import median_low

from atoll.api.v1 import agent_pb2
from atoll.model.slots import SECOND_COPY
from regional.core import closing, indices, releasing
from regional.core.binding import announce
from regional.core.records import DONE, SlotEntry, TaskEntry
from regional.core.state import State, Turn
from regional.core.transactions import Release

RUNNING = agent_pb2.ATTEMPT_PHASE_RUNNING
_ENOUGH = 3  # completed replicas, for a median


def check(state: State, turn: Turn) -> None:
    """To be called now and then."""
    for task in list(state.speculating):
        policy, after_ms = task.speculation, _after_ms(task)
        if policy is None or after_ms is None or task.cls is None or task.stopped:
            continue
        live = sum(_lives(task, index) for index in task.wanted if index >= SECOND_COPY)
        for index, entry in sorted(task.entries.items()):
            if live >= policy.most:
                break
            if index < SECOND_COPY and _straggles(entry, turn.now_ms - after_ms):
                _ask(state, task, entry, turn)
                live += 1


def _after_ms(task: TaskEntry) -> int | None:
    if task.speculation is None:
        return None
    usual_ms = median_low(task.took_ms) if len(task.took_ms) >= _ENOUGH else task.owner.share.spec.estimate_ms
    return usual_ms * task.speculation.percent // 100 if usual_ms else None


def _lives(task: TaskEntry, index: int) -> bool:
    entry = task.entries.get(index)
    return entry is None or entry.record.state != DONE


def _straggles(entry: SlotEntry, since_ms: int) -> bool:
    status, copy = entry.status, entry.index + SECOND_COPY
    if status is None or status.phase != RUNNING or not entry.bound or entry.closing or entry.outdated:
        return False
    asked = copy in entry.task.asked_copies or copy in entry.task.entries or copy in entry.task.in_flight
    return entry.wanted and not asked and 0 < status.started_ms < since_ms


def _ask(state: State, task: TaskEntry, entry: SlotEntry, turn: Turn) -> None:
    copy = entry.index + SECOND_COPY
    task.asked_copies.add(copy)
    task.wanted = indices.again(task)
    assert task.cls is not None
    state.queue.put(task.cls, (copy,), turn.now_ms, entry.record.node)
    text = f"{task.name}/{entry.index} takes long on {entry.record.node}: a second copy is placed"
    announce(turn, state, task.owner.tenant, task.owner.name, "SecondCopy", text)


def release_committed(state: State, operation: Release, revision: int, turn: Turn) -> None:
    """What follows for each slot is decided in releasing.py, what for its other copy here."""
    releasing.release_committed(state, operation, revision, turn)
    for task in dict.fromkeys(r.entry.task for r in operation.released):
        if task.speculation is not None:
            settle(state, task, turn)


def settle(state: State, task: TaskEntry, turn: Turn) -> None:
    """After something of the task has ended: whoever is not wanted any more stops."""
    task.wanted = indices.again(task)
    for copy in list(task.asked_copies):
        if copy not in task.wanted and copy not in task.entries and task.cls:
            task.cls.withdraw(copy)
    for entry in list(task.entries.values()):
        if (entry.index in task.wanted) == entry.wanted:
            continue
        entry.derive()
        state.retally(entry)
        if entry.bound and not entry.wanted:
            closing.stop(state, entry, "its other copy has ended", turn)
        elif not entry.placed and entry.index not in task.in_flight:
            releasing.requeue(state, entry, turn.now_ms)
