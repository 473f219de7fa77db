"""Placing replicas under rules over domains, where one placement changes what a whole domain is worth.

The next choice is the best of the best rows of all cells; within a cell, the nodes in the same domain under every rule,
the order is that of plain scores, so a cell is opened (a heap of its rows is made) only when it is taken from. The same
answer as filtering and scoring all nodes again after every single replica. Ties go to the lower row.
"""

import numpy as np
import numpy.typing as npt

from regional.core import scores
from regional.core.colocation import ALONE, Around
from regional.core.node_table import NOWHERE, Rows
from regional.core.placement import LEAST, Candidates, ClassRow, Filling


class SpreadFilling(Filling):
    """Under rules over domains. Good for one task only: the rules look at where its own replicas are. Of each
    cell, the nodes in the same domain under every rule, only the best row is known until it is taken."""

    def continues(self, row: ClassRow, around: Around, avoid: int) -> bool:
        return False

    def _start(self, count: int, around: Around) -> None:
        row = self.row
        self._count, self._copies = count, around.copies
        self._topology = topology = row.topology(around)
        self._weight = scores.weight_sum(row.table, row.request)
        rows = row.feasible()
        allowed = rows[topology.allowed(rows)]
        self.feasible = len(allowed)
        if self.avoid != NOWHERE and (allowed != self.avoid).any():
            rows = rows[rows != self.avoid]
        cells = topology.cells(rows)
        order = np.argsort(cells, kind="stable")
        starts = np.flatnonzero(np.diff(cells[order], prepend=-1))
        self._opened: dict[int, Candidates] = {}
        self._cells = np.split(rows[order], starts[1:])
        rank = row.rank_of(rows[order])
        self._scores = np.maximum.reduceat(rank, starts).astype(np.float64)  # of the cells' best rows
        best = np.flatnonzero(rank == np.repeat(self._scores, np.diff(starts, append=len(rows))))
        self._rows = rows[order][best[np.searchsorted(best, starts)]]
        self._domains = topology.domains(self._rows)
        totals = self._totals()
        ranked = np.lexsort((self._rows, -totals))
        self.ranked = self._rows[ranked][totals[ranked] > -np.inf].tolist()

    def _totals(self) -> npt.NDArray[np.float64]:
        topology = self._topology
        open_ = (self._scores > LEAST) & topology.takes(self._domains)
        return np.where(open_, topology.totals(self._scores, self._weight, self._domains), -np.inf)

    def _head(self) -> int:
        if not self.feasible:
            return NOWHERE
        totals = self._totals()
        among = np.flatnonzero(totals == totals.max())
        self._best = int(among[np.argmin(self._rows[among])])
        return int(self._rows[self._best]) if totals[self._best] > -np.inf else NOWHERE

    def _take(self) -> None:
        cell = self._best
        self._topology.add(int(self._rows[cell]))
        candidates = self._opened.get(cell)
        if candidates is None:
            best = _best_of(self.row, self._cells[cell], self._count)
            candidates = self._opened[cell] = Candidates(self.row, best, self._count, self._copies)
        candidates.take()
        if candidates.heap:
            score, self._rows[cell], _, _ = candidates.heap[0]
            self._scores[cell] = -score
        else:
            self._scores[cell] = LEAST


def _best_of(row: ClassRow, rows: Rows, count: int) -> Rows:
    """The `count` best of these rows, which are in order; the lower of equals."""
    if len(rows) <= count:
        return rows
    rank = row.rank_of(rows)
    level = np.partition(rank, len(rank) - count)[len(rank) - count]
    above = rows[rank > level]
    best: Rows = np.concatenate([above, rows[rank == level][: count - len(above)]])
    return best


def fill(row: ClassRow, count: int, around: Around = ALONE, avoid: int = NOWHERE) -> Filling:
    """Where up to `count` replicas of one class go."""
    kind = SpreadFilling if row.ruled(around) else Filling
    return kind(row, count, around, avoid)
