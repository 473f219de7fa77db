"""Which indices of a task are wanted: its replicas, surges (surging.py), and second copies of stragglers. Pure.

Copy n of replica i has the index SECOND_COPY + i and a record of its own. The first of the two that completes is the
replica; the other is unwanted from then on. Both say so in their records, so every leader comes to the same answer.
"""

from collections.abc import Collection, Set
from itertools import islice

from atoll.model.slots import SECOND_COPY
from regional.core.records import COMPLETED, DONE, SlotEntry, TaskEntry
from regional.core.tally import UP

UNKNOWN = -1  # whose place a surge takes, when only an earlier leader knew


def wanted(task: TaskEntry, going: Set[int] = frozenset()) -> Collection[int]:
    """Where the count falls, replicas without a node go first, then those that serve nobody, then those on nodes that
    are to be left (`going`), then the highest; where it rises, the lowest free ones come. Beside them the surges for
    some of these. Of a task that is stopped: those that have ended, of two copies the first."""
    if task.stopped:
        ended = {i for i, entry in task.entries.items() if entry.ended and not _failed_copy(entry)}
        return frozenset(i for i in ended if i - SECOND_COPY not in ended)
    highest = max((*task.entries, *task.in_flight), default=-1)
    if task.speculation is None and not task.surges and highest < task.replicas:
        return range(task.replicas)
    won = _won(task)
    placed = {i for i, entry in task.entries.items() if entry.placed or not entry.waits} | task.in_flight | won
    placed.difference_update(task.surges)
    first_kept = sorted((i for i in placed if i < SECOND_COPY), key=lambda i: (_is_idle(task, i), i in going, i))
    kept = first_kept[: task.replicas]
    taken = placed | task.surges.keys()
    others = (i for i in range(task.replicas + len(taken)) if i not in taken)
    first = frozenset([*kept, *islice(others, task.replicas - len(kept))])
    task.surges = {new: old for new, old in task.surges.items() if old in first or (first and old == UNKNOWN)}
    if task.surges:
        return first.union(task.surges)
    return first if task.speculation is None else _with_copies(task, first, won)


def _is_idle(task: TaskEntry, index: int) -> bool:
    """A service's replica that is placed, or about to be, and serves nobody yet."""
    entry = task.entries.get(index)
    if task.owner.is_job:
        return False
    return entry is None or (entry.placed and not (entry.marks & UP or (entry.status and entry.status.ready)))


def pair(task: TaskEntry) -> None:
    """As a new leader finds them: of a service that has more bound than its count the newest are taken for surges. For
    whom, only an earlier leader knew."""
    bound = sorted((entry for entry in task.entries.values() if entry.bound), key=lambda entry: entry.attempt)
    if not task.owner.is_job and not task.gang and 0 < task.replicas < len(bound):
        task.surges = {entry.index: UNKNOWN for entry in bound[task.replicas :]}


def again(task: TaskEntry) -> Collection[int]:
    """Between two shares: the same replicas, which are queued as such; only which of their copies has changed."""
    if task.speculation is None or task.stopped:
        return wanted(task)
    return _with_copies(task, frozenset(i % SECOND_COPY for i in task.wanted), _won(task))


def _won(task: TaskEntry) -> set[int]:
    """The replicas whose second copy has completed."""
    return {i - SECOND_COPY for i, entry in task.entries.items() if i >= SECOND_COPY and _completed(task, entry)}


def _with_copies(task: TaskEntry, first: frozenset[int], won: set[int]) -> frozenset[int]:
    over = {i for i in first if (entry := task.entries.get(i)) and entry.ended and not task.outdates(entry.record)}
    copies = set()
    for index in (*(i for i in task.entries if i >= SECOND_COPY), *task.asked_copies):
        entry, number = task.entries.get(index), index - SECOND_COPY
        if number not in first or number in over:
            continue
        if entry is None or number in won or (entry.record.state != DONE and not task.outdates(entry.record)):
            copies.add(index)
    return (first - (won - over)) | copies


def _completed(task: TaskEntry, entry: SlotEntry) -> bool:
    return entry.record.state == DONE and entry.record.exit.reason == COMPLETED and not task.outdates(entry.record)


def _failed_copy(entry: SlotEntry) -> bool:
    return entry.index >= SECOND_COPY and entry.record.exit.reason != COMPLETED
