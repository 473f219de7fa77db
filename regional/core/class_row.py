"""The answers of all nodes for one request: who refuses it, and how good the others are with one replica more.

A `ClassRow` is remembered and repairs only the rows that changed before it is used: all of a row when its node changed,
what depends on use when only that did. Decides nothing about where replicas go: placement.py.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.resources import DIMENSIONS
from regional.core import scores
from regional.core.colocation import Around, Copies
from regional.core.filters import FILTERS, FIRST_OF_ROOM, Request, culprits, missing
from regional.core.node_table import Integers, NodeTable, Rows
from regional.core.topology import Topology

FEASIBLE = -1
ABSENT = -2
LEAST = -1.0  # below every score
Ranks = npt.NDArray[np.float32]
FIRST_STEPS = 4  # replicas on one node whose scores are computed for all candidates at once


class Answers(NamedTuple):
    """A class row's arrays, by row but for `counts`: what is exchanged where another process evaluates the class."""

    refusal: npt.NDArray[np.int8]
    kind: npt.NDArray[np.int8]
    score: npt.NDArray[np.float32]
    rank: Ranks
    counts: Integers

    def write(self, found: "Answers") -> None:
        """In place."""
        np.copyto(self.refusal, found.refusal)
        np.copyto(self.kind, found.kind)
        np.copyto(self.score, found.score)
        np.copyto(self.rank, found.rank)
        np.copyto(self.counts, found.counts)


class ClassRow:
    """The answers of all nodes for one request. Repaired by `refresh`; valid for one table."""

    def __init__(self, table: NodeTable, request: Request) -> None:
        self.table = table
        self.request = request
        self.refusal: npt.NDArray[np.int8] = np.empty(0, np.int8)
        self.score: npt.NDArray[np.float32] = np.empty(0, np.float32)
        self.counts: Integers = np.zeros(len(FILTERS) - ABSENT, np.int64)  # of rows, by refusal - ABSENT
        self.rank: Ranks = np.empty(0, np.float32)  # the score of feasible rows, else LEAST
        self._kind: npt.NDArray[np.int8] = np.empty(0, np.int8)  # refusals by what a node is, whatever it has left
        self._level = np.inf  # of the last row that was among the best when asked last: a guess for the next time
        self._seen = -1
        self._taint_sets = 0
        self._reasons: dict[int, objects_pb2.PendingReason] = {}  # by number of the filter
        self._domains: dict[str, tuple[tuple[int, int], Integers]] = {}  # that count, with the versions they are of
        self._kinds = 0  # raised with each change of `_kind`

    def refresh(self, copies: Copies) -> None:
        table = self.table
        if self._seen == table.version and len(self.refusal) == table.size:
            return
        if self._begins:
            self._begin()
        rows = np.flatnonzero(table.changed[: table.size] > self._seen)
        described = rows[table.described[rows] > self._seen]
        self._seen = table.version
        if len(described):
            self._kind[described] = _first_refusals(table, self.request, described)
            self._kinds += 1
        self._repair(rows, copies)

    @property
    def _begins(self) -> bool:
        """Whether nothing of it is of use any more."""
        return len(self.refusal) != self.table.size or self._taint_sets != len(self.table.taint_sets)

    @property
    def behind(self) -> int:
        """How many rows a refresh looks at."""
        if self._begins:
            return self.table.size
        return int(np.count_nonzero(self.table.changed[: self.table.size] > self._seen))

    # ---- evaluated elsewhere: told there, continued there and told, adopted here

    def tell(self, answers: Answers) -> int:
        """Writes its arrays there. The version of the table that they are of; -1: it begins anew, and nothing is
        written."""
        if self._begins:
            return -1
        answers.write(self._arrays())
        return self._seen

    def go_on(self, answers: Answers, seen: int) -> None:
        """From what `tell` has told. These arrays are its own from then on."""
        self.refusal, self._kind, self.score, self.rank, self.counts = answers
        self._taint_sets, self._seen = len(self.table.taint_sets), seen

    def adopt(self, answers: Answers) -> None:
        """What `refresh` would make of it now, as it was found elsewhere."""
        if self._begins:
            self._begin()
        if self._reasons:
            rows = np.flatnonzero(self.table.changed[: self.table.size] > self._seen)
            self._forget_reasons(self.refusal[rows], answers.refusal[rows])
        self._kinds += self.table.redescribed > self._seen
        self._arrays().write(answers)
        self._seen = self.table.version

    def _arrays(self) -> Answers:
        return Answers(self.refusal, self._kind, self.score, self.rank, self.counts)

    def copy(self, copies: Copies) -> "ClassRow":
        """For a task whose own replicas count in its scores, where this row knows of none. Both are up to date."""
        row = ClassRow(self.table, self.request)
        for name in ("refusal", "score", "counts", "rank", "_kind"):
            setattr(row, name, getattr(self, name).copy())
        row._seen, row._taint_sets, row._kinds = self._seen, self._taint_sets, self._kinds
        row._reasons, row._domains = dict(self._reasons), dict(self._domains)
        row._repair(np.fromiter(copies, np.int64, len(copies)), copies)
        return row

    def _repair(self, rows: Rows, copies: Copies) -> None:
        table = self.table
        refusal = self._kind[rows]
        _refuse_for_room(table, self.request, rows, refusal)
        score = _scores_of_one_more(table, self.request, rows, copies)
        before = self.refusal[rows]
        self.counts -= np.bincount(before - ABSENT, minlength=len(self.counts))
        self.counts += np.bincount(refusal - ABSENT, minlength=len(self.counts))
        if self._reasons:
            self._forget_reasons(before, refusal)
        self.refusal[rows], self.score[rows] = refusal, score
        self.rank[rows] = np.where(refusal == FEASIBLE, score, np.float32(LEAST))

    def _forget_reasons(self, before: npt.NDArray[np.int8], refusal: npt.NDArray[np.int8]) -> None:
        """Those of rows that have changed."""
        moved = before != refusal
        for number in dict.fromkeys((*before[moved].tolist(), *refusal[moved | (refusal >= FIRST_OF_ROOM)].tolist())):
            self._reasons.pop(number, None)

    def _begin(self) -> None:
        table = self.table
        self.refusal = np.full(table.size, ABSENT, np.int8)
        self._kind = np.full(table.size, ABSENT, np.int8)
        self.score = np.empty(table.size, np.float32)
        self.rank = np.full(table.size, LEAST, np.float32)
        self.counts[:] = 0
        self.counts[0] = table.size
        self._taint_sets = len(table.taint_sets)
        self._seen = -1
        self._reasons.clear()

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
        return Topology(self.table, self.request, self._counting, around)

    def _counting(self, within: str) -> Integers:
        """The domains that have rows which could take the class if they had room."""
        versions = (self._kinds, self.table.labelled)
        known, domains = self._domains.get(within, ((-1, -1), None))
        if domains is None or known != versions:
            ids, numbers = self.table.domains(within)
            there = np.zeros(numbers, np.bool_)
            there[ids[self._kind == FEASIBLE]] = True
            there[0] = False
            domains = np.flatnonzero(there)
            self._domains[within] = versions, domains
        return domains

    def reason(self, number: int) -> objects_pb2.PendingReason:
        """Why the rows refuse that this filter refuses first."""
        known = self._reasons.get(number)
        if known is None:
            rows = np.flatnonzero(self.refusal == number)
            known = self._reasons[number] = reason_of(self.table, self.request, rows, FILTERS[number].code)
        return known

    def best(self, rank: Ranks, count: int) -> Rows:
        """The `count` best rows by `rank`, which is the row's own or one with fewer rows, in the order of rows."""
        above, level = np.flatnonzero(rank > self._level), np.flatnonzero(rank == self._level)
        if not len(above) <= count <= len(above) + len(level) or self._level <= LEAST:
            if len(rank) <= count:
                return np.flatnonzero(rank > LEAST)
            among = rank[above] if len(above) > count else rank
            self._level = float(np.partition(among, len(among) - count)[len(among) - count])
            if self._level <= LEAST:
                return np.flatnonzero(rank > LEAST)
            above, level = np.flatnonzero(rank > self._level), np.flatnonzero(rank == self._level)
        best: Rows = np.sort(np.concatenate([above, level[: count - len(above)]]))
        return best


def _first_refusals(table: NodeTable, request: Request, rows: Rows) -> npt.NDArray[np.int8]:
    """By the filters that do not ask for room."""
    refusal = np.where(table.present[rows], FEASIBLE, ABSENT).astype(np.int8)
    for number, one in enumerate(FILTERS[:FIRST_OF_ROOM]):
        passed = one.passes(table, request, rows)
        if not passed.all():
            refusal[(refusal == FEASIBLE) & ~passed] = number
    return refusal


def _refuse_for_room(table: NodeTable, request: Request, rows: Rows, refusal: npt.NDArray[np.int8]) -> None:
    """By the others, of the dimensions asked for; in place."""
    for dimension, amount in enumerate(request.vector):
        if amount:
            lacking = missing(table, request, rows, dimension) > 0
            if lacking.any():
                refusal[(refusal == FEASIBLE) & lacking] = FIRST_OF_ROOM + dimension


def copies_at(rows: Rows, copies: Copies) -> npt.NDArray[np.int32]:
    if not copies:
        return np.zeros(len(rows), np.int32)
    return np.fromiter((copies.get(row, 0) for row in rows.tolist()), np.int32, len(rows))


def amounts_of(request: Request) -> Integers:
    return np.array(request.vector.amounts(), np.int64)


def _scores_of_one_more(table: NodeTable, request: Request, rows: Rows, copies: Copies) -> npt.NDArray[np.float32]:
    own = copies_at(rows, copies if scores.counts_copies(request) else {})
    return scores.total(table, request, rows, table.used[rows] + amounts_of(request), own)


def reason_of(table: NodeTable, request: Request, rows: Rows, code: str) -> objects_pb2.PendingReason:
    """Why these rows refuse, with the amount that is missing or the demand that is not met."""
    lacking = _least_missing(table, request, rows, code)
    return explain.reason(code, len(rows), lacking, culprits(table, request, rows, code))


def _least_missing(table: NodeTable, request: Request, rows: Rows, code: str) -> int:
    for dimension, name in enumerate(DIMENSIONS):
        if explain.INSUFFICIENT[name] == code:
            return int(missing(table, request, rows, dimension).min())
    return 0
