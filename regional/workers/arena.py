"""The memory that a region and its scheduler workers share: an anonymous file, mapped by all of them.

It has no name, so the kernel frees it with the last process that has it open, however that ends. The region writes
columns of the node table and what is known of each class, workers write answers: each array is written by one process
at a time, which is agreed on elsewhere (deques.py, crew.py). How arrays lie is a function of their names, types and
shapes.
"""

import mmap
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from regional.core.class_row import Answers
from regional.core.mirror import COUNTS

Layout = Mapping[str, tuple[str, tuple[int, ...]]]  # dtype and shape by name, in order
Column = npt.NDArray[Any]

_ALIGNED = 64
_OF_DEQUE = 3  # numbers


def made() -> int:
    """A new, empty one: its file."""
    return os.memfd_create("atoll-workers", os.MFD_CLOEXEC)


def mapped(file: int, layout: Layout) -> dict[str, Column]:
    """The arrays. Content stays as it was where layouts begin alike; what is added is zero."""
    places: dict[str, int] = {}
    size = 0
    for name, (dtype, shape) in layout.items():
        places[name] = size
        size += -(-np.dtype(dtype).itemsize * int(np.prod(shape)) // _ALIGNED) * _ALIGNED
    if os.fstat(file).st_size < size:
        os.ftruncate(file, size)
    memory = mmap.mmap(file, size)
    return {
        name: np.ndarray(shape, dtype, buffer=memory, offset=places[name]) for name, (dtype, shape) in layout.items()
    }


def control(places: int, classes: int) -> Layout:
    """What comes first, and so stays where it is: see deques.py."""
    return {"deques": ("<i8", (places, _OF_DEQUE)), "claims": ("<i8", (classes,))}


def answers(classes: int, rows: int) -> Layout:
    """Room for so many classes and nodes."""
    return {
        "refusal": ("|i1", (classes, rows)),
        "kind": ("|i1", (classes, rows)),
        "score": ("<f4", (classes, rows)),
        "rank": ("<f4", (classes, rows)),
        "counts": ("<i8", (classes, COUNTS)),
        "warm": ("|b1", (classes, rows)),
    }


def answers_of(arrays: Mapping[str, Column], number: int, size: int) -> Answers:
    """Those of one class."""
    refusal, kind = arrays["refusal"][number, :size], arrays["kind"][number, :size]
    score, rank = arrays["score"][number, :size], arrays["rank"][number, :size]
    return Answers(refusal, kind, score, rank, arrays["counts"][number])
