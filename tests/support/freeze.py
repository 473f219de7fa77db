"""Pauses a process. The kernel stops its threads one after the other: until the last one stops it may still answer."""

import os
import signal
import time
from pathlib import Path

_STOPPED_S = 30.0


def freeze(pid: int) -> None:
    """SIGSTOP; returns when no thread runs any more."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + _STOPPED_S
    while any(_runs(thread / "stat") for thread in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < end, f"{pid} does not stop"
        time.sleep(0.001)


def _runs(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "TtZX"
    except (FileNotFoundError, ProcessLookupError):  # a thread that ended meanwhile
        return False
