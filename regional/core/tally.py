"""How many replicas of a task have reached what: marks of each as bits, and their sums, kept by differences."""

BOUND, STARTED, READY, SERVING, SUCCEEDED, FAILED, UP = (1 << bit for bit in range(7))


class Tally:
    """Sums over the wanted replicas of a task at its present template; `up`: of any template, still serving."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums = [0] * 7

    def move(self, before: int, after: int) -> None:
        """One replica had the marks `before`, and has `after` now."""
        changed = before ^ after
        while changed:
            mark = changed & -changed
            self._sums[mark.bit_length() - 1] += 1 if after & mark else -1
            changed ^= mark

    @property
    def bound(self) -> int:
        return self._sums[0]

    @property
    def started(self) -> int:
        return self._sums[1]

    @property
    def ready(self) -> int:
        return self._sums[2]

    @property
    def serving(self) -> int:
        return self._sums[3]

    @property
    def succeeded(self) -> int:
        return self._sums[4]

    @property
    def failed(self) -> int:
        return self._sums[5]

    @property
    def up(self) -> int:
        return self._sums[6]
