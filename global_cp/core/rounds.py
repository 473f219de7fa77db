"""Looking again at all that wait, round after round, a part of them between two events. Decides whose turn it is.

Everyone who waits when a round begins has one turn in it, in the order in which they began to wait. The next round
begins when its time has come and the one before is through; who began to wait meanwhile has the first turn in that.
"""

import itertools
from collections import deque
from collections.abc import Iterable

from global_cp.core.reports import WorkloadPath


class Rounds:
    def __init__(self, every_ms: int, at_once: int) -> None:
        """`at_once`: the most turns in one part."""
        self._every_ms = every_ms
        self._at_once = at_once
        self._left: deque[WorkloadPath] = deque()
        self.next_ms = 0

    @property
    def goes_on(self) -> bool:
        """Some have not had their turn in this round yet."""
        return bool(self._left)

    def is_due(self, now_ms: int) -> bool:
        return self.goes_on or now_ms >= self.next_ms

    def turns(self, now_ms: int, *waiting: Iterable[WorkloadPath]) -> list[WorkloadPath]:
        """The next part, of a new round when the last one is through. Some of them may wait no more."""
        if not self._left:
            self.next_ms = now_ms + self._every_ms
            self._left.extend(itertools.chain(*waiting))  # a copy of references: a millisecond for very many
        return [self._left.popleft() for _ in range(min(self._at_once, len(self._left)))]
