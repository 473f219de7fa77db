"""Topology spread: the replicas of a task over zones, racks, or whatever else a label of nodes says.

A domain is all nodes with one value of a label. It counts for a class when it has a node that the class could use if
that had room: a zone whose nodes are lost, cordoned or of the wrong kind holds nobody back. A hard rule refuses a
domain that would then have more than `max_skew` replicas above the domain with the fewest; a soft one makes it worse.
What runs is never moved for a rule. A `Topology` is made for one decision, from the replicas of that moment, and
follows the replicas that are placed by it.
"""

from collections.abc import Mapping

import numpy as np

from regional.core.filters import Request, Spreading
from regional.core.node_table import Integers, Mask, NodeTable, Rows

FULL_WEIGHT = 4.0  # of a soft rule of weight 100, beside the weights of a strategy


class Rule:
    """One rule, and how many replicas each domain has."""

    def __init__(self, table: NodeTable, asked: Spreading, usable: Rows, copies: Mapping[int, int]) -> None:
        self.asked = asked
        self.name = f"spread:{asked.within}"
        self.weight = FULL_WEIGHT * asked.weight / 100
        column = table.label_column(asked.within)
        self.ids = np.zeros(table.size, np.int32) if column is None else column[: table.size]
        self._values = table.values
        domains = np.unique(self.ids[usable]).tolist()
        self._counts: dict[int, int] = {domain: 0 for domain in domains if domain}
        if copies:
            held = np.fromiter(copies, np.int64, len(copies))
            counts = np.fromiter(copies.values(), np.int64, len(copies))
            found = np.bincount(self.ids[held], counts, len(table.values))
            self._counts = {domain: int(found[domain]) for domain in self._counts}
        self._least = min(self._counts.values(), default=0)

    def excess(self, domain: int) -> int:
        """By how much one more replica would be over the skew; at most 0 when it is allowed."""
        return self._counts.get(domain, 0) + 1 - self._least - self.asked.max_skew

    def takes(self, domain: int) -> bool:
        return bool(self.asked.weight) or (domain in self._counts and self.excess(domain) <= 0)

    def value(self, domain: int) -> float:
        """As a score: 1 within the skew, 1/2, 1/3 … beyond it, 0 for nodes without the label."""
        return 1 / (1 + max(0, self.excess(domain))) if domain in self._counts else 0.0

    def add(self, domain: int) -> None:
        """One more replica is there."""
        if domain in self._counts:
            self._counts[domain] += 1
            if self._counts[domain] - 1 == self._least:
                self._least = min(self._counts.values())

    def told(self, domain: int) -> str:
        """Why it refuses the domain."""
        if not domain:
            return f"no label {self.asked.within}"
        here = f"{self.asked.within}={self._values[domain]} has {self._counts.get(domain, 0)} replicas"
        return f"{here}, the least {self._least}, maxSkew {self.asked.max_skew}"


class Topology:
    """All rules of a class. A cell is the nodes that are in the same domain under every rule."""

    def __init__(self, table: NodeTable, request: Request, usable: Rows, copies: Mapping[int, int]) -> None:
        """`usable`: rows that could take the class if they had room."""
        self.rules = [Rule(table, asked, usable, copies) for asked in request.topology]
        self._soft = [(i, rule) for i, rule in enumerate(self.rules) if rule.weight]
        self._values = len(table.values)

    def cells(self, rows: Rows) -> Integers:
        """A number for the cell of each row."""
        cell: Integers = np.zeros(len(rows), np.int64)
        for rule in self.rules:
            cell = cell * self._values + rule.ids[rows]
        return cell

    def domains(self, row: int) -> tuple[int, ...]:
        return tuple(int(rule.ids[row]) for rule in self.rules)

    def takes(self, domains: tuple[int, ...]) -> bool:
        return all(rule.takes(domain) for rule, domain in zip(self.rules, domains, strict=True))

    def allowed(self, rows: Rows) -> Mask:
        """Which rows take one more replica, as far as the rules go."""
        allowed = np.ones(len(rows), np.bool_)
        for rule in self.rules:
            if not rule.asked.weight:
                domains, at = np.unique(rule.ids[rows], return_inverse=True)
                allowed &= np.array([rule.takes(domain) for domain in domains.tolist()], np.bool_)[at]
        return allowed

    def total(self, score: float, weight: float, domains: tuple[int, ...]) -> float:
        """A node's score by its strategy, whose weights sum up to `weight`, together with the soft rules."""
        if not self._soft:
            return score
        whole, parts = weight, score * weight
        for i, rule in self._soft:
            whole += rule.weight
            parts += rule.weight * rule.value(domains[i])
        return parts / whole

    def add(self, domains: tuple[int, ...]) -> None:
        for rule, domain in zip(self.rules, domains, strict=True):
            rule.add(domain)
