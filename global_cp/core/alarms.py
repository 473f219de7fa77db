"""When to look at which workload again though nothing happens: at most one time for each. Decides nothing."""

import heapq

from global_cp.core.reports import WorkloadPath


class Alarms:
    def __init__(self) -> None:
        self._at: dict[WorkloadPath, int] = {}
        self._heap: list[tuple[int, WorkloadPath]] = []  # with entries that count no more

    def set(self, path: WorkloadPath, at_ms: int | None) -> None:
        """In place of the one before; None: none."""
        if at_ms is None:
            self._at.pop(path, None)
        elif self._at.get(path) != at_ms:
            self._at[path] = at_ms
            heapq.heappush(self._heap, (at_ms, path))

    def due(self, now_ms: int, most: int) -> list[WorkloadPath]:
        """Takes out what is due, in order, but no more than `most`: the rest stays due."""
        found: list[WorkloadPath] = []
        while len(found) < most and (at_ms := self.next_ms()) is not None and at_ms <= now_ms:
            path = heapq.heappop(self._heap)[1]
            del self._at[path]
            found.append(path)
        return found

    def next_ms(self) -> int | None:
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
