"""Who evaluates which class of a round: a deque for each process, in memory that all of them share.

A process takes from the head of its own deque, and from the tail of another's when that is empty; what it takes is its
own claim. Each deque has a lock of its own, held for a few instructions: a record lock of the kernel, which is free
again at once when its holder dies. The locks are on a file that nobody maps: whoever closes any descriptor of a file,
a map's too, gives up all the locks that he has on it. A deque says which round its classes are of, so that whoever
comes late to a round finds nothing.
"""

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

_PAUSE_S = 0.0001


class Stuck(Exception):
    """Somebody holds a lock and does not go on."""


class Deques:
    """`deques`: (places, 3); `claims`: by class, the place that took it. `lock_within_s`: None = waits for ever."""

    def __init__(
        self,
        file: int,
        deques: npt.NDArray[np.int64],
        claims: npt.NDArray[np.int64],
        lock_within_s: float | None = None,
    ) -> None:
        self._file = file
        self._deques = deques
        self._claims = claims
        self._lock_within_s = lock_within_s

    def deal(self, round_: int, shares: Sequence[range]) -> None:
        """To each place its classes, by number. Raises Stuck."""
        for place, share in enumerate(shares):
            with self._locked(place):
                self._deques[place] = round_, share.start, share.stop

    def take(self, place: int, round_: int, places: int) -> int | None:
        """The number of a class that is this place's to evaluate; None when nothing is left to take. Raises Stuck."""
        for victim in (place, *(other % places for other in range(place + 1, place + places))):
            with self._locked(victim):
                of, head, end = self._deques[victim].tolist()
                if of != round_ or head >= end:
                    continue
                number: int = head if victim == place else end - 1
                self._claims[number] = place
                self._deques[victim] = (of, head + 1, end) if victim == place else (of, head, number)
                return number
        return None

    def claimed(self, number: int) -> int:
        """The place that took a class, once nothing is left to take."""
        return int(self._claims[number])

    @contextmanager
    def _locked(self, place: int) -> Iterator[None]:
        self._lock(place)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def _lock(self, place: int) -> None:
        if self._lock_within_s is None:
            fcntl.lockf(self._file, fcntl.LOCK_EX, 1, place)
            return
        until = time.monotonic() + self._lock_within_s
        while True:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError as held:
                if time.monotonic() > until:
                    raise Stuck(f"the deque of place {place} stays locked") from held
                time.sleep(_PAUSE_S)
            else:
                return


def shares(classes: int, places: Sequence[int], most: int) -> list[range]:
    """`classes` dealt evenly to these places of `most`, neighbours together."""
    dealt = [range(0)] * most
    for n, place in enumerate(places):
        dealt[place] = range(n * classes // len(places), (n + 1) * classes // len(places))
    return dealt
