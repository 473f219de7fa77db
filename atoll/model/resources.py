"""Resource vectors and the quantities people write for them: the only place with units.

Integers in milli-units and MiB throughout, because sums of budgets must be exact.
"""

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from atoll.api.v1 import objects_pb2

DIMENSIONS = ("cpu_milli", "memory_mib", "disk_mib", "gpu_milli")
LARGEST = 2**53  # what a JSON number carries exactly; far above any cluster


_new = tuple.__new__  # of a Vector that has all its dimensions


class Vector(NamedTuple):
    """Amounts in each dimension. Arithmetic is exact, by dimension, and may go below zero; `is_legal` says when it may
    not. A named tuple, and its arithmetic is written out by dimension: hundreds of them are made for each transaction,
    and the constructor of a named tuple or a loop over its fields would double what one costs."""

    cpu_milli: int = 0
    memory_mib: int = 0
    disk_mib: int = 0
    gpu_milli: int = 0

    def __add__(self, other: "Vector") -> "Vector":  # type: ignore[override]
        cpu, memory, disk, gpu = self
        other_cpu, other_memory, other_disk, other_gpu = other
        return _new(Vector, (cpu + other_cpu, memory + other_memory, disk + other_disk, gpu + other_gpu))

    def __sub__(self, other: "Vector") -> "Vector":
        cpu, memory, disk, gpu = self
        other_cpu, other_memory, other_disk, other_gpu = other
        return _new(Vector, (cpu - other_cpu, memory - other_memory, disk - other_disk, gpu - other_gpu))

    def __mul__(self, count: int) -> "Vector":  # type: ignore[override]
        cpu, memory, disk, gpu = self
        return _new(Vector, (cpu * count, memory * count, disk * count, gpu * count))

    def __neg__(self) -> "Vector":
        return self * -1

    def __bool__(self) -> bool:
        return any(self)

    def amounts(self) -> tuple[int, int, int, int]:
        """In the order of DIMENSIONS."""
        return self

    def fits(self, limit: "Vector") -> bool:
        """No dimension exceeds `limit`."""
        cpu, memory, disk, gpu = self
        most_cpu, most_memory, most_disk, most_gpu = limit
        return cpu <= most_cpu and memory <= most_memory and disk <= most_disk and gpu <= most_gpu

    def is_legal(self) -> bool:
        """No dimension is negative or beyond LARGEST."""
        return min(self) >= 0 and max(self) <= LARGEST

    def at_most(self, other: "Vector") -> "Vector":
        """The smaller amount in each dimension."""
        cpu, memory, disk, gpu = self
        most_cpu, most_memory, most_disk, most_gpu = other
        return _new(
            Vector,
            (
                min(cpu, most_cpu),
                min(memory, most_memory),
                min(disk, most_disk),
                min(gpu, most_gpu),
            ),
        )

    def at_least(self, other: "Vector") -> "Vector":
        """The larger amount in each dimension."""
        cpu, memory, disk, gpu = self
        least_cpu, least_memory, least_disk, least_gpu = other
        return _new(
            Vector,
            (
                max(cpu, least_cpu),
                max(memory, least_memory),
                max(disk, least_disk),
                max(gpu, least_gpu),
            ),
        )

    def to_proto(self) -> objects_pb2.Resources:
        return objects_pb2.Resources(
            cpu_milli=self.cpu_milli,
            memory_mib=self.memory_mib,
            disk_mib=self.disk_mib,
            gpu_milli=self.gpu_milli,
        )

    def __str__(self) -> str:
        """`cpu 500m, memory 1.5Gi`; `nothing` for zero."""
        parts = [
            f"{name.partition('_')[0]} {format_quantity(amount, name)}"
            for name, amount in zip(DIMENSIONS, self, strict=True)
            if amount
        ]
        return ", ".join(parts) or "nothing"


NOTHING = Vector()


def vector(resources: objects_pb2.Resources) -> Vector:
    """The value of a message."""
    amounts = (resources.cpu_milli, resources.memory_mib, resources.disk_mib, resources.gpu_milli)
    return _new(Vector, amounts)


def total(vectors: Iterable[Vector]) -> Vector:
    found = NOTHING
    for one in vectors:
        found = found + one if found is not NOTHING else one
    return found


class QuantityError(ValueError):
    """The text is no quantity of this unit. The message says what would be."""


_NUMBER = re.compile(r"([0-9]{1,40}(?:\.[0-9]{1,9})?)([A-Za-z]*)")
_MIB_UNITS = {
    "Ki": Fraction(1, 1024),
    "Mi": Fraction(1),
    "Gi": Fraction(1024),
    "Ti": Fraction(1024 * 1024),
    "k": Fraction(1000, 1024 * 1024),
    "M": Fraction(1000**2, 1024 * 1024),
    "G": Fraction(1000**3, 1024 * 1024),
    "T": Fraction(1000**4, 1024 * 1024),
}


def parse_quantity(text: str, unit: str) -> int:
    """`500m`, `1.5` → milli for a unit ending in `_milli`; `64Mi`, `1.5Gi` → MiB, rounded up, for `_mib`.
    Raises QuantityError: negative, too large, no unit where one is needed, finer than a milli."""
    match = _NUMBER.fullmatch(text.strip())
    text = text if len(text) <= 40 else text[:40] + "…"  # from here on only shown
    if not match:
        example = "500m or 1.5" if unit.endswith("_milli") else "64Mi or 1.5Gi"
        raise QuantityError(f"{text!r} is not a quantity; write for example {example}")
    number, suffix = Fraction(match[1]), match[2]
    amount = _milli(text, number, suffix) if unit.endswith("_milli") else _mib(text, number, suffix)
    if amount > LARGEST:
        raise QuantityError(f"{text!r} is larger than any cluster")
    return amount


def _milli(text: str, number: Fraction, suffix: str) -> int:
    if suffix not in ("", "m"):
        raise QuantityError(f"{text!r}: unknown unit {suffix[:40]!r}; write for example 500m or 1.5")
    amount = number if suffix == "m" else number * 1000
    if amount.denominator != 1:
        raise QuantityError(f"{text!r} is finer than 1m")
    return int(amount)


def _mib(text: str, number: Fraction, suffix: str) -> int:
    if not suffix and number:
        raise QuantityError(f"{text!r} has no unit; did you mean {text}Mi?")
    if suffix and suffix not in _MIB_UNITS:
        raise QuantityError(f"{text!r}: unknown unit {suffix[:40]!r}; write for example 64Mi or 1.5Gi")
    amount = number * _MIB_UNITS[suffix] if suffix else number
    return -(-amount.numerator // amount.denominator)


def format_quantity(amount: int, unit: str) -> str:
    """The shortest text that parses back to `amount`."""
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    if unit.endswith("_milli"):
        return f"{sign}{amount // 1000}" if amount % 1000 == 0 else f"{sign}{amount}m"
    if not amount:
        return "0"
    for suffix, size in (("Ti", 1024 * 1024), ("Gi", 1024)):
        if amount >= size and (amount * 10) % size == 0:
            whole, tenth = divmod(amount * 10 // size, 10)
            return f"{sign}{whole}.{tenth}{suffix}" if tenth else f"{sign}{whole}{suffix}"
    return f"{sign}{amount}Mi"
