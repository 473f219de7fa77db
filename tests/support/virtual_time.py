"""Runs coroutines of shells in virtual time: when all of them wait, the clock jumps to the next timer."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualClock:
    """atoll.clock.Clock over the time of the running loop."""

    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)


class _Jumping(selectors.DefaultSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everything waits and no timer is set: nothing will ever happen")
            self.now_s += max(timeout, 0.0)
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = _Jumping()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now_s


def compute(seconds: float) -> None:
    """A computation took so long on the running loop: nothing else ran meanwhile."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _VirtualLoop)
    loop.jumping.now_s += seconds


def run(main: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run; takes no real time, whatever is slept."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(main)
