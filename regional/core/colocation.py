"""Nearness between workloads: which replicas count for a rule, and where they are.

A `Colocating` is what a task says in `colocateWith` or `avoidColocating`. Bound to the replicas it is about it is a
`Term`, which regional/core/topology.py asks about domains; neighbours.py binds them. A hard `avoidColocating` holds
both ways: a replica that avoids others also keeps them away. What runs is never moved for a term.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.selectors import matches, spelt
from regional.core.filters import Requirement, requirement_of
from regional.core.node_table import NODE, NOWHERE, Integers, Mask, NodeTable, Values

FULL_WEIGHT = 4.0  # of a soft rule of weight 100, beside the weights of a strategy

Copies = Mapping[int, int]  # replicas of the task by row


@dataclass(frozen=True, slots=True)
class Selector:
    """Workloads of one tenant, by name or by labels."""

    workload: str
    labels: tuple[Requirement, ...]

    def matches(self, workload: str, labels: Mapping[str, str]) -> bool:
        if self.workload:
            return self.workload == workload
        return all(matches(one, labels) for one in self.labels)

    def __str__(self) -> str:
        """As people write it."""
        return self.workload or ",".join(map(spelt, self.labels))


@dataclass(frozen=True, slots=True)
class Colocating:
    selector: Selector
    within: str
    weight: int  # 0 = hard
    apart: bool

    @property
    def keeps_away(self) -> bool:
        return self.apart and not self.weight


def colocating_of(task: objects_pb2.Task) -> tuple[Colocating, ...]:
    near = [_colocating(asked, apart=False) for asked in task.colocate_with]
    return (*near, *(_colocating(asked, apart=True) for asked in task.avoid_colocating))


def _colocating(asked: objects_pb2.Colocation, *, apart: bool) -> Colocating:
    selector = Selector(asked.workload, tuple(map(requirement_of, asked.labels)))
    return Colocating(selector, asked.within or NODE, asked.weight, apart)


@dataclass(slots=True, eq=False)
class Counted:
    """Replicas bound, or about to be, by row. `news` is told of each that comes or goes."""

    news: "News"
    by_row: dict[int, int] = field(default_factory=dict)

    def move(self, row: int, by: int) -> None:
        count = self.by_row.get(row, 0) + by
        if count:
            self.by_row[row] = count
        else:
            del self.by_row[row]
        (self.news.came if by > 0 else self.news.left).add(self)


@dataclass(slots=True)
class News:
    """What has changed since parked classes were last looked at."""

    came: set[Counted] = field(default_factory=set)
    left: set[Counted] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.came or self.left)

    def clear(self) -> None:
        self.came.clear()
        self.left.clear()


@dataclass(frozen=True, slots=True)
class Term:
    """To be near to, or apart from, what is counted. `own`: the class's own replicas are counted too."""

    within: str
    weight: int
    apart: bool
    counted: Counted
    own: bool
    about: str  # web

    @property
    def solitary(self) -> bool:
        """Keeps replicas off single nodes: looked at row by row, not by domains."""
        return self.apart and not self.weight and self.within == NODE

    def curable(self, news: News) -> bool:
        """Whether a hard term may allow now what it refused before."""
        gone = self.counted in news.left
        return not self.weight and (gone if self.apart else self.counted in news.came or (self.own and gone))


@dataclass(frozen=True, slots=True)
class Around:
    """Where a class's own replicas are, and those that its terms count. `gone`: a row that one of its own is about to
    leave; `copies` says so already."""

    copies: Copies = field(default_factory=dict)
    terms: tuple[Term, ...] = ()
    gone: int = NOWHERE

    def without(self, row: int) -> "Around":
        return Around({**self.copies, row: self.copies[row] - 1}, self.terms, row)


ALONE = Around()


class ColocationRule:
    """One term, and how many replicas each domain has of those it counts."""

    def __init__(self, table: NodeTable, term: Term, gone: int) -> None:
        self.code = explain.KEPT_APART if term.apart else explain.NOT_COLOCATED
        within = "" if term.within == NODE else f"/{term.within}"  # rings around one workload differ by it alone
        self.name = f"{'apart' if term.apart else 'near'}:{term.about}{within}"
        self.weight = FULL_WEIGHT * term.weight / 100
        self.ids, domains = table.domains(term.within)
        self._table, self._term = table, term
        by_row = term.counted.by_row
        held = np.fromiter(by_row, np.int64, len(by_row))
        replicas = np.fromiter(by_row.values(), np.int64, len(by_row))
        self._counts: Integers = np.bincount(self.ids[held], replicas, domains).astype(np.int64)
        if gone != NOWHERE and term.own:
            self._counts[self.ids[gone]] -= 1
        self._counts[0] = 0  # nodes without the label are no domain
        self._founds = not term.apart and term.own and not self._counts.any()

    def takes_one(self, domain: int) -> bool:
        """`takes`, of one."""
        if self.weight:
            return True
        if self._term.apart:
            return not self._counts[domain]
        return domain > 0 and bool(self._counts[domain] > 0 or self._founds)

    def value(self, domain: int) -> float:
        """`values`, of one."""
        count = int(self._counts[domain])
        return 1 / (1 + count) if self._term.apart else float(count > 0)

    def takes(self, domains: Integers) -> Mask:
        if self.weight:
            return np.ones(len(domains), np.bool_)
        if self._term.apart:
            free: Mask = self._counts[domains] == 0
            return free
        joined: Mask = (domains > 0) & ((self._counts[domains] > 0) | self._founds)
        return joined

    def values(self, domains: Integers) -> Values:
        """As scores. Apart: 1, 1/2, 1/3 … for 0, 1, 2 … of them in the domain. Near: 1 where any is, else 0."""
        counts = self._counts[domains]
        return 1 / (1 + counts) if self._term.apart else np.minimum(counts, 1).astype(np.float64)

    def add(self, domain: int) -> bool:
        """One more of the class's own is there. Whether that makes a domain better."""
        if not self._term.own or not domain:
            return False
        self._counts[domain] += 1
        self._founds = False
        return bool(self.weight) and not self._term.apart and self._counts[domain] == 1

    def told(self, domain: int) -> str:
        if not domain:
            return f"no label {self._term.within}"
        here = self._table.domain_name(self._term.within, domain)
        count = int(self._counts[domain])
        return f"{here} has {f'{count} of' if count else 'none of'} {self._term.about}"
