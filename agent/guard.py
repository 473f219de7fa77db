"""The guard: a small process beside the agent that kills fenceable work at its deadline, whatever the agent does.

    python -m agent.guard STATE_DIR

It reads `guard.json`, which the agent replaces with each acknowledged heartbeat: runs and their deadlines on
CLOCK_BOOTTIME, which counts suspend. A stopped, hung or dead agent therefore cannot let `exclusive` work overlap with
its successor. One guard a state folder (a lock); it ends by itself when there is no agent and nothing left to guard.
A container is killed through its cgroup and then removed by its engine, however long that takes to answer.
Standard library, drivers/proc and drivers/container_kill only: it must start fast and stay small.
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from agent.drivers import container_kill, proc

PERIOD_S = 0.2


def boottime_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def read_deadlines(state_dir: Path) -> dict[str, Any]:
    """What the agent wrote in this boot of the host; empty when there is nothing to believe."""
    try:
        record = json.loads((state_dir / "guard.json").read_bytes())
    except (OSError, ValueError):
        return {}
    known = isinstance(record, dict) and record.get("boot_id") == proc.boot_id()
    return record if known else {}


def try_lock(path: Path) -> int | None:
    """The lock's file descriptor, or None while somebody else holds it."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def agent_is_gone(state_dir: Path) -> bool:
    file = try_lock(state_dir / "lock")
    if file is None:
        return False
    os.close(file)
    return True


def enforce(state_dir: Path, deadlines: dict[str, Any]) -> int:
    """Kills what is late; how many runs are still guarded."""
    state = str(state_dir.resolve())
    waiting = 0
    for run, deadline_ms in deadlines.get("runs", []):
        if boottime_ms() < deadline_ms:
            waiting += 1
        else:
            left = proc.kill_members(state, run)
            gone = container_kill.kill_run(state_dir, run)
            waiting += 1 if left or not gone else 0
    return waiting


def main() -> None:
    state_dir = Path(sys.argv[1])
    if try_lock(state_dir / "guard.lock") is None:
        return
    while enforce(state_dir, read_deadlines(state_dir)) or not agent_is_gone(state_dir):
        time.sleep(PERIOD_S)


if __name__ == "__main__":
    main()
