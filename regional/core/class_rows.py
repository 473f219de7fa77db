"""The rows of answers that are remembered: one for each request, shared by all classes that ask alike; where scores
count a task's own replicas, one for each task that has some. The one used least lately is forgotten first.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from regional.core.class_row import ClassRow
from regional.core.colocation import Copies
from regional.core.filters import Request
from regional.core.node_table import NodeTable
from regional.core.records import TaskEntry
from regional.core.scores import counts_copies


class Due(NamedTuple):
    """A row, and the replicas that it is to be refreshed with."""

    row: ClassRow
    copies: Copies


class Evaluator(Protocol):
    """Whoever refreshes several rows at once: regional/workers."""

    def processes(self) -> int:
        """How many would take part now, this one among them."""

    def evaluate(self, due: Sequence[Due]) -> None:
        """Refreshes every row: to the last bit what its `refresh` makes of it."""


class ClassRows:
    def __init__(self, table: NodeTable, most: int) -> None:
        self._table = table
        self._most = most
        self._rows: dict[TaskEntry | Request, ClassRow] = {}  # the one used last comes last

    def of(self, task: TaskEntry) -> ClassRow:
        """The answers for the task's request; perhaps not up to date."""
        key = _key(task)
        row = self._rows.pop(key, None)
        if row is None or row.request != task.request:
            alike = self._rows.get(task.request)  # of a task without replicas, where these count
            if alike:
                alike.refresh({})
            row = alike.copy(task.copies) if alike else ClassRow(self._table, task.request)
        self._remember(key, row)
        return row

    def due(self, task: TaskEntry) -> Due:
        """What `of` and a refresh of its row would bring up to date."""
        key = _key(task)
        row = self._rows.get(key)
        if row is not None and row.request == task.request:
            return Due(row, task.copies)
        if alike := self._rows.get(task.request):
            return Due(alike, {})
        row = ClassRow(self._table, task.request)
        self._remember(key, row)
        return Due(row, task.copies)

    def forget(self, task: TaskEntry) -> None:
        self._rows.pop(task, None)

    def _remember(self, key: TaskEntry | Request, row: ClassRow) -> None:
        self._rows[key] = row
        if len(self._rows) > self._most:
            del self._rows[next(iter(self._rows))]


def _key(task: TaskEntry) -> TaskEntry | Request:
    return task if task.copies and counts_copies(task.request) else task.request
