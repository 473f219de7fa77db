"""Topology spread: the replicas of a task over zones, racks, or whatever else a label of nodes says.

A domain is all nodes with one value of a label. It counts for a class when it has a node that the class could use if
that had room: a zone whose nodes are lost, cordoned or of the wrong kind holds nobody back. A hard rule refuses a
domain that would then have more than `max_skew` replicas above the domain with the fewest; a soft one makes it worse.
What runs is never moved for a rule. A `Topology` is made for one decision, from the replicas of that moment, and
follows the replicas that are placed by it.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

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
        held = np.fromiter(copies, np.int64, len(copies))
        replicas = np.fromiter(copies.values(), np.int64, len(copies))
        self._counts = np.bincount(self.ids[held], replicas, len(table.values)).astype(np.int64)  # by value
        domains = np.unique(self.ids[usable])
        self._domains = domains[domains > 0]
        self._counted = np.zeros(len(table.values), np.bool_)
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

    def values(self, domains: Integers) -> npt.NDArray[np.float64]:
        """As scores: 1 within the skew, 1/2, 1/3 … beyond it, 0 for nodes without the label."""
        value: npt.NDArray[np.float64] = np.where(
            self._counted[domains], 1 / (1 + np.maximum(0, self._excess(domains))), 0.0
        )
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
        here = f"{self.asked.within}={self._values[domain]} has {self._counts[domain]} replicas"
        return f"{here}, the least {self._least}, maxSkew {self.asked.max_skew}"


class Topology:
    """All rules of a class, asked about several nodes at once: `domains` is the domain under each rule of each node."""

    def __init__(self, table: NodeTable, request: Request, usable: Rows, copies: Mapping[int, int]) -> None:
        """`usable`: rows that could take the class if they had room."""
        self.rules = [Rule(table, asked, usable, copies) for asked in request.topology]
        self._values = len(table.values)

    def domains(self, rows: Rows) -> Integers:
        """(rules, rows)"""
        return np.stack([rule.ids[rows] for rule in self.rules]).astype(np.int64)

    def cells(self, rows: Rows) -> Integers:
        """A number for each row, the same for rows in the same domain under every rule."""
        cell: Integers = np.zeros(len(rows), np.int64)
        for rule in self.rules:
            cell = cell * self._values + rule.ids[rows]
        return cell

    def takes(self, domains: Integers) -> Mask:
        taken: Mask = np.ones(domains.shape[1], np.bool_)
        for rule, at in zip(self.rules, domains, strict=True):
            taken &= rule.takes(at)
        return taken

    def allowed(self, rows: Rows) -> Mask:
        """Which rows take one more replica, as far as the rules go."""
        return self.takes(self.domains(rows))

    def totals(self, score: npt.NDArray[np.float64], weight: float, domains: Integers) -> npt.NDArray[np.float64]:
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

    def why_not(self, row: int) -> str:
        """What the first rule says that refuses the row."""
        refusing = (
            rule.told(int(at[0]))
            for rule, at in zip(self.rules, self.domains(np.array([row])), strict=True)
            if not rule.takes(at)[0]
        )
        return next(refusing)
