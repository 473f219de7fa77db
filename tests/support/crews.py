"""Scheduler workers for tests: `python -m tests.support.crews` starts a region's worth of them and prints their ids."""

import asyncio
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from regional.core.class_rows import Due
from regional.workers.crew import Crew
from regional.workers.deques import Deques
from tests.support.wait import until


class Patient(Crew):
    """One whose region begins when its workers have taken what they were dealt: so that they take part, however busy
    the machine is."""

    def _take_part(self, deques: Deques, due: Sequence[Due], done: set[int]) -> float:
        until_s = time.monotonic() + 1.0
        while time.monotonic() < until_s and (deques._deques[1:, 1] < deques._deques[1:, 2]).any():
            time.sleep(0.0001)
        return super()._take_part(deques, due, done)


@contextmanager
def crew_of(places: int, silence_s: float = 1.0, kind: type[Crew] = Crew) -> Iterator[Crew]:
    """All of them ready."""
    crew = kind(places, silence_s)
    try:
        tended(crew, lambda: len(crew.pids) == places - 1)
        yield crew
    finally:
        crew.close()


def tended(crew: Crew, condition: Callable[[], bool]) -> None:
    """Waits for it, as a region would that has nothing else to do."""

    def tend() -> bool:
        crew.tend()
        return condition()

    asyncio.run(until(tend, 30.0))


def alive(pid: int) -> bool:
    """And no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    with crew_of(3) as crew:
        sys.stdout.write(" ".join(map(str, crew.pids)) + "\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
