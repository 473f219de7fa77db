"""Scheduling classes evaluated ahead of their turn, by several processes at once.

A class's row is repaired when its turn comes. Where there are scheduler workers, a row that is far behind brings along
those of the classes that are likely to come next and are far behind as well, so that they are evaluated at the same
time. Which rows, and by whom, changes no decision: what is repaired early, and again at its turn, is the same as what
is repaired once. Leaves to others: how the work is shared out (regional/workers).
"""

from collections.abc import Iterator

from regional.core import scores
from regional.core.class_rows import Due
from regional.core.records import TaskEntry
from regional.core.state import State

# In rows of an ordinary request, of which 100,000 take about 10 ms.
MOST_ROWS = 200_000  # at once, of each process: meanwhile the region does nothing else
MOST_CLASSES = 64  # at once
_PARTS = 10  # of the nodes, and of `ahead_rows`: what is less behind is sooner repaired than told


def evaluate(state: State, task: TaskEntry) -> None:
    """To be called before the task's row is refreshed, if that is about to be."""
    evaluator = state.evaluator
    if evaluator is None:
        return
    worth, first = state.settings.ahead_rows, state.rows.due(task)
    rows, fewest = _rows(first), max(1, (worth + state.table.size) // _PARTS)
    if rows < fewest or (processes := evaluator.processes()) < 2:
        return
    due = {id(first.row): first}
    for one in _next(state):
        if len(due) == MOST_CLASSES or rows >= MOST_ROWS * processes:
            break
        if id(one.row) not in due and (more := _rows(one)) >= fewest:
            due[id(one.row)] = one
            rows += more
    if len(due) > 1 and rows >= worth:
        evaluator.evaluate(list(due.values()))


def _rows(due: Due) -> int:
    return due.row.behind * scores.cost(due.row.request)


def _next(state: State) -> Iterator[Due]:
    for cls in state.queue.upcoming(MOST_CLASSES):
        task = state.workloads[cls.tenant, cls.workload].tasks.get(cls.task)
        account = state.accounts.get(cls.tenant)
        if task and account and not cls.gang and account.affordable(cls.request.vector, cls.may_burst):
            yield state.rows.due(task)
