"""A process that takes classes from deques: `python -m tests.support.taker MEMORY LOCKS PLACE PLACES ROUND`.

It prints what it took, one number a line. With PLACE below zero it takes the lock of that deque instead, says so, and
keeps it until it is killed.
"""

import signal
import sys

from regional.workers import arena
from regional.workers.deques import Deques

CLASSES = 600


def deques_of(memory: int, locks: int, places: int, lock_within_s: float | None = None) -> Deques:
    arrays = arena.mapped(memory, arena.control(places, CLASSES))
    return Deques(locks, arrays["deques"], arrays["claims"], lock_within_s)


def main() -> None:
    memory, locks, place, places, round_ = map(int, sys.argv[1:])
    deques = deques_of(memory, locks, places)
    if place < 0:
        with deques._locked(-place):
            print("locked", flush=True)
            signal.pause()
    print("ready", flush=True)
    sys.stdin.readline()
    while (number := deques.take(place, round_, places)) is not None:
        print(number)


if __name__ == "__main__":
    main()
