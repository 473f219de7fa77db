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
import numpy.typing as npt

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.resources import DIMENSIONS
from regional.core import gpus, scores
from regional.core.colocation import ALONE, Around, Copies
from regional.core.filters import FILTERS, FIRST_OF_ROOM, Cure, Request, culprits, missing
from regional.core.node_table import NOWHERE, Integers, NodeTable, Rows
from regional.core.topology import Topology

FEASIBLE = -1
ABSENT = -2
LEAST = -1.0  # below every score
FIRST_STEPS = 4  # replicas on one node whose scores are computed for all candidates at once


class ClassRow:
    """The answers of all nodes for one request. Repaired by `refresh`; valid for one table."""

    def __init__(self, table: NodeTable, request: Request) -> None:
        self.table = table
        self.request = request
        self.refusal: npt.NDArray[np.int8] = np.empty(0, np.int8)
        self.score: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self.counts: Integers = np.zeros(len(FILTERS) - ABSENT, np.int64)  # of rows, by refusal - ABSENT
        self._rank: npt.NDArray[np.float32] = np.empty(0, np.float32)  # the score of feasible rows, else LEAST
        self._level = np.inf  # of the last row that was among the best when asked last: a guess for the next time
        self._seen = -1
        self._taint_sets = 0

    def refresh(self, copies: Copies) -> None:
        table = self.table
        if self._seen == table.version and len(self.refusal) == table.size:
            return
        if len(self.refusal) != table.size or self._taint_sets != len(table.taint_sets):
            self.refusal = np.full(table.size, ABSENT, np.int8)
            self.score = np.empty(table.size, np.float32)
            self._rank = np.full(table.size, LEAST, np.float32)
            self.counts[:] = 0
            self.counts[0] = table.size
            self._taint_sets = len(table.taint_sets)
            self._seen = -1
        rows = np.flatnonzero(table.changed[: table.size] > self._seen)
        self._seen = table.version
        refusal = _first_refusals(table, self.request, rows)
        score = _scores_of_one_more(table, self.request, rows, copies)
        self.counts -= np.bincount(self.refusal[rows] - ABSENT, minlength=len(self.counts))
        self.counts += np.bincount(refusal - ABSENT, minlength=len(self.counts))
        self.refusal[rows], self.score[rows] = refusal, score
        self._rank[rows] = np.where(refusal == FEASIBLE, score, np.float32(LEAST))

    @property
    def feasible_count(self) -> int:
        return int(self.counts[FEASIBLE - ABSENT])

    def feasible(self) -> Rows:
        return np.flatnonzero(self.refusal == FEASIBLE)

    def allowed(self, around: Around) -> Rows:
        """Feasible rows that no rule over domains refuses."""
        rows = self.feasible()
        return rows[self.topology(around).allowed(rows)] if self.ruled(around) else rows

    def ruled(self, around: Around) -> bool:
        return bool(self.request.topology or around.terms)

    def topology(self, around: Around) -> Topology:
        usable = np.flatnonzero((self.refusal == FEASIBLE) | (self.refusal >= FIRST_OF_ROOM))
        return Topology(self.table, self.request, usable, around)

    def rank_of(self, rows: Rows) -> npt.NDArray[np.float32]:
        return self._rank[rows]

    def best(self, count: int, avoid: int) -> Rows:
        """The `count` best feasible rows, in the order of rows; `avoid` only when there is no other."""
        rank, feasible = self._rank, self.feasible_count
        if avoid != NOWHERE and feasible > 1 and self.refusal[avoid] == FEASIBLE:
            rank, feasible = rank.copy(), feasible - 1
            rank[avoid] = LEAST
        if feasible <= count:
            return np.flatnonzero(rank > LEAST)
        above, level = np.flatnonzero(rank > self._level), np.flatnonzero(rank == self._level)
        if not len(above) <= count <= len(above) + len(level):
            among = rank[above] if len(above) > count else rank
            self._level = float(np.partition(among, len(among) - count)[len(among) - count])
            above, level = np.flatnonzero(rank > self._level), np.flatnonzero(rank == self._level)
        best: Rows = np.sort(np.concatenate([above, level[: count - len(above)]]))
        return best


def _first_refusals(table: NodeTable, request: Request, rows: Rows) -> npt.NDArray[np.int8]:
    refusal = np.where(table.present[rows], FEASIBLE, ABSENT).astype(np.int8)
    for number, one in enumerate(FILTERS):
        passed = one.passes(table, request, rows)
        if not passed.all():
            refusal[(refusal == FEASIBLE) & ~passed] = number
    return refusal


def _copies_at(rows: Rows, copies: Copies) -> npt.NDArray[np.int32]:
    if not copies:
        return np.zeros(len(rows), np.int32)
    return np.fromiter((copies.get(row, 0) for row in rows.tolist()), np.int32, len(rows))


def _amounts(request: Request) -> Integers:
    return np.array(request.vector.amounts(), np.int64)


def _scores_of_one_more(table: NodeTable, request: Request, rows: Rows, copies: Copies) -> npt.NDArray[np.float32]:
    own = _copies_at(rows, copies if scores.counts_copies(request) else {})
    return scores.total(table, request, rows, table.used[rows] + _amounts(request), own)


class Candidates:
    """Rows that are filled by their own scores alone: the best one now is the head of a heap."""

    def __init__(self, row: ClassRow, rows: Rows, count: int, copies: Copies) -> None:
        table, request = row.table, row.request
        room = _room(table, request, rows, count)
        self._row = row
        self._rows = rows
        self._used = table.used[rows]
        self._copies = _copies_at(rows, copies if scores.counts_copies(request) else {})
        self._room: list[int] = room.tolist()
        self._steps = self._scores(slice(None), 0, min(int(room.max()), FIRST_STEPS))
        # (-score, row, step, number of the candidate)
        self.heap = [(-self._steps[i][0], candidate, 0, i) for i, candidate in enumerate(rows.tolist())]
        self.heap.sort()  # a sorted list is a heap

    def take(self) -> None:
        """The head gets a replica: its next step, or the next row, comes up."""
        _, row, step, i = self.heap[0]
        if step + 1 < self._room[i]:
            heapq.heapreplace(self.heap, (-self._score(i, step + 1), row, step + 1, i))
        else:
            heapq.heappop(self.heap)

    def _score(self, i: int, step: int) -> float:
        """Of candidate `i` with `step` more replicas than at the start."""
        scored = self._steps[i]
        if step >= len(scored):
            scored += self._scores(slice(i, i + 1), len(scored), self._room[i])[0]
        return scored[step]

    def _scores(self, part: slice, first: int, end: int) -> list[list[float]]:
        """For each candidate of `part`, its scores with `first` … `end - 1` more replicas than at the start."""
        request, steps = self._row.request, np.arange(first, end)
        used = self._used[part] + (steps[:, None, None] + 1) * _amounts(request)
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
        self.left = count
        self.refusals = explain_refusals(row, around)
        self.feasible = row.feasible_count
        self.ranked: list[int] = []  # the candidates, best first
        self._version = row.table.version
        self._candidates: Candidates | None = None
        if self.feasible:
            self._start(count, around)

    def _start(self, count: int, around: Around) -> None:
        self._candidates = Candidates(self.row, self.row.best(count, self.avoid), count, around.copies)
        self.ranked = [candidate for _, candidate, _, _ in self._candidates.heap]

    def continues(self, row: ClassRow, around: Around, avoid: int) -> bool:
        """Whether this filling still gives the answers a fresh one would."""
        if row.ruled(around):
            return False
        own = self.row is row and self.avoid == avoid and not scores.counts_copies(row.request)
        return own and self._head() != NOWHERE and self.left > 0 and self._version == row.table.version

    def take(self, count: int, compares: int, known: Collection[int] = ()) -> list[int]:
        """Greedy: the best row now, again and again. Fewer than `count` when no more fit, or when `compares` are spent:
        a replica costs one, and one more the first on a row that is not `known`."""
        chosen: list[int] = []
        seen = set(known)
        while len(chosen) < min(count, self.left) and (row := self._head()) != NOWHERE:
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
    table, request = row.table, row.request
    reasons: list[objects_pb2.PendingReason] = []
    cures: frozenset[Cure] = frozenset()
    for number in np.flatnonzero(row.counts[-ABSENT:]).tolist():
        code = FILTERS[number].code
        rows = np.flatnonzero(row.refusal == number)
        cures |= FILTERS[number].cures
        reasons.append(_reason(table, request, rows, code))
    if refused := _refused_by_rules(row, row.feasible(), around):
        reasons += refused
        cures |= {Cure.NODES, Cure.REPLICAS}
    if not reasons:
        nobody = () if row.feasible_count else (explain.reason(explain.NO_NODES),)
        return Refusals(nobody, frozenset({Cure.NODES}))
    return Refusals(tuple(reasons), cures)


def _refused_by_rules(row: ClassRow, rows: Rows, around: Around) -> list[objects_pb2.PendingReason]:
    """How many of these rows one more replica would break a rule over domains on, and how."""
    if not row.ruled(around):
        return []
    nodes: dict[str, int] = {}
    details: dict[str, str] = {}
    for code, count, detail in row.topology(around).refused(rows):
        nodes[code] = nodes.get(code, 0) + count
        details.setdefault(code, detail)
    return [explain.reason(code, count, detail=details[code]) for code, count in nodes.items()]


def explain_node(row: ClassRow, node: int, around: Around = ALONE) -> objects_pb2.PendingReason | None:
    """Why this one node refuses the class, or None when it does not."""
    row.refresh(around.copies)
    number = int(row.refusal[node])
    if number < 0:
        return next(iter(_refused_by_rules(row, np.array([node]), around)), None)
    code = FILTERS[number].code
    return _reason(row.table, row.request, np.array([node]), code)


def _reason(table: NodeTable, request: Request, rows: Rows, code: str) -> objects_pb2.PendingReason:
    """Why these rows refuse, with the amount that is missing or the demand that is not met."""
    lacking = _least_missing(table, request, rows, code)
    return explain.reason(code, len(rows), lacking, culprits(table, request, rows, code))


def _least_missing(table: NodeTable, request: Request, rows: Rows, code: str) -> int:
    for dimension, name in enumerate(DIMENSIONS):
        if explain.INSUFFICIENT[name] == code:
            return int(missing(table, request, rows, dimension).min())
    return 0


def show_scores(row: ClassRow, ranked: Sequence[int], around: Around = ALONE) -> list[objects_pb2.NodeScore]:
    """The terms of these nodes' scores, as of the last refresh and before any charge."""
    if not ranked:
        return []
    table, request = row.table, row.request
    rows = np.array(ranked, np.int64)
    used = table.used[rows] + _amounts(request)
    own = _copies_at(rows, around.copies if scores.counts_copies(request) else {})
    parts = [
        (score.name, weight, score.value(table, request, rows, used, own).tolist())
        for score, weight in scores.terms(table, request)
    ]
    shown = []
    topology = row.topology(around) if row.ruled(around) else None
    weight_sum = scores.weight_sum(table, request)
    for i, r in enumerate(ranked):
        score = objects_pb2.NodeScore(node=table.names[r], total=float(row.score[r]))
        score.terms.extend(objects_pb2.ScoreTerm(name=n, value=values[i], weight=w) for n, w, values in parts)
        if topology:
            domains = topology.domains(rows[i : i + 1])
            score.total = float(topology.totals(row.score[[r]].astype(np.float64), weight_sum, domains)[0])
            for rule, at in zip(topology.rules, domains, strict=True):
                if rule.weight:
                    score.terms.add(name=rule.name, value=float(rule.values(at)[0]), weight=rule.weight)
        shown.append(score)
    return shown
