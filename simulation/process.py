"""What a process is to the simulation: it has a clock of its own, can be killed, paused and started again.

Decides nothing about the program inside. A killed process forgets everything but what it put on a disk; a paused one
finds everything that came meanwhile waiting, in order.
"""

from collections import deque
from collections.abc import Callable

from simulation.kernel import START_MS, Kernel


class Process:
    """`life` tells a restarted process from its predecessor: what was scheduled for an earlier life is dropped."""

    def __init__(self, kernel: Kernel, name: str, rate: float) -> None:
        self.kernel = kernel
        self.name = name
        self.label = name.encode()
        self.life = 0
        self.alive = False
        self.paused = False
        self._rate = rate
        self._waiting: deque[Callable[[], None]] = deque()

    def clock_ms(self) -> int:
        """Local time: the true time at this machine's rate."""
        return START_MS + int((self.kernel.now_ms - START_MS) * self._rate)

    def due_in(self, local_ms: int, now_ms: int) -> int:
        """The true delay until the local clock, which shows `now_ms`, shows `local_ms`."""
        return max(1, int((local_ms - now_ms) / self._rate) + 1)

    def after(self, delay_ms: int, name: bytes, action: Callable[[], None]) -> None:
        """As `Kernel.after`, for this life of this process."""
        self.kernel.after(delay_ms, name, action, self)

    def does(self, life: int, action: Callable[[], None]) -> None:
        """`action` if that life still runs; later if it is paused; never if it has ended."""
        if life != self.life or not self.alive:
            return
        if self.paused:
            self._waiting.append(action)
        else:
            action()

    def start(self) -> None:
        self.life += 1
        self.alive = True
        self.paused = False
        self._waiting.clear()

    def kill(self) -> None:
        self.life += 1
        self.alive = False
        self.paused = False
        self._waiting.clear()

    def pause(self, for_ms: int) -> None:
        if not self.alive or self.paused:
            return
        self.paused = True
        life = self.life
        self.kernel.after(for_ms, b"resume " + self.label, lambda: self._resume(life))

    def _resume(self, life: int) -> None:
        if life != self.life:
            return
        self.paused = False
        while self._waiting and not self.paused and life == self.life:
            self._waiting.popleft()()
