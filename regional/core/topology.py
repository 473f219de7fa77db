"""Rules over domains: topology spread, the replicas of a task over zones, racks, or whatever else a label of nodes
says; and nearness to other workloads, regional/core/colocation.py.

A domain is all nodes with one value of a label. It counts for a class when it has a node that the class could use if
that had room: a zone whose nodes are lost, cordoned or of the wrong kind holds nobody back. A hard rule refuses a
domain that would then have more than `max_skew` replicas above the domain with the fewest; a soft one makes it worse.
What runs is never moved for a rule. A `Topology` is made for one decision, from the replicas of that moment, and
follows the replicas that are placed by it.
"""

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from atoll.model import explain
from regional.core.colocation import FULL_WEIGHT, Around, ColocationRule, Copies
from regional.core.filters import Request, Spreading
from regional.core.node_table import Cells, Integers, Interned, Mask, NodeTable, Rows, Values

Counting = Callable[[str], Integers]


class SpreadRule:
    """One rule of topology spread, and how many replicas each domain has."""

    code = explain.TOPOLOGY_SPREAD

    def __init__(self, table: NodeTable, asked: Spreading, domains: Integers, copies: Copies) -> None:
        """`domains`: those that count."""
        self.asked = asked
        self.name = f"spread:{asked.within}"
        self.weight = FULL_WEIGHT * asked.weight / 100
        self.ids, numbers = table.domains(asked.within)
        self._table = table
        held = np.fromiter(copies, np.int64, len(copies))
        replicas = np.fromiter(copies.values(), np.int64, len(copies))
        self._counts = np.bincount(self.ids[held], replicas, numbers).astype(np.int64)  # by domain
        self._domains = domains
        self._counted = np.zeros(numbers, np.bool_)
        self._counted[domains] = True
        counts = self._counts[domains]
        self._least = int(counts.min()) if len(domains) else 0
        self._with_least = int((counts == self._least).sum())  # domains

    def _excess(self, domains: Integers) -> Integers:
        """By how much one more replica would be over the skew; at most 0 when it is allowed."""
        excess: Integers = self._counts[domains] + 1 - self._least - self.asked.max_skew
        return excess

    def takes_one(self, domain: int) -> bool:
        """`takes`, of one."""
        if self.asked.weight:
            return True
        return bool(self._counted[domain]) and int(self._counts[domain]) < self._least + self.asked.max_skew

    def value(self, domain: int) -> float:
        """`values`, of one."""
        excess = int(self._counts[domain]) + 1 - self._least - self.asked.max_skew
        return 1 / (1 + max(0, excess)) if self._counted[domain] else 0.0

    def takes(self, domains: Integers) -> Mask:
        if self.asked.weight:
            return np.ones(len(domains), np.bool_)
        taken: Mask = self._counted[domains] & (self._excess(domains) <= 0)
        return taken

    def values(self, domains: Integers) -> Values:
        """As scores: 1 within the skew, 1/2, 1/3 … beyond it, 0 for nodes without the label."""
        value: Values = np.where(self._counted[domains], 1 / (1 + np.maximum(0, self._excess(domains))), 0.0)
        return value

    def add(self, domain: int) -> bool:
        """One more replica is there. Whether that makes other domains better: the least has risen."""
        self._counts[domain] += 1
        if not self._counted[domain] or self._counts[domain] - 1 != self._least:
            return False
        self._with_least -= 1
        if self._with_least:
            return False
        counts = self._counts[self._domains]
        self._least = int(counts.min())
        self._with_least = int((counts == self._least).sum())
        return True

    def told(self, domain: int) -> str:
        """Why it refuses the domain."""
        if not domain:
            return f"no label {self.asked.within}"
        here = f"{self._table.domain_name(self.asked.within, domain)} has {self._counts[domain]} replicas"
        return f"{here}, the least {self._least}, maxSkew {self.asked.max_skew}"


class Topology:
    """All rules of a class, asked about cells: `domains` is the domain under each rule of each of them. Rules that keep
    replicas off single nodes stand aside: `taken` are the rows they refuse, and `single` says that a row takes one."""

    def __init__(self, table: NodeTable, request: Request, counting: Counting, around: Around) -> None:
        """`counting`: the domains under a label that have rows which could take the class if they had room."""
        self._table = table
        self._solitary = [ColocationRule(table, term, around.gone) for term in around.terms if term.solitary]
        self.rules: list[ColocationRule | SpreadRule] = [
            *(ColocationRule(table, term, around.gone) for term in around.terms if not term.solitary),
            *(SpreadRule(table, asked, counting(asked.within), around.copies) for asked in request.topology),
        ]
        self.single = any(term.own for term in around.terms if term.solitary)
        taken = {row for term in around.terms if term.solitary for row in term.counted.by_row}
        if self._solitary and around.gone in taken:
            taken = {row for row in taken if not all(rule.takes_one(row + 1) for rule in self._solitary)}
        self.taken: Rows = np.array(sorted(taken), np.int64)
        self.soft = [rule for rule in self.rules if rule.weight]
        self._withins = tuple(
            [term.within for term in around.terms if not term.solitary] + [asked.within for asked in request.topology]
        )

    @cached_property
    def cells(self) -> Cells:
        return self._table.cells(self._withins)

    @cached_property
    def _domains_of(self) -> list[list[int]]:
        """By cell."""
        domains: list[list[int]] = self.cells.domains.T.tolist()
        return domains

    def domains(self, rows: Rows) -> Integers:
        """(rules, rows)"""
        return np.array([rule.ids[rows] for rule in self.rules], np.int64).reshape(len(self.rules), len(rows))

    def takes(self, domains: Integers) -> Mask:
        taken: Mask = np.ones(domains.shape[1], np.bool_)
        for rule, at in zip(self.rules, domains, strict=True):
            taken &= rule.takes(at)
        return taken

    def takes_cell(self, cell: int) -> bool:
        return all(rule.takes_one(at) for rule, at in zip(self.rules, self._domains_of[cell], strict=True))

    def allowed(self, rows: Rows) -> Mask:
        """Which rows take one more replica, as far as the rules go."""
        free: Mask = np.ones(self._table.size, np.bool_)
        free[self.taken] = False
        if not self.rules:
            return free[rows]
        return free[rows] & self.takes(self.cells.domains)[self.cells.cell_of[rows]]

    def totals(self, score: Values, weight: float, domains: Integers) -> Values:
        """Nodes' scores by their strategy, whose weights sum up to `weight`, together with the soft rules."""
        if not self.soft:
            return score
        whole, parts = weight, score * weight
        for rule, at in zip(self.rules, domains, strict=True):
            if rule.weight:
                whole += rule.weight
                parts = parts + rule.weight * rule.values(at)
        return parts / whole

    def total(self, score: float, weight: float, cell: int) -> float:
        """`totals`, of one cell."""
        if not self.soft:
            return score
        whole, parts = weight, score * weight
        for rule, at in zip(self.rules, self._domains_of[cell], strict=True):
            if rule.weight:
                whole += rule.weight
                parts += rule.weight * rule.value(at)
        return parts / whole

    def add(self, row: int) -> bool:
        """One more replica is on the row. Whether that makes another cell, or its own, better under the rules."""
        better = False
        for rule in self.rules:
            better |= rule.add(int(rule.ids[row]))
        return better

    def refused(self, rows: Rows) -> Iterator[tuple[str, int, str]]:
        """For each rule that refuses some of the rows first: its code, how many, and what it says of the first."""
        rows = rows[~self.allowed(rows)]
        left: Mask = np.ones(len(rows), np.bool_)
        for rule in (*self._solitary, *self.rules):
            yield from _refusing(rule, rule.ids[rows], left)


def _refusing(rule: ColocationRule | SpreadRule, at: Interned, left: Mask) -> Iterator[tuple[str, int, str]]:
    """Takes what it refuses out of `left`."""
    refused = left & ~rule.takes(at.astype(np.int64))
    if refused.any():
        left &= ~refused
        yield rule.code, int(refused.sum()), rule.told(int(at[refused.argmax()]))
