"""How many replicas of a task have reached what: marks of each as bits, and their sums, kept by differences.

UP is a replica that rollouts, moves and drains count on: of a service, ready for its minimum time; of a job, running.
"""

BOUND, STARTED, READY, SERVING, SUCCEEDED, FAILED, UP = (1 << bit for bit in range(7))


class Tally:
    """Sums over the wanted replicas of a task at its present template; `up`: of any template."""

    __slots__ = ("_replicas",)

    def __init__(self) -> None:
        self._replicas: dict[int, int] = {}  # by their marks; moved far more often than summed

    def move(self, before: int, after: int) -> None:
        """One replica had the marks `before`, and has `after` now."""
        if before:
            self._replicas[before] -= 1
        if after:
            self._replicas[after] = self._replicas.get(after, 0) + 1

    def _with(self, mark: int) -> int:
        found = 0
        for marks, count in self._replicas.items():  # no generator: it takes longer than the few items
            if marks & mark:
                found += count
        return found

    @property
    def bound(self) -> int:
        return self._with(BOUND)

    @property
    def started(self) -> int:
        return self._with(STARTED)

    @property
    def ready(self) -> int:
        return self._with(READY)

    @property
    def healthy(self) -> int:
        """Both ready and up."""
        return sum(count for marks, count in self._replicas.items() if marks & READY and marks & UP)

    @property
    def serving(self) -> int:
        return self._with(SERVING)

    @property
    def succeeded(self) -> int:
        return self._with(SUCCEEDED)

    @property
    def failed(self) -> int:
        return self._with(FAILED)

    @property
    def provided(self) -> int:
        """Those that do not wait: a replica is bound, has succeeded or has failed."""
        return self._with(BOUND | SUCCEEDED | FAILED)

    @property
    def up(self) -> int:
        return self._with(UP)
