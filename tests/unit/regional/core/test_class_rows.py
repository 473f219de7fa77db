"""Which rows of answers are remembered, and shared."""

import numpy as np

from atoll.model.resources import Vector
from regional.core.class_rows import ClassRows
from regional.core.filters import Request
from regional.core.node_table import NodeTable
from regional.core.records import TaskEntry, WorkloadEntry

PLAIN, COUNTING = Request(Vector(100)), Request(Vector(100), strategy="spread")


def entry(name: str, request: Request, copies: dict[int, int] | None = None) -> TaskEntry:
    found = TaskEntry(WorkloadEntry("acme", "web", b"w"), name, b"s")
    found.request = request
    found.copies.update(copies or {})
    return found


def table() -> NodeTable:
    made = NodeTable()
    for number in range(3):
        made.describe(made.add(f"n{number}"), (1_000, 1_000, 1_000, 0), {}, (), False)
        made.set_ready(number, True)
    return made


def test_classes_that_ask_alike_share_a_row_and_the_one_used_least_lately_goes() -> None:
    rows = ClassRows(table(), 2)
    first = rows.of(entry("a", PLAIN))
    assert rows.of(entry("b", PLAIN)) is first
    other = rows.of(entry("c", Request(Vector(200))))
    assert rows.of(entry("a", PLAIN)) is first
    rows.of(entry("d", Request(Vector(300))))
    assert rows.of(entry("a", PLAIN)) is first
    assert rows.of(entry("c", Request(Vector(200)))) is not other


def test_what_is_due_is_what_a_refresh_would_bring_up_to_date() -> None:
    rows = ClassRows(table(), 9)
    due = rows.due(entry("a", PLAIN))
    assert due.row is rows.of(entry("b", PLAIN))
    assert due.row.behind == 3
    due.row.refresh({})
    assert due.row.behind == 0

    task = entry("c", COUNTING, {1: 2})
    assert rows.due(task).copies == {1: 2}  # nothing is known that it could start from
    rows.forget(task)
    alike = rows.due(entry("d", COUNTING))
    assert rows.due(task) == alike
    alike.row.refresh({})
    own = rows.of(task)
    assert own is not alike.row
    assert own.behind == 0
    assert np.flatnonzero(own.score != alike.row.score).tolist() == [1]
