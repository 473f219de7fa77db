"""Scheduler workers for tests: `python -m tests.support.crews` starts a region's worth of them and prints their ids."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from regional.workers.crew import Crew
from tests.support.wait import until


@contextmanager
def crew_of(places: int, silence_s: float = 1.0) -> Iterator[Crew]:
    """All of them ready."""
    crew = Crew(places, silence_s)
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
