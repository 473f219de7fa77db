"""What work typically asks for, as tables that say in one look-up what that makes of a node's GPUs.

A region counts what its tasks ask for: processors, GPUs, models. The most frequent requests that make up `COVERED` of
all are typical, each with its part; they stand for what will come. Two questions are prepared for every amount left on
a device:

- for fragmentation (Weng et al., *Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient
  Descent*, USENIX ATC 2023): which kinds of request fit it, and how much of it is lost to those that do not;
- for the expected fill: how much of it will be filled, when typical requests come one after the other and each that
  fits is taken, until nothing more comes; the end comes with the weight `END` at every step. V(r) = sum over m that fit
  of p_m (m + V(r - m)) / (sum of those p_m + END).

Requests that differ only in processors are one kind; their parts are summed up by what processors a node has left.
Memory does not count, as in the paper. Decides nothing.
"""

from collections.abc import Mapping, Sequence
from math import gcd
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regional.core.gpus import WHOLE_MILLI

COVERED = 0.95
END = 0.02
MOST_SHAPES = 10_000  # that are counted; the rarest are forgotten first
GROWN = 1.25  # the tables are made anew when so many times more was asked for

_TABLES = ("_models", "fits", "lost", "fill")

Amounts = npt.NDArray[np.int64]
Parts = npt.NDArray[np.float64]


class Shape(NamedTuple):
    cpu_milli: int
    gpu_milli: int
    gpu_models: tuple[str, ...] = ()


class Kind(NamedTuple):
    """Of GPUs: so many devices with so much left on each."""

    devices: int
    milli: int
    models: tuple[str, ...]


class Demand:
    """Counts of what was asked for."""

    def __init__(self) -> None:
        self._counts: dict[Shape, int] = {}
        self._total = 0
        self._told = 0

    def add(self, shape: Shape, replicas: int) -> None:
        self._counts[shape] = self._counts.get(shape, 0) + replicas
        self._total += replicas
        if len(self._counts) > MOST_SHAPES:
            frequent = sorted(self._counts.items(), key=lambda item: -item[1])[: MOST_SHAPES // 2]
            self._counts = dict(frequent)

    def news(self) -> "Typical | None":
        """What is typical, when enough was asked for since this was told last."""
        if self._total <= self._told * GROWN:
            return None
        self._told = self._total
        return typical(self._counts)


def typical(counts: Mapping[Shape, int]) -> "Typical":
    """The most frequent requests that make up COVERED of all."""
    total, covered, chosen = sum(counts.values()), 0, []
    for shape, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        chosen.append((shape, count))
        covered += count
        if covered >= COVERED * total:
            break
    return Typical([(shape, count / covered) for shape, count in chosen if count])


class Typical:
    """`shapes`: requests with their parts, which sum up to 1. GPU models are columns by the ids of a node table."""

    def __init__(self, shapes: Sequence[tuple[Shape, float]]) -> None:
        on_gpus = [(shape, part) for shape, part in shapes if shape.gpu_milli]
        kinds = {kind_of(shape): None for shape, _ in on_gpus}
        self.kinds = list(kinds)
        self.cpus: Amounts = np.unique(np.array([shape.cpu_milli for shape, _ in on_gpus], np.int64))
        # (levels, kinds): the parts that no more processors than a level's are asked for by; level 0: none
        self.parts: Parts = np.zeros((len(self.cpus) + 1, len(self.kinds)))
        for shape, part in on_gpus:
            level = int(np.searchsorted(self.cpus, shape.cpu_milli)) + 1
            self.parts[level:, self.kinds.index(kind_of(shape))] += part
        self.needs: Amounts = np.array([kind.devices for kind in self.kinds], np.int64)
        self.unit = gcd(WHOLE_MILLI, *(kind.milli for kind in self.kinds))
        self._know_none()

    def _know_none(self) -> None:
        self._models = 0
        self.fits: npt.NDArray[np.int8] = np.zeros((0, 0), np.int8)
        self.lost: npt.NDArray[np.int32] = np.zeros((0, 0), np.int32)
        self.fill: npt.NDArray[np.float64] = np.zeros((0, 0, 0))

    def __getstate__(self) -> dict[str, object]:
        """Without the tables: they are large, and whoever gets it prepares them anew."""
        return {name: value for name, value in vars(self).items() if name not in _TABLES}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._know_none()

    def level(self, cpu_milli: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = np.searchsorted(self.cpus, cpu_milli, side="right")
        return found

    def know(self, models: Sequence[str]) -> None:
        """Prepares the tables for these models, by id; id 0 stands for no device."""
        if self._models == len(models):
            return
        self._models = len(models)
        allowed = np.array(
            [[not kind.models or name in kind.models for kind in self.kinds] for name in models], np.bool_
        )
        allowed[0] = False
        left = np.arange(WHOLE_MILLI + 1)[None, :, None]
        millis = np.array([kind.milli for kind in self.kinds], np.int64)
        fits = allowed[:, None, :] & (left >= millis)
        shape = (len(models) * (WHOLE_MILLI + 1), len(self.kinds))
        # (models x amounts left, kinds)
        self.fits = fits.astype(np.int8).reshape(shape)
        self.lost = np.where(fits, 0, left).astype(np.int32).reshape(shape)
        self.fill = self._expected_fill(allowed, millis)

    def _expected_fill(self, allowed: npt.NDArray[np.bool_], millis: Amounts) -> Parts:
        """(models, levels, amounts left in units): V of the module's text, in milli."""
        parts = self.parts[None] * allowed[:, None, :] * self.needs  # n whole devices come n at a time
        fill = np.zeros((*parts.shape[:2], WHOLE_MILLI // self.unit + 1))
        for units in range(1, fill.shape[2]):
            fitting = np.flatnonzero(millis <= units * self.unit)
            part = parts[:, :, fitting]
            after = fill[:, :, units - millis[fitting] // self.unit]
            fill[:, :, units] = (part * (millis[fitting] + after)).sum(axis=2) / (part.sum(axis=2) + END)
        return fill


def kind_of(shape: Shape) -> Kind:
    count = max(1, shape.gpu_milli // WHOLE_MILLI)
    return Kind(count, shape.gpu_milli // count, shape.gpu_models)
