"""Rules over domains: topology spread, the replicas of a task over zones, racks, or whatever else a label of nodes
says; and nearness to other workloads, regional/core/colocation.py.

A domain is all nodes with one value of a label. It counts for a class when it has a node that the class could use if
that had room: a zone whose nodes are lost, cordoned or of the wrong kind holds nobody back. A hard rule refuses a
domain that would then have more than `max_skew` replicas above the domain with the fewest; a soft one makes it worse.
What runs is never moved for a rule. A `Topology` is made for one decision, from the replicas of that moment, and
follows the replicas that are placed by it.
"""

from collections.abc import Iterator

import numpy as np

from atoll.model import explain
from regional.core.colocation import FULL_WEIGHT, Around, ColocationRule, Copies
from regional.core.filters import Request, Spreading
from regional.core.node_table import Integers, Mask, NodeTable, Rows, Values

_MANY_CELLS = 1 << 31


class SpreadRule:
    """One rule of topology spread, and how many replicas each domain has."""

    code = explain.TOPOLOGY_SPREAD

    def __init__(self, table: NodeTable, asked: Spreading, usable: Rows, copies: Copies) -> None:
        self.asked = asked
        self.name = f"spread:{asked.within}"
        self.weight = FULL_WEIGHT * asked.weight / 100
        self.ids, numbers = table.domains(asked.within)
        self._table = table
        held = np.fromiter(copies, np.int64, len(copies))
        replicas = np.fromiter(copies.values(), np.int64, len(copies))
        self._counts = np.bincount(self.ids[held], replicas, numbers).astype(np.int64)  # by domain
        domains = np.unique(self.ids[usable])
        self._domains = domains[domains > 0]
        self._counted = np.zeros(numbers, np.bool_)
        self._counted[self._domains] = True
        self._least = int(self._counts[self._domains].min()) if len(self._domains) else 0

    def _excess(self, domains: Integers) -> Integers:
        """By how much one more replica would be over the skew; at most 0 when it is allowed."""
        excess: Integers = self._counts[domains] + 1 - self._least - self.asked.max_skew
        return excess

    def takes(self, domains: Integers) -> Mask:
        if self.asked.weight:
            return np.ones(len(domains), np.bool_)
        taken: Mask = self._counted[domains] & (self._excess(domains) <= 0)
        return taken

    def values(self, domains: Integers) -> Values:
        """As scores: 1 within the skew, 1/2, 1/3 … beyond it, 0 for nodes without the label."""
        value: Values = np.where(self._counted[domains], 1 / (1 + np.maximum(0, self._excess(domains))), 0.0)
        return value

    def add(self, domain: int) -> None:
        """One more replica is there."""
        self._counts[domain] += 1
        if self._counted[domain] and self._counts[domain] - 1 == self._least:
            self._least = int(self._counts[self._domains].min())

    def told(self, domain: int) -> str:
        """Why it refuses the domain."""
        if not domain:
            return f"no label {self.asked.within}"
        here = f"{self._table.domain_name(self.asked.within, domain)} has {self._counts[domain]} replicas"
        return f"{here}, the least {self._least}, maxSkew {self.asked.max_skew}"


class Topology:
    """All rules of a class, asked about several nodes at once: `domains` is the domain under each rule of each node."""

    def __init__(self, table: NodeTable, request: Request, usable: Rows, around: Around) -> None:
        """`usable`: rows that could take the class if they had room."""
        self.rules: list[ColocationRule | SpreadRule] = [
            *(ColocationRule(table, term, around.gone) for term in around.terms),
            *(SpreadRule(table, asked, usable, around.copies) for asked in request.topology),
        ]

    def domains(self, rows: Rows) -> Integers:
        """(rules, rows)"""
        return np.stack([rule.ids[rows] for rule in self.rules]).astype(np.int64)

    def cells(self, rows: Rows) -> Integers:
        """A number for each row, the same for rows in the same domain under every rule."""
        cell: Integers = np.zeros(len(rows), np.int64)
        for rule in self.rules:
            at = rule.ids[rows]
            cell = cell * (int(at.max(initial=0)) + 1) + at
            if cell.max(initial=0) > _MANY_CELLS:
                cell = np.unique(cell, return_inverse=True)[1]
        return cell

    def takes(self, domains: Integers) -> Mask:
        taken: Mask = np.ones(domains.shape[1], np.bool_)
        for rule, at in zip(self.rules, domains, strict=True):
            taken &= rule.takes(at)
        return taken

    def allowed(self, rows: Rows) -> Mask:
        """Which rows take one more replica, as far as the rules go."""
        return self.takes(self.domains(rows))

    def totals(self, score: Values, weight: float, domains: Integers) -> Values:
        """Nodes' scores by their strategy, whose weights sum up to `weight`, together with the soft rules."""
        soft = [(rule, at) for rule, at in zip(self.rules, domains, strict=True) if rule.weight]
        if not soft:
            return score
        whole, parts = weight, score * weight
        for rule, at in soft:
            whole += rule.weight
            parts = parts + rule.weight * rule.values(at)
        return parts / whole

    def add(self, row: int) -> None:
        """One more replica is on the row."""
        for rule in self.rules:
            rule.add(int(rule.ids[row]))

    def refused(self, rows: Rows) -> Iterator[tuple[str, int, str]]:
        """For each rule that refuses some of the rows first: its code, how many, and what it says of the first."""
        domains = self.domains(rows)
        left: Mask = np.ones(len(rows), np.bool_)
        for rule, at in zip(self.rules, domains, strict=True):
            refused = left & ~rule.takes(at)
            if refused.any():
                left &= ~refused
                yield rule.code, int(refused.sum()), rule.told(int(at[refused.argmax()]))
