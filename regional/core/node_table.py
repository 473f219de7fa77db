"""Nodes as columns: what filters and scores read, one NumPy array a property.

Rows are stable while a node lives and are used again after it is removed; ties between nodes break by row, so the same
history gives the same placement. `changed[row]` is the table's version at the row's last change: a cached row of
scores repairs only what is newer than itself. Decides nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atoll.errors import InvariantBroken, require
from atoll.model.resources import DIMENSIONS
from regional.core.gpus import Gpus
from regional.core.images import Images
from regional.core.typical import Demand, Typical

Amounts = tuple[int, ...]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Interned = npt.NDArray[np.int32]
Scores = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

TaintKey = tuple[str, str, int]  # key, value, effect
_FIRST_ROWS = 64
_MOST_CELLS = 64  # sets of labels
NOWHERE = -1  # no row
POOL = "pool"  # the label that every node has which joined by a token of a pool
NODE = "node"  # as a rule's domain: each node is one of its own


@dataclass(frozen=True, slots=True)
class Cells:
    """The rows by their domains under several labels: a cell is what is alike under all. `order`: the rows, cell by
    cell, lower rows first; `domains`: (labels, cells)."""

    order: Rows
    starts: Rows  # of each cell, in `order`
    sizes: Rows
    domains: Integers
    cell_of: Rows  # by row

    def of(self, row: int) -> int:
        return int(self.cell_of[row])

    def rows(self, cell: int) -> Rows:
        return self.part(self.order, cell)

    def part(self, ordered: npt.NDArray[Any], cell: int) -> npt.NDArray[Any]:
        """What belongs to one cell of something in the order of `order`."""
        start = self.starts[cell]
        return ordered[start : start + self.sizes[cell]]


@dataclass(frozen=True, slots=True)
class Standing:
    """What of the nodes does not depend on their use."""

    version: int
    capacity: list[int]  # of those that take work
    open: Rows  # they
    closed: Rows  # the others
    largest: list[int]  # what one replica may ask for at most, in each dimension
    ready: int  # how many are


class NodeTable:
    def __init__(self) -> None:
        self.size = 0  # rows ever used; free ones are not `present`
        self.version = 0
        self.overcommitted = False  # some node ever promised more than it has
        self.names: list[str] = []
        self.row_of: dict[str, int] = {}
        self.taint_sets: list[tuple[TaintKey, ...]] = [()]
        self.values: list[str] = [""]  # interned label values; id 0 = the label is absent
        self._value_ids: dict[str, int] = {}
        self._taint_ids: dict[tuple[TaintKey, ...], int] = {(): 0}
        self._labels: dict[str, npt.NDArray[np.int32]] = {}
        self.redescribed = 0  # the version at the last change of more than use
        self._standing = Standing(-1, [], np.empty(0, np.int64), np.empty(0, np.int64), [], 0)
        self.labelled = 0  # the version at the last change of a node's labels
        self._cells: dict[tuple[str, ...], tuple[int, Cells]] = {}  # with the version they are of
        self._free: list[int] = []
        self._rows = _FIRST_ROWS
        self.capacity: Integers = np.zeros((_FIRST_ROWS, len(DIMENSIONS)), np.int64)
        self.total: Integers = np.zeros(len(DIMENSIONS), np.int64)  # capacity of all rows
        self.largest: Integers = np.zeros((_FIRST_ROWS, len(DIMENSIONS)), np.int64)  # what one replica may ask for
        self.in_use: Integers = np.zeros(len(DIMENSIONS), np.int64)  # of all rows
        self.used: Integers = np.zeros((_FIRST_ROWS, len(DIMENSIONS)), np.int64)
        self.gpus = Gpus(_FIRST_ROWS)
        self.images = Images()
        self.demand = Demand()
        self.typical = Typical(())
        self.present: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.ready: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.cordoned: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.resting: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.kept: Mask = np.zeros(_FIRST_ROWS, np.bool_)  # its room is for one that waits for it
        self.unfit: Mask = np.zeros(_FIRST_ROWS, np.bool_)
        self.unfit_words: dict[int, str] = {}  # why, by row
        self.taint_set: npt.NDArray[np.int32] = np.zeros(_FIRST_ROWS, np.int32)
        self.changed: Integers = np.zeros(_FIRST_ROWS, np.int64)
        self.described: Integers = np.zeros(_FIRST_ROWS, np.int64)  # as `changed`, by more than its use

    def add(self, name: str) -> int:
        """A row for a node not in the table: the lowest free one."""
        require(name not in self.row_of, f"node {name} is in the table once")
        if self._free:
            self._free.sort(reverse=True)
            row = self._free.pop()
            self.names[row] = name
        else:
            row = self.size
            self.size += 1
            self.names.append(name)
            if self.size > self._rows:
                self._grow()
        self.row_of[name] = row
        self.present[row] = True
        self._redescribed(row)
        self.labelled = self.version
        return row

    def remove(self, name: str) -> None:
        """Forgets a node that holds no work."""
        row = self.row_of.pop(name)
        require(not self.used[row].any(), f"I7: node {name} is removed with work on it")
        self.names[row], self.kept[row] = "", False
        self.present[row] = self.ready[row] = self.cordoned[row] = self.resting[row] = self.unfit[row] = False
        self.unfit_words.pop(row, None)
        self.images.tell(row, ())
        self.total -= self.capacity[row]
        self.capacity[row] = self.largest[row] = 0
        self.gpus.describe(row, {})
        self.taint_set[row] = 0
        for column in self._labels.values():
            column[row] = 0
        self._free.append(row)
        self._redescribed(row)
        self.labelled = self.version

    def describe(
        self,
        row: int,
        capacity: Amounts,
        labels: Mapping[str, str],
        taints: Iterable[TaintKey],
        cordoned: bool,
        gpus: Mapping[int, str] | None = None,
        largest: Amounts | None = None,
    ) -> None:
        """`gpus`: models by number. `largest`: what there is, where more than that is promised."""
        self.total -= self.capacity[row]
        self.capacity[row] = capacity
        self.largest[row] = largest or capacity
        self.overcommitted = self.overcommitted or largest is not None
        self.total += self.capacity[row]
        self.gpus.describe(row, gpus or {})
        self.cordoned[row] = cordoned
        self.taint_set[row] = self._taint_id(tuple(sorted(taints)))
        relabelled = False
        for key, column in self._labels.items():
            if key not in labels and column[row]:
                column[row], relabelled = 0, True
        for key, value in labels.items():
            column, value_id = self._label_column(key), self._value_id(value)
            if column[row] != value_id:
                column[row], relabelled = value_id, True
        self._redescribed(row)
        if relabelled:
            self.labelled = self.version

    def set_ready(self, row: int, ready: bool) -> None:
        if bool(self.ready[row]) != ready:
            self.ready[row] = ready
            self._redescribed(row)

    def set_kept(self, row: int, kept: bool) -> None:
        self.kept[row] = kept
        self._redescribed(row)

    def set_resting(self, row: int, resting: bool) -> None:
        self.resting[row] = resting
        self._redescribed(row)

    def set_unfit(self, row: int, words: str) -> None:
        """`words`: why its agent can start nothing new; empty = it can."""
        self.unfit[row] = bool(words)
        self.unfit_words[row] = words
        if not words:
            del self.unfit_words[row]
        self._redescribed(row)

    def set_images(self, row: int, names: Iterable[str]) -> None:
        if self.images.tell(row, names):
            self._touch(row)

    def charge(self, row: int, amounts: Amounts) -> None:
        self.used[row] += amounts
        self.in_use += amounts
        self._touch(row)

    def charge_all(self, rows: Sequence[int], amounts: Sequence[Amounts] | Integers) -> None:
        """One amount a row; a row may come more than once."""
        more = np.array(amounts, np.int64)
        np.add.at(self.used, rows, more)
        self.in_use += more.sum(axis=0)
        self.version += 1
        self.changed[rows] = self.version

    def credit(self, row: int, amounts: Amounts) -> None:
        used = self.used[row]
        used -= amounts
        self.in_use -= amounts
        if min(used.tolist()) < 0:  # `all` of NumPy takes three times as long for four numbers
            raise InvariantBroken(f"I3: node {self.names[row]} gives back more than it holds")
        self._touch(row)

    def credit_all(self, rows: Sequence[int], amounts: Sequence[Amounts]) -> None:
        self.charge_all(rows, -np.array(amounts, np.int64))
        if self.used[rows].min(initial=0) < 0:
            raise InvariantBroken("I3: a node gives back more than it holds")

    def charge_gpus(self, row: int, numbers: Sequence[int], gpu_milli: int, *, promised: bool = False) -> None:
        """Beside `charge`, which counts the sum."""
        self.gpus.charge(row, numbers, gpu_milli, promised=promised)
        self._touch(row)

    def credit_gpus(self, row: int, numbers: Sequence[int], gpu_milli: int) -> None:
        self.gpus.credit(row, numbers, gpu_milli)
        self._touch(row)

    def expect(self, typical: Typical) -> None:
        """What work asks for in general: scores of GPUs go by it."""
        self.typical = typical
        self.version += 1
        self.changed[: self.size] = self.version

    def standing(self) -> Standing:
        """Remembered until a node changes by more than its use."""
        if self._standing.version != self.redescribed:
            open_ = self.present & self.ready & ~self.cordoned & ~self.unfit
            self._standing = Standing(
                self.redescribed,
                self.capacity[open_].sum(axis=0).tolist(),
                np.flatnonzero(open_),
                np.flatnonzero(~open_ & self.present),
                self.largest[: self.size].max(axis=0, initial=0).tolist(),
                int((self.ready & self.present).sum()),
            )
        return self._standing

    def open_use(self) -> list[int]:
        """Of the nodes that take work."""
        used: list[int] = (self.in_use - self.used[self.standing().closed].sum(axis=0)).tolist()
        return used

    def free(self, rows: Rows | list[int]) -> Integers:
        """What is left on these rows: (rows, dimensions)."""
        left: Integers = self.capacity[rows] - self.used[rows]
        return left

    def label_column(self, key: str) -> npt.NDArray[np.int32] | None:
        """Interned value ids of one label over all rows, or None when no node has ever had it."""
        return self._labels.get(key)

    def domains(self, within: str) -> tuple[Interned, int]:
        """The domain of each row under a label, or under NODE, and how many numbers of domains there are; 0 is none."""
        if within == NODE:
            return np.arange(1, self.size + 1, dtype=np.int32), self.size + 1
        column = self._labels.get(within)
        ids = np.zeros(self.size, np.int32) if column is None else column[: self.size]
        return ids, len(self.values)

    def cells(self, withins: tuple[str, ...]) -> Cells:
        """Remembered until a node's labels change."""
        version, cells = self._cells.get(withins, (-1, None))
        if cells is None or version != self.labelled:
            if len(self._cells) >= _MOST_CELLS:
                self._cells.clear()
            cells = self._find_cells(withins)
            self._cells[withins] = self.labelled, cells
        return cells

    def _find_cells(self, withins: tuple[str, ...]) -> Cells:
        ids = np.stack([self.domains(within)[0] for within in withins]).astype(np.int64)
        cell: Integers = np.zeros(self.size, np.int64)
        for at in ids:
            cell = np.unique(cell * (int(at.max(initial=0)) + 1) + at, return_inverse=True)[1].reshape(-1)
        order = np.argsort(cell, kind="stable")
        starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
        sizes = np.diff(starts, append=self.size)
        return Cells(order, starts, sizes, ids[:, order[starts]], cell)

    def domain_name(self, within: str, domain: int) -> str:
        """For people: zone=a, or the node's name."""
        return self.names[domain - 1] if within == NODE else f"{within}={self.values[domain]}"

    def label_columns(self) -> Mapping[str, Interned]:
        """All of them, by label."""
        return self._labels

    def set_label_column(self, key: str, column: Interned) -> None:
        self._labels[key] = column

    def know(self, values: Iterable[str], taint_sets: Iterable[tuple[TaintKey, ...]]) -> None:
        """These, in this order, after those that are known: their ids are those of a table that met them so."""
        for value in values:
            self._value_id(value)
        for taints in taint_sets:
            self._taint_id(taints)

    def value_id(self, value: str) -> int:
        """The id of a label value, or -1 when no node has ever had it."""
        return self._value_ids.get(value, -1)

    def _label_column(self, key: str) -> npt.NDArray[np.int32]:
        column = self._labels.get(key)
        if column is None:
            column = self._labels[key] = np.zeros(self._rows, np.int32)
        return column

    def _value_id(self, value: str) -> int:
        found = self._value_ids.get(value)
        if found is None:
            found = self._value_ids[value] = len(self.values)
            self.values.append(value)
        return found

    def _taint_id(self, taints: tuple[TaintKey, ...]) -> int:
        found = self._taint_ids.get(taints)
        if found is None:
            found = self._taint_ids[taints] = len(self.taint_sets)
            self.taint_sets.append(taints)
        return found

    def _touch(self, row: int) -> None:
        self.version += 1
        self.changed[row] = self.version

    def _redescribed(self, row: int) -> None:
        """More than its use has changed."""
        self._touch(row)
        self.described[row] = self.redescribed = self.version

    def _grow(self) -> None:
        more = self._rows
        self._rows += more
        self.gpus.grow(self._rows, 0)
        for name in ("capacity", "largest", "used"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros((more, len(DIMENSIONS)), np.int64)]))
        for name in ("present", "ready", "cordoned", "resting", "kept", "unfit", "taint_set", "changed", "described"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.zeros(more, column.dtype)]))
        for key, column in self._labels.items():
            self._labels[key] = np.concatenate([column, np.zeros(more, np.int32)])
