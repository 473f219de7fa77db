"""An evaluator without processes: every row goes through bytes and a mirror of the table, as it does to a worker."""

import pickle
from collections.abc import Sequence

import numpy as np

from regional.core import mirror
from regional.core.class_rows import Due
from regional.core.mirror import Known, Mirror
from regional.core.node_table import NodeTable


class Mirrored:
    def __init__(self) -> None:
        self.evaluated = 0
        self._mirror = Mirror()
        self._known = Known()
        self._table: NodeTable | None = None

    def processes(self) -> int:
        return 2

    def evaluate(self, due: Sequence[Due]) -> None:
        table = due[0].row.table
        if table is not self._table:  # another reign
            self._table, self._mirror, self._known = table, Mirror(), Known()
        self._mirror.hear(pickle.loads(pickle.dumps(mirror.news(table, self._known))))
        self._known = Known.of(table)
        columns = {**mirror.use(table), **mirror.description(table)}
        self._mirror.see({name: column.copy() for name, column in columns.items()})
        for row, copies in due:
            answers = mirror.empty_answers(table.size)
            job = mirror.Job(row.request, dict(copies), row.tell(answers))
            image = row.request.image
            warm = table.images.holding(image, table.size) if image else np.zeros(0, np.bool_)
            self._mirror.evaluate(pickle.loads(pickle.dumps(job)), answers, warm)
            row.adopt(answers)
            self.evaluated += 1
