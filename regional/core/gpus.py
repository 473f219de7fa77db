"""GPUs of nodes: what is left of each device, and which devices a replica gets.

A replica asks for whole devices, n x 1000 milli, or for a part of one, below 1000, and perhaps for one of some models.
Whole ones are the first idle devices; a part is cut from the device with the least left that has enough, so that others
stay whole; a strategy may choose the device of a part otherwise. A device never gives more than 1000 milli: replicas
and zombies hold the devices that their records name. What a node has left in sum is the table's column of `gpu_milli`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from atoll.errors import require
from atoll.model.gpu_models import WHOLE_MILLI as WHOLE_MILLI

if TYPE_CHECKING:
    from regional.core.filters import Request
    from regional.core.node_table import Integers, Mask, NodeTable, Rows

SORTS = 9
Devices = tuple[int, ...]  # of one replica, by number
MOST_GPUS = 64  # of one node; they are numbered below it


class Gpus:
    """Columns: (rows, numbers). Wide as the highest number of any node asks for."""

    def __init__(self, rows: int) -> None:
        self.left: npt.NDArray[np.int64] = np.zeros((rows, 0), np.int64)  # milli; 0 where there is none
        self.model: npt.NDArray[np.int32] = np.zeros((rows, 0), np.int32)  # interned; 0 where there is none
        self.held: npt.NDArray[np.int64] = np.zeros((rows, SORTS), np.int64)  # replicas, by `sort_of` what they ask for
        self.models: list[str] = [""]
        self._ids: dict[str, int] = {"": 0}
        self._most: dict[str, int] | None = None

    @property
    def any(self) -> bool:
        """Whether a node has ever had one."""
        return bool(self.left.shape[1])

    def grow(self, rows: int, width: int) -> None:
        """To at least so many rows and numbers."""
        known_rows, known_width = self.left.shape
        if rows > known_rows or width > known_width:
            more_rows = max(0, rows - known_rows)
            around = ((0, more_rows), (0, max(0, width - known_width)))
            self.left, self.model = np.pad(self.left, around), np.pad(self.model, around)
            self.held = np.pad(self.held, ((0, more_rows), (0, 0)))

    def describe(self, row: int, devices: Mapping[int, str]) -> None:
        """Models by number. What is in use of a device that is gone stays in use: `left` is below zero then."""
        self.grow(0, max(devices, default=-1) + 1)
        before = self.model[row].copy()
        used = np.where(before > 0, WHOLE_MILLI, 0) - self.left[row]
        self.model[row] = 0
        for number, model in devices.items():
            self.model[row, number] = self._id(model)
        if not np.array_equal(before, self.model[row]):
            self._most = None
        self.left[row] = np.where(self.model[row] > 0, WHOLE_MILLI, 0) - used

    def charge(self, row: int, numbers: Sequence[int], gpu_milli: int, *, promised: bool = False) -> None:
        """`gpu_milli` in all, evenly from each of these devices. `promised`: by a record, perhaps beside those who make
        room for it."""
        self.grow(0, max(numbers) + 1)
        self.held[row, sort_of(gpu_milli)] += 1
        for number in numbers:
            left = self.left[row, number] = self.left[row, number] - gpu_milli // len(numbers)
            if left < 0 and not promised:
                require(not self.model[row, number], "I3: a GPU gives at most 1000 milli")

    def credit(self, row: int, numbers: Sequence[int], gpu_milli: int) -> None:
        self.held[row, sort_of(gpu_milli)] -= 1
        for number in numbers:
            left = self.left[row, number] = self.left[row, number] + gpu_milli // len(numbers)
            require(left <= WHOLE_MILLI, "I3: a GPU gets back at most what it gave")

    def used(self, row: int) -> dict[int, int]:
        """Milli in use by number, of devices in use."""
        used = np.where(self.model[row] > 0, WHOLE_MILLI, 0) - self.left[row]
        return {int(number): int(used[number]) for number in np.flatnonzero(used)}

    def most(self) -> dict[str, int]:
        """By model, sorted: how many the node has that has most of them. Remembered until a node's devices change."""
        if self._most is None:
            counts = [int((self.model == at).sum(axis=1).max(initial=0)) for at in range(len(self.models))]
            found = zip(self.models[1:], counts[1:], strict=True)
            self._most = dict(sorted((model, count) for model, count in found if count))
        return self._most

    def model_id(self, model: str) -> int:
        """-1 when no node has ever had one."""
        return self._ids.get(model, -1)

    def know(self, models: Iterable[str]) -> None:
        """These, in this order, after those that are known: their ids are those of one that met them so."""
        for model in models:
            self._id(model)

    def _id(self, model: str) -> int:
        found = self._ids.get(model)
        if found is None:
            found = self._ids[model] = len(self.models)
            self.models.append(model)
        return found


def sort_of(gpu_milli: int) -> int:
    """0 for a part of a device, else the number of devices, as far as they are told apart."""
    return min(gpu_milli // WHOLE_MILLI, SORTS - 1)


def asks_whole(gpu_milli: int) -> bool:
    return gpu_milli >= WHOLE_MILLI


def has_model(table: "NodeTable", request: "Request", rows: "Rows") -> "Mask":
    """Whether a node has as many devices of the models asked for as a replica asks for."""
    if not request.gpu_models:
        return np.ones(len(rows), np.bool_)
    enough: Mask = _of_model(table, request, rows).sum(axis=1) >= max(1, request.vector.gpu_milli // WHOLE_MILLI)
    return enough


def may_have(table: "NodeTable", request: "Request", rows: "Rows") -> "Mask":
    """Which devices a replica may get, whatever is left of them: (rows, numbers)."""
    there: Mask = table.gpus.model[rows] > 0
    return _of_model(table, request, rows) if request.gpu_models else there


def _of_model(table: "NodeTable", request: "Request", rows: "Rows") -> "Mask":
    ids = [table.gpus.model_id(model) for model in request.gpu_models]
    of_model: Mask = np.isin(table.gpus.model[rows], ids)
    return of_model


def usable(table: "NodeTable", request: "Request", rows: "Rows") -> "Integers":
    """What is left of each device, as far as the request may have it: (rows, numbers)."""
    left: Integers = np.maximum(table.gpus.left[rows], 0)
    return np.where(_of_model(table, request, rows), left, 0) if request.gpu_models else left


def missing(table: "NodeTable", request: "Request", rows: "Rows") -> "Integers":
    """Milli that each node lacks on devices; zero or less when there is enough."""
    asked, left = request.vector.gpu_milli, usable(table, request, rows)
    if asks_whole(asked):
        lacking: Integers = asked - (left == WHOLE_MILLI).sum(axis=1) * WHOLE_MILLI
    else:
        lacking = asked - left.max(axis=1, initial=0)
    return lacking


def room(table: "NodeTable", request: "Request", rows: "Rows") -> "Integers":
    """How many replicas fit on each node's devices one after the other."""
    asked, left = request.vector.gpu_milli, usable(table, request, rows)
    if asks_whole(asked):
        fitting: Integers = (left == WHOLE_MILLI).sum(axis=1) // (asked // WHOLE_MILLI)
    else:
        fitting = (left // asked).sum(axis=1)
    return fitting


def choose(left: Sequence[int], gpu_milli: int) -> Devices:
    """The devices of one more replica, of a node that has enough: `left` is its row of `usable`. Plain integers: for a
    few of them NumPy takes three times as long."""
    if asks_whole(gpu_milli):
        idle = [number for number, milli in enumerate(left) if milli == WHOLE_MILLI]
        return tuple(idle[: gpu_milli // WHOLE_MILLI])
    spare = [milli if milli >= gpu_milli else WHOLE_MILLI + 1 for milli in left]
    return (spare.index(min(spare)),)
