"""One scheduler worker, as its region sees it: its process, what it was told, and what it owes.

A worker that claimed a class owes its answers until it says so or is dead, and one that was sent a round owes its end:
as long as answers are owed nobody may use the memory that they are written to.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import time

from regional.core.mirror import Known
from regional.workers import rounds
from regional.workers.arena import Layout

_READ_BYTES = 1 << 16


class Member:
    def __init__(self, place: int, memory: int, locks: int) -> None:
        """Starts its process; it is `ready` a moment later."""
        self.place = place
        self.known: Known | None = None  # of the table that memory shows
        self.layout: Layout | None = None
        self.ready = False
        self.claims = False  # classes of the last round
        self.silent_since_s = 0.0  # it was sent a round and has not said since that one is over; 0 = it has
        self.struck = ""  # why it was killed, or is dead
        self.started_s = time.monotonic()
        self._unread = b""
        self._sent = 0  # the last round
        self._end, theirs = socket.socketpair()
        self._end.setblocking(False)
        path = {"PYTHONPATH": os.pathsep.join(one or os.getcwd() for one in sys.path), "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-P", "-m", "regional.workers"]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(memory), str(locks), str(theirs.fileno()), str(place), str(os.getpid())],
                pass_fds=(memory, locks, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | path,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._end.fileno()

    @property
    def owes(self) -> bool:
        """Whether it may still write to the memory."""
        return not self.dead if self.struck else self.claims and self.silent_since_s > 0

    @property
    def dead(self) -> bool:
        """And so it writes nothing any more."""
        return self._process.poll() is not None

    def send(self, number: int, text: bytes, within_s: float) -> bool:
        """A round; False when it does not take it in."""
        self._sent, self.silent_since_s = number, self.silent_since_s or time.monotonic()
        until, left = time.monotonic() + within_s, memoryview(text)
        writable = select.poll()
        writable.register(self._end, select.POLLOUT)
        while left:
            try:
                left = left[self._end.send(left) :]
            except BlockingIOError:
                rest_s = until - time.monotonic()
                if rest_s <= 0 or not writable.poll(rest_s * 1_000):
                    return False
            except OSError:
                return False
        return True

    def said(self) -> list[tuple[int, int]]:
        """Classes it has evaluated since: (round, class). A dead one says no more, and is `struck`."""
        text, found = self._unread + self._read(), []
        whole = len(text) - len(text) % rounds.ANSWER.size
        self._unread = text[whole:]
        for number, what in rounds.ANSWER.iter_unpack(text[:whole]):
            if what == rounds.READY:
                self.ready = True
            elif what == rounds.OVER:
                self.silent_since_s = 0.0 if number == self._sent else time.monotonic()
            else:
                found.append((number, what))
        return found

    def _read(self) -> bytes:
        text = b""
        while not self.struck:
            try:
                more = self._end.recv(_READ_BYTES)
            except BlockingIOError:
                break
            except OSError:
                more = b""
            if not more:
                self.strike("it has ended")
            text += more
        return text

    def strike(self, why: str) -> None:
        """Its end is awaited from now on: what it claimed is nobody's then."""
        self.struck = self.struck or why
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)

    def close(self) -> None:
        self.strike("the region ends")
        self._process.wait()
        self._end.close()
