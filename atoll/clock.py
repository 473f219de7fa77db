"""Where time comes from. Cores never import this: they are handed `now_ms`."""

import time
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds, near the wall clock, never going back, counting suspend."""


class SystemClock:
    """CLOCK_BOOTTIME, moved once at the start to the wall clock: later jumps of the wall clock do not reach it."""

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def now_ms(self) -> int:
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset_ns) // 1_000_000
