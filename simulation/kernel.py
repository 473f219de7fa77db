"""Virtual time: one queue of events, one source of randomness, one digest.

Decides the order in which things happen and nothing else. Two events at the same millisecond happen in the order in
which they were scheduled, so one seed is one history, whatever PYTHONHASHSEED says. Every delivered event is counted
and folded into the digest under the name its scheduler gave it; so are all bytes that travel or are written.
"""

import heapq
import random
import zlib
from collections.abc import Callable
from typing import Protocol

NEVER = 1 << 62
START_MS = 1_700_000_000_000  # any wall-clock moment; virtual time starts there


class Actor(Protocol):
    """Who does what was scheduled: it may be dead or paused when the time comes (process.py)."""

    life: int

    def does(self, life: int, action: Callable[[], None]) -> None: ...


class Kernel:
    """`after` schedules, `run` delivers. `random` is for the simulated world only: cores draw nothing."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_ms = START_MS
        self.delivered = 0
        self.digest = 0
        self._queue: list[tuple[int, int, bytes, Callable[[], None], Actor | None, int]] = []
        self._scheduled = 0

    @property
    def elapsed_ms(self) -> int:
        return self.now_ms - START_MS

    def after(self, delay_ms: int, name: bytes, action: Callable[[], None], actor: Actor | None = None) -> None:
        """Do `action` in `delay_ms` ≥ 0; `name` goes into the digest. With an actor: in its present life."""
        self._scheduled += 1
        at_ms = self.now_ms + delay_ms if delay_ms > 0 else self.now_ms
        heapq.heappush(self._queue, (at_ms, self._scheduled, name, action, actor, actor.life if actor else 0))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def between(self, low_ms: int, high_ms: int) -> int:
        return low_ms + int(self.random.random() * (high_ms - low_ms + 1))

    def note(self, what: bytes) -> None:
        """Fold something that happened, was sent or was written into the digest."""
        self.digest = zlib.crc32(what, self.digest)

    def run(self, *, events: int = 0, until_ms: int = 0) -> None:
        """Deliver until `events` more were delivered or virtual time reaches `until_ms`, whichever is given."""
        last = self.delivered + events if events else NEVER
        until_ms = until_ms or NEVER
        queue, pop, fold = self._queue, heapq.heappop, zlib.crc32
        while queue and self.delivered < last:
            now_ms, order, name, action, actor, life = pop(queue)
            if now_ms > until_ms:
                heapq.heappush(queue, (now_ms, order, name, action, actor, life))
                self.now_ms = until_ms
                return
            self.now_ms = now_ms
            self.delivered += 1
            self.digest = fold(b"%d %s" % (now_ms, name), self.digest)
            if actor is None:
                action()
            else:
                actor.does(life, action)
