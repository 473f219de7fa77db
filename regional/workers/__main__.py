"""A scheduler worker: `python -m regional.workers MEMORY LOCKS SOCKET PLACE PARENT`, started by its region (member.py).

It evaluates classes of a round as long as it finds some to take, and waits for the next. It ends with its region: by
the end of the socket, and by the kernel's hand where it could not see that.
"""

import ctypes
import os
import signal
import socket
import sys

from regional.core.mirror import Column, Mirror
from regional.workers import arena, rounds
from regional.workers.deques import Deques

_PR_SET_PDEATHSIG = 1


def main() -> None:
    memory, locks, end, place, parent = map(int, sys.argv[1:])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # the region's: it ends when that does
        signal.signal(number, signal.SIG_IGN)
    _serve(memory, locks, socket.socket(fileno=end), place)


def _serve(memory: int, locks: int, end: socket.socket, place: int) -> None:
    mirror, arrays = Mirror(), dict[str, Column]()
    end.sendall(rounds.ANSWER.pack(0, rounds.READY))
    while (round_ := rounds.received(end)) is not None:
        if round_.begins:
            mirror = Mirror()
        if round_.layout is not None:
            arrays = arena.mapped(memory, round_.layout)
            mirror.see(arrays)
        mirror.hear(round_.news)
        deques = Deques(locks, arrays["deques"], arrays["claims"])
        jobs = rounds.jobs_of(round_)
        while (number := deques.take(place, round_.number, round_.places)) is not None:
            answers = arena.answers_of(arrays, number, round_.news.size)
            mirror.evaluate(jobs[number], answers, arrays["warm"][number, : round_.news.size])
            end.sendall(rounds.ANSWER.pack(round_.number, number))
        end.sendall(rounds.ANSWER.pack(round_.number, rounds.OVER))


if __name__ == "__main__":
    main()
