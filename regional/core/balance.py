"""How unevenly the nodes of a region are used, and what is known of the migrations that even it out.

The utilization of a node is the largest share in use of any of its resources: what is bound, reserved or may still run,
of what its pool promises. The imbalance of a region is the largest utilization less the mean, over the nodes that take
work. Decides nothing: rebalancing.py.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from atoll.model.resources import Vector
from regional.core.node_table import NodeTable, Rows

if TYPE_CHECKING:
    from regional.core.records import SlotEntry, TaskEntry

Shares = npt.NDArray[np.float64]


class Evenness(NamedTuple):
    rows: Rows  # of the nodes that take work, the fullest first
    shares: Shares  # their utilization
    mean: float
    less: npt.NDArray[np.int64]  # by row: what is about to leave, and is not counted

    @property
    def imbalance_percent(self) -> float:
        return 100 * (float(self.shares[0]) - self.mean) if len(self.rows) > 1 else 0.0


@dataclass(slots=True)
class Migration:
    """One replica that is to go where there is more room. Only this leader knows."""

    entry: "SlotEntry"
    revision: int  # of the slot, when it began
    reason: str
    until_ms: int  # it is given up then
    made: bool = False  # its successor was asked for
    handed_over: bool = False  # to that


@dataclass(slots=True)
class Balance:
    looked_ms: int = 0
    uneven_since_ms: int = 0  # 0 = it is not
    evening: bool = False  # it was uneven for long, and is not even again yet
    begun_ms: deque[int] = field(default_factory=deque)  # migrations of the last minute
    migrations: "dict[bytes, Migration]" = field(default_factory=dict)  # under way, by slot
    resting: "dict[TaskEntry | str, int]" = field(default_factory=dict)  # tasks, tenants: none begins until then


def utilization(table: NodeTable, rows: Rows, more: npt.NDArray[np.int64] | int = 0) -> Shares:
    """Of each row, were `more` charged to it."""
    capacity = table.capacity[rows]
    shares = np.divide(table.used[rows] + more, capacity, out=np.zeros(capacity.shape), where=capacity > 0)
    most: Shares = shares.max(axis=1, initial=0.0)
    return most


def evenness(table: NodeTable, going: Iterable[tuple[int, Vector]]) -> Evenness:
    """As it is when what is `going` has left these rows."""
    less = np.zeros_like(table.used)
    for row, amount in going:
        less[row] -= amount.amounts()
    rows = table.standing().open
    rows = rows[~table.resting[rows]]
    shares = utilization(table, rows, less[rows])
    order = np.argsort(-shares, kind="stable")
    return Evenness(rows[order], shares[order], float(shares.mean()) if len(rows) else 0.0, less)
