"""What of a node table another process needs to evaluate scheduling classes, and that evaluation there.

Columns go as arrays (`columns`), the few words that their numbers stand for as `News`: each is known by its place in a
list that only grows, so what was told before is left out. A `Mirror` is the table put together again; it evaluates with
the same functions as the region's own table, so the answers are the same to the last bit. Copies nothing, and starts
nothing: regional/workers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regional.core.class_row import ABSENT, Answers, ClassRow
from regional.core.colocation import Copies
from regional.core.filters import FILTERS, Request
from regional.core.images import Mask
from regional.core.node_table import NodeTable, TaintKey
from regional.core.typical import Typical

Column = npt.NDArray[Any]

_USE = ("used", "changed")
_DESCRIPTION = (
    "capacity",
    "largest",
    "present",
    "ready",
    "cordoned",
    "resting",
    "kept",
    "unfit",
    "taint_set",
    "described",
)
_LABEL = "label/"
COUNTS = len(FILTERS) - ABSENT


def use(table: NodeTable) -> dict[str, Column]:
    """The columns that change with what nodes hold."""
    columns: dict[str, Column] = {name: getattr(table, name) for name in _USE}
    return columns | {"left": table.gpus.left, "held": table.gpus.held}


def description(table: NodeTable) -> dict[str, Column]:
    """The others: they change only when `table.redescribed` does."""
    columns: dict[str, Column] = {name: getattr(table, name) for name in _DESCRIPTION}
    columns["model"] = table.gpus.model
    return columns | {_LABEL + key: column for key, column in table.label_columns().items()}


class Known(NamedTuple):
    """How much somebody was told; at first what every table begins with."""

    values: int = 1
    taint_sets: int = 1
    models: int = 1
    typical: Typical | None = None

    @staticmethod
    def of(table: NodeTable) -> "Known":
        return Known(len(table.values), len(table.taint_sets), len(table.gpus.models), table.typical)


class News(NamedTuple):
    """What a mirror has to hear, beside the columns, to be the table of this moment."""

    size: int
    version: int
    overcommitted: bool
    values: tuple[str, ...]
    taint_sets: tuple[tuple[TaintKey, ...], ...]
    models: tuple[str, ...]
    typical: Typical | None  # None = as before


def news(table: NodeTable, known: Known) -> News:
    return News(
        table.size,
        table.version,
        table.overcommitted,
        tuple(table.values[known.values :]),
        tuple(table.taint_sets[known.taint_sets :]),
        tuple(table.gpus.models[known.models :]),
        None if table.typical is known.typical else table.typical,
    )


class Job(NamedTuple):
    """One class to evaluate. `seen`: what `ClassRow.tell` said."""

    request: Request
    copies: Copies
    seen: int


class Mirror:
    def __init__(self) -> None:
        self._table = NodeTable()

    def hear(self, said: News) -> None:
        table = self._table
        table.size, table.version, table.overcommitted = said.size, said.version, said.overcommitted
        table.know(said.values, said.taint_sets)
        table.gpus.know(said.models)
        table.typical = said.typical or table.typical

    def see(self, columns: Mapping[str, Column]) -> None:
        """The arrays that it reads from now on; whoever gives them keeps their content true."""
        table = self._table
        for name in (*_USE, *_DESCRIPTION):
            setattr(table, name, columns[name])
        table.gpus.left, table.gpus.model, table.gpus.held = columns["left"], columns["model"], columns["held"]
        for name, column in columns.items():
            if name.startswith(_LABEL):
                table.set_label_column(name.removeprefix(_LABEL), column)

    def evaluate(self, job: Job, answers: Answers, warm: Mask) -> None:
        """Reads there what is known of the class, and writes there what is true of it now. `warm`: who holds its
        image."""
        row = ClassRow(self._table, job.request)
        if job.seen >= 0:
            row.go_on(answers, job.seen)
        if job.request.image:
            self._table.images.know(job.request.image, warm)
        row.refresh(job.copies)
        row.tell(answers)


def empty_answers(size: int) -> Answers:
    return Answers(
        np.empty(size, np.int8),
        np.empty(size, np.int8),
        np.empty(size, np.float32),
        np.empty(size, np.float32),
        np.empty(COUNTS, np.int64),
    )
