"""Which nodes hold which container images, as their agents say. In memory only: every hello says it again.

A node that holds a task's image starts it without a pull. Decides nothing: scores.py weighs it.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from atoll.model.images import LONGEST_IMAGE, MOST_IMAGES

_MOST_COLUMNS = 64

Mask = npt.NDArray[np.bool_]


class Images:
    def __init__(self) -> None:
        self._of: dict[int, frozenset[str]] = {}  # by row
        self._rows: dict[str, set[int]] = {}
        self._columns: dict[str, Mask] = {}  # of images that were asked for, over the rows there were

    def tell(self, row: int, names: Iterable[str]) -> bool:
        """What the row's node holds now; whether that is new. What is beyond the bounds is not listened to."""
        held = frozenset(sorted(name for name in set(names) if len(name) <= LONGEST_IMAGE)[:MOST_IMAGES])
        before = self._of.get(row, frozenset())
        for name in before - held:
            self._rows[name].discard(row)
            if not self._rows[name]:
                del self._rows[name]
        for name in held - before:
            self._rows.setdefault(name, set()).add(row)
        for name in held ^ before:
            self._columns.pop(name, None)
        if held:
            self._of[row] = held
        else:
            self._of.pop(row, None)
        return held != before

    def of(self, row: int) -> frozenset[str]:
        return self._of.get(row, frozenset())

    def holding(self, image: str, size: int) -> Mask:
        """By row, of the first `size`: whether its node holds the image."""
        column = self._columns.get(image)
        if column is None or len(column) < size:
            column = np.zeros(size, np.bool_)
            column[[row for row in self._rows.get(image, ()) if row < size]] = True
            if len(self._columns) >= _MOST_COLUMNS:
                self._columns.clear()
            self._columns[image] = column
        return column[:size]

    def know(self, image: str, column: Mask) -> None:
        """Who holds one image, as found elsewhere."""
        if len(self._columns) >= _MOST_COLUMNS:
            self._columns.clear()
        self._columns[image] = column
