"""Virtual time: one queue of events, one source of randomness, one digest.

Decides the order in which things happen and nothing else. Two events at the same millisecond happen in the order in
which they were scheduled, so one seed is one history, whatever PYTHONHASHSEED says. Every delivered event is counted
and folded into the digest under the name its scheduler gave it.
"""

import heapq
import random
import zlib
from collections.abc import Callable

START_MS = 1_700_000_000_000  # any wall-clock moment; virtual time starts there


class Kernel:
    """`after` schedules, `run` delivers. `random` is for the simulated world only: cores draw nothing."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.delivered = 0
        self.digest = 0
        self._queue: list[tuple[int, int, str, Callable[[], None]]] = []
        self._scheduled = 0

    @property
    def elapsed_ms(self) -> int:
        return self.now_ms - START_MS

    def after(self, delay_ms: int, name: str, action: Callable[[], None]) -> None:
        """Do `action` in `delay_ms` ≥ 0; `name` goes into the digest and the trace."""
        self._scheduled += 1
        heapq.heappush(self._queue, (self.now_ms + max(0, delay_ms), self._scheduled, name, action))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def between(self, low_ms: int, high_ms: int) -> int:
        return self.random.randint(low_ms, high_ms)

    def note(self, text: str) -> None:
        """Fold something that happened into the digest."""
        self.digest = zlib.crc32(text.encode(), self.digest)

    def run(self, *, events: int = 0, until_ms: int = 0) -> None:
        """Deliver until `events` more were delivered or virtual time reaches `until_ms`, whichever is given."""
        last = self.delivered + events if events else None
        while self._queue:
            if last is not None and self.delivered >= last:
                return
            if until_ms and self._queue[0][0] > until_ms:
                self.now_ms = until_ms
                return
            at_ms, _, name, action = heapq.heappop(self._queue)
            self.now_ms = max(self.now_ms, at_ms)
            self.delivered += 1
            self.note(f"{at_ms} {name}")
            action()
