"""Placing replicas under rules over domains, where one placement changes what a whole domain is worth.

The next choice is the best of the best rows of all cells; within a cell, the nodes in the same domain under every rule,
the order is that of plain scores, so a cell is opened (a heap of its rows is made) only when it is taken from. Cells
stand in a heap too: what a placement makes worse is found out when it comes to the head, and where one makes others
better, all are weighed anew. The same answer as filtering and scoring all nodes again after every single replica. Ties
go to the lower row.
"""

import heapq

import numpy as np

from regional.core import scores
from regional.core.class_row import LEAST, ClassRow, Ranks
from regional.core.colocation import ALONE, Around
from regional.core.node_table import NOWHERE, Cells, Integers, Rows
from regional.core.placement import Candidates, Filling

_FEW_CELLS = 24  # so few are looked at one by one


class SpreadFilling(Filling):
    """Under rules over domains. Good for one task only: the rules look at where its own replicas are."""

    def continues(self, row: ClassRow, around: Around, avoid: int) -> bool:
        return False

    def _start(self, count: int, rank: Ranks, around: Around) -> None:
        row, topology = self.row, self._topology
        assert topology is not None
        self._count, self._copies = count, around.copies
        self._weight = scores.weight_sum(row.table, row.request)
        cells = topology.cells
        ranked = rank[cells.order]
        open_ = topology.takes(cells.domains)
        self.feasible = int(np.add.reduceat(ranked > LEAST, cells.starts, dtype=np.int64)[open_].sum())
        if self.avoid != NOWHERE and rank[self.avoid] > LEAST and self.feasible > int(open_[cells.of(self.avoid)]):
            rank[self.avoid], self.left_out = LEAST, self.avoid
            ranked = rank[cells.order]
        self._cells, self._ranked, self._opened = cells, ranked, dict[int, Candidates]()
        self._rows, self._scores = _best_of_each(cells, ranked)
        self._weigh(range(len(self._scores)) if len(self._scores) <= _FEW_CELLS else None)
        self.ranked = [row for _, row, _ in self._heap]

    def _weigh(self, few: range | None) -> None:
        """Makes the heap of (-total, best row, cell), of the cells that take one more, anew."""
        topology = self._topology
        assert topology is not None
        if few is not None:
            there = [c for c in few if self._scores[c] > LEAST and topology.takes_cell(c)]
            self._heap = [(-self._total(c), self._rows[c], c) for c in there]
        else:
            score = np.array(self._scores, np.float64)
            open_ = np.flatnonzero((score > LEAST) & topology.takes(self._cells.domains))
            totals = topology.totals(score[open_], self._weight, self._cells.domains[:, open_])
            self._heap = [(-t, self._rows[c], c) for t, c in zip(totals.tolist(), open_.tolist(), strict=True)]
        self._few = few
        self._heap.sort()  # a sorted list is a heap

    def _total(self, cell: int) -> float:
        assert self._topology is not None
        return self._topology.total(self._scores[cell], self._weight, cell)

    def _head(self) -> int:
        topology, heap = self._topology, self._heap if self.feasible else []
        while heap:
            worth, row, cell = heap[0]
            assert topology is not None
            if not topology.takes_cell(cell):  # comes back when all are weighed anew
                heapq.heappop(heap)
            elif topology.soft and (now := -self._total(cell)) > worth:
                heapq.heapreplace(heap, (now, row, cell))
            else:
                return row
        return NOWHERE

    def _take(self) -> None:
        _, row, cell = heapq.heappop(self._heap)
        assert self._topology is not None
        candidates = self._opened.get(cell)
        if candidates is None:
            best = _best_of(self._cells.rows(cell), self._cells.part(self._ranked, cell), self._count)
            candidates = self._opened[cell] = Candidates(self.row, best, self._count, self._copies, self._single)
        candidates.take()
        if candidates.heap:
            score, self._rows[cell], _, _ = candidates.heap[0]
            self._scores[cell] = -score
        else:
            self._scores[cell] = LEAST
        if self._topology.add(row):
            self._weigh(self._few)
        elif candidates.heap:
            heapq.heappush(self._heap, (-self._total(cell), self._rows[cell], cell))


def _best_of_each(cells: Cells, ranked: Ranks) -> tuple[list[int], list[float]]:
    """The best row of each cell, the lower of equals, and its rank."""
    starts, order = cells.starts, cells.order
    if len(starts) == len(order):
        return order.tolist(), ranked.tolist()
    best: Ranks = np.maximum.reduceat(ranked, starts)
    if len(starts) <= _FEW_CELLS:
        firsts = [start + int(cells.part(ranked, c).argmax()) for c, start in enumerate(starts.tolist())]
        rows: Integers = order[firsts]
    else:
        hits = np.flatnonzero(ranked == np.repeat(best, cells.sizes))
        rows = order[hits[np.searchsorted(hits, starts)]]
    return rows.tolist(), best.tolist()


def _best_of(rows: Rows, rank: Ranks, count: int) -> Rows:
    """The `count` best of these rows that take a replica, in order of rows; the lower of equals."""
    if len(rows) > count:
        level = np.partition(rank, len(rank) - count)[len(rank) - count]
        if level > LEAST:
            above = rows[rank > level]
            best: Rows = np.concatenate([above, rows[rank == level][: count - len(above)]])
            return best
    return rows[rank > LEAST]


def fill(row: ClassRow, count: int, around: Around = ALONE, avoid: int = NOWHERE) -> Filling:
    """Where up to `count` replicas of one class go."""
    domains = row.request.topology or any(not term.solitary for term in around.terms)
    return (SpreadFilling if domains else Filling)(row, count, around, avoid)
