"""Processes as /proc shows them: who is who, who belongs to a run, and killing until nothing is left.

A process belongs to a run when its environment, inherited from the run's start, says so, or when it is a descendant of
one that does. A number alone proves nothing: with the start time and the boot id it names one process for ever.
"""

import contextlib
import os
import signal
from functools import cache
from pathlib import Path

RUN_VARIABLE = "ATOLL_RUN"  # the run's name
NODE_VARIABLE = "ATOLL_STATE"  # the agent's state folder: several agents may share one host


@cache
def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def start_ticks(pid: int) -> int | None:
    """When this process started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def marked(state: str) -> dict[str, list[int]]:
    """The live processes of every run of the agent with this state folder, by the run's name."""
    found: dict[str, list[int]] = {}
    node = f"{NODE_VARIABLE}={state}".encode()
    prefix = f"{RUN_VARIABLE}=".encode()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            entries = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if node in entries and start_ticks(int(name)) is not None:
            for entry in entries:
                if entry.startswith(prefix):
                    found.setdefault(entry.removeprefix(prefix).decode(errors="replace"), []).append(int(name))
                    break
    return found


def members(state: str, run: str) -> list[int]:
    """Everything alive that belongs to the run, parents before children."""
    roots = marked(state).get(run, [])
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                if fields[0] not in (b"Z", b"X"):
                    below.setdefault(int(fields[1]), []).append(int(name))
    found: dict[int, None] = {}
    todo = sorted(roots)
    while todo:
        pid = todo.pop(0)
        if pid not in found:
            found[pid] = None
            todo += below.get(pid, [])
    return list(found)


def kill_members(state: str, run: str) -> int:
    """SIGKILL to everything of the run; how many there were. Repeat until 0: a dying process may still fork."""
    pids = [pid for pid in members(state, run) if pid != os.getpid()]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)
