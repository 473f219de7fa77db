"""Where the next replicas of one class go: a batch at a time, against one remembered row of answers.

A `ClassRow` holds, for every node, the first filter that refuses the class and the score of placing one replica there;
before use it repairs only the rows that changed. A `Filling` of `count` replicas takes the best `count` rows, computes
each one's score for its first, second … replica (the first few of all rows in one matrix, further ones of a row when it
is filled that far), and fills greedily with a heap: the same answer as scoring all nodes again after every single
replica, because a placement changes only the node it lands on, so the t-th choice is among the t best rows of the
start. Ties go to the lower row. Under topology spread a placement changes its whole
domain: regional/core/spread_filling.py.
"""

import heapq
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from regional.core import gpus, scores
from regional.core.class_row import ABSENT, FIRST_STEPS, LEAST, ClassRow, Ranks, amounts_of, copies_at, reason_of
from regional.core.colocation import ALONE, Around, Copies
from regional.core.filters import FILTERS, Cure, Request
from regional.core.node_table import NOWHERE, Integers, NodeTable, Rows
from regional.core.topology import Topology


class Candidates:
    """Rows that are filled by their own scores alone: the best one now is the head of a heap. `single`: a row takes one
    replica. How good a row is with more replicas is found when it is asked: for one row at first, then for all."""

    def __init__(self, row: ClassRow, rows: Rows, count: int, copies: Copies, single: bool) -> None:
        table, request = row.table, row.request
        self._row = row
        self._rows = rows
        self._used = table.used[rows]
        self._copies = copies_at(rows, copies if scores.counts_copies(request) else {})
        self._room: list[int] = [1] * len(rows) if single else _room(table, request, rows, count).tolist()
        worth = row.rank[rows].tolist()
        self._steps: list[list[float]] = [[one] for one in worth]
        self._looks = 0
        # (-score, row, step, number of the candidate)
        self.heap = [(-worth[i], candidate, 0, i) for i, candidate in enumerate(rows.tolist())]
        self.heap.sort()  # a sorted list is a heap

    def take(self) -> None:
        """The head gets a replica: its next step, or the next row, comes up."""
        _, row, step, i = self.heap[0]
        if step + 1 < self._room[i]:
            if step + 1 >= len(self._steps[i]):
                self._look_ahead(i)
            heapq.heapreplace(self.heap, (-self._steps[i][step + 1], row, step + 1, i))
        else:
            heapq.heappop(self.heap)

    def _look_ahead(self, i: int) -> None:
        self._looks += 1
        if self._looks == 2:
            end = min(max(self._room), FIRST_STEPS)
            for steps, more in zip(self._steps, self._scores(slice(None), 1, end), strict=True):
                if len(steps) == 1:
                    steps += more
        if len(self._steps[i]) < self._room[i] and (self._looks != 2 or len(self._steps[i]) == 1):
            self._steps[i] += self._scores(slice(i, i + 1), len(self._steps[i]), self._room[i])[0]

    def _scores(self, part: slice, first: int, end: int) -> list[list[float]]:
        """For each candidate of `part`, its scores with `first` … `end - 1` more replicas than at the start."""
        request, steps = self._row.request, np.arange(first, end)
        used = self._used[part] + (steps[:, None, None] + 1) * amounts_of(request)
        copies = self._copies[part] + steps[:, None].astype(np.int32)
        matrix: list[list[float]] = scores.total(self._row.table, request, self._rows[part], used, copies).T.tolist()
        return matrix


class Filling:
    """Up to `count` replicas being placed from one row of answers, by one class or by several that ask alike. Good as
    long as nothing but its own choices is charged to the table: see `continues`."""

    def __init__(self, row: ClassRow, count: int, around: Around = ALONE, avoid: int = NOWHERE) -> None:
        row.refresh(around.copies)
        self.row = row
        self.avoid = avoid
        self.left_out = NOWHERE  # the row to avoid, where it is feasible and not the only one
        self.left = count
        self._around = around
        self._topology = row.topology(around) if row.ruled(around) else None
        self._single = self._topology is not None and self._topology.single
        self.refusals = _explain(row, self._topology)
        self.feasible = row.feasible_count
        self.ranked: list[int] = []  # the candidates, best first
        self._version = row.table.version
        self._candidates: Candidates | None = None
        if self.feasible:
            self._start(count, self._ranks(), around)

    def _ranks(self) -> Ranks:
        """A copy where it is going to be changed: of rows that are taken already nothing is to be had."""
        rank = self.row.rank
        if self._topology is not None or self.avoid != NOWHERE:
            rank = rank.copy()
        if self._topology is not None:
            rank[self._topology.taken] = LEAST
        return rank

    def _start(self, count: int, rank: Ranks, around: Around) -> None:
        if self._topology is not None:
            self.feasible = int((rank > LEAST).sum())
        if self.avoid != NOWHERE and rank[self.avoid] > LEAST and self.feasible > 1:
            rank[self.avoid], self.left_out = LEAST, self.avoid
        best = self.row.best(rank, min(count, self.feasible))
        self._candidates = Candidates(self.row, best, count, around.copies, self._single)
        self.ranked = [candidate for _, candidate, _, _ in self._candidates.heap]

    def shown(self, most: int) -> list[objects_pb2.NodeScore]:
        """The best of the nodes, with the terms of their scores."""
        return show_scores(self.row, self.ranked[:most], self._around, self._topology)

    def continues(self, row: ClassRow, around: Around, avoid: int) -> bool:
        """Whether this filling still gives the answers a fresh one would."""
        if row.ruled(around) or self._topology is not None:
            return False
        own = self.row is row and self.avoid == avoid and not scores.counts_copies(row.request)
        return own and self._head() != NOWHERE and self.left > 0 and self._version == row.table.version

    def take(self, count: int, compares: int, known: Collection[int] = ()) -> list[int]:
        """Greedy: the best row now, again and again. Fewer than `count` when no more fit, or when `compares` are spent:
        a replica costs one, and one more the first on a row that is not `known`."""
        chosen: list[int] = []
        seen = set(known)
        most = min(count, self.left)
        while len(chosen) < most and (row := self._head()) != NOWHERE:
            compares -= 1 if row in seen else 2
            if compares < 0:
                break
            seen.add(row)
            chosen.append(row)
            self._take()
        self.left -= len(chosen)
        return chosen

    def _head(self) -> int:
        """The row of the next choice."""
        return self._candidates.heap[0][1] if self._candidates and self._candidates.heap else NOWHERE

    def _take(self) -> None:
        """That row gets a replica."""
        if self._candidates:
            self._candidates.take()

    def charged(self) -> None:
        """What was taken is now charged to the table, and nothing else was since."""
        self._version = self.row.table.version


def _room(table: NodeTable, request: Request, rows: Rows, count: int) -> Integers:
    """How many replicas each row takes, at most `count`."""
    room = np.full(len(rows), count, np.int64)
    for dimension, amount in enumerate(request.vector.amounts()):
        if amount:
            free = table.capacity[rows, dimension] - table.used[rows, dimension]
            room = np.minimum(room, free // amount)
    if request.vector.gpu_milli:
        room = np.minimum(room, gpus.room(table, request, rows))
    return room


@dataclass(frozen=True, slots=True)
class Refusals:
    """Why a class is placed nowhere: counts by first refusing filter, and what could change it."""

    reasons: tuple[objects_pb2.PendingReason, ...]
    cures: frozenset[Cure]


def explain_refusals(row: ClassRow, around: Around = ALONE) -> Refusals:
    """Nodes by the first filter that refused them; for resources with the smallest missing amount."""
    row.refresh(around.copies)
    return _explain(row, row.topology(around) if row.ruled(around) else None)


def _explain(row: ClassRow, topology: Topology | None) -> Refusals:
    numbers = np.flatnonzero(row.counts[-ABSENT:]).tolist()
    reasons = [row.reason(number) for number in numbers]
    cures: frozenset[Cure] = frozenset().union(*(FILTERS[number].cures for number in numbers))
    if topology is not None and (refused := _refused_by_rules(topology, row.feasible())):
        reasons += refused
        cures |= {Cure.NODES, Cure.REPLICAS}
    if not reasons:
        nobody = () if row.feasible_count else (explain.reason(explain.NO_NODES),)
        return Refusals(nobody, frozenset({Cure.NODES}))
    return Refusals(tuple(reasons), cures)


def _refused_by_rules(topology: Topology, rows: Rows) -> list[objects_pb2.PendingReason]:
    """How many of these rows one more replica would break a rule over domains on, and how."""
    nodes: dict[str, int] = {}
    details: dict[str, str] = {}
    for code, count, detail in topology.refused(rows):
        nodes[code] = nodes.get(code, 0) + count
        details.setdefault(code, detail)
    return [explain.reason(code, count, detail=details[code]) for code, count in nodes.items()]


def explain_node(row: ClassRow, node: int, around: Around = ALONE) -> list[objects_pb2.PendingReason]:
    """Every filter and rule by which this one node refuses the class, in the order in which they are asked."""
    row.refresh(around.copies)
    rows = np.array([node])
    refusing = [each.code for each in FILTERS if not each.passes(row.table, row.request, rows)[0]]
    reasons = [reason_of(row.table, row.request, rows, code) for code in refusing]
    return reasons + (list(_refused_by_rules(row.topology(around), rows)) if row.ruled(around) else [])


def show_scores(
    row: ClassRow, ranked: Sequence[int], around: Around = ALONE, topology: Topology | None = None
) -> list[objects_pb2.NodeScore]:
    """The terms of these nodes' scores, as of the last refresh and before any charge."""
    if not ranked:
        return []
    table, request = row.table, row.request
    rows = np.array(ranked, np.int64)
    used = table.used[rows] + amounts_of(request)
    own = copies_at(rows, around.copies if scores.counts_copies(request) else {})
    parts = [
        (score.name, weight, score.value(table, request, rows, used, own).tolist())
        for score, weight in scores.terms(table, request)
    ]
    totals = row.score[rows].astype(np.float64)
    if topology is None and row.ruled(around):
        topology = row.topology(around)
    if topology is not None:
        domains = topology.domains(rows)
        totals = topology.totals(totals, scores.weight_sum(table, request), domains)
        parts += [
            (rule.name, rule.weight, rule.values(at).tolist())
            for rule, at in zip(topology.rules, domains, strict=True)
            if rule.weight
        ]
    shown = []
    for i, (r, total) in enumerate(zip(ranked, totals.tolist(), strict=True)):
        score = objects_pb2.NodeScore(node=table.names[r], total=total)
        for name, weight, values in parts:
            score.terms.add(name=name, value=values[i], weight=weight)
        shown.append(score)
    return shown
