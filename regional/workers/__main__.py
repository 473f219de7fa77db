"""A scheduler worker's process: `python -m regional.workers MEMORY LOCKS SOCKET PLACE PARENT`, started by its region
(member.py). It ends with that: the kernel kills it then, also while it is stopped. What it does: worker.py, which is
imported when that is settled.
"""

import ctypes
import os
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    memory, locks, end, place, parent = map(int, sys.argv[1:])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # the region's: it ends when that does
        signal.signal(number, signal.SIG_IGN)
    from regional.workers import worker

    worker.serve(memory, locks, socket.socket(fileno=end), place)


if __name__ == "__main__":
    main()
