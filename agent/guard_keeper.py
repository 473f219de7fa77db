"""The agent's side of the guard: writes the deadlines, and sees to it that a guard process runs while there are any."""

import json
import os
import subprocess
import sys
from pathlib import Path

from agent.core.commands import Guard
from agent.core.lease import LeaseTerms
from agent.drivers.proc import boot_id
from agent.guard import boottime_ms, read_deadlines, try_lock
from atoll.clock import Clock


class GuardKeeper:
    def __init__(self, state_dir: Path, clock: Clock) -> None:
        self._state_dir = state_dir
        self._path = state_dir / "guard.json"
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._needed = False

    def terms(self) -> LeaseTerms | None:
        """Of an earlier agent process's lease, in this clock's time."""
        record = read_deadlines(self._state_dir)
        acked, fence_after = record.get("last_ack_ms"), record.get("fence_after_ms")
        if not isinstance(acked, int) or not isinstance(fence_after, int):
            return None
        return LeaseTerms(acked + self._offset_ms(), fence_after)

    def write(self, guard: Guard) -> None:
        """In force when it returns. Raises OSError. No fsync: after a crash of the host there is nothing to kill."""
        offset_ms = self._offset_ms()
        record = {
            "boot_id": boot_id(),
            "last_ack_ms": guard.terms.last_ack_ms - offset_ms,
            "fence_after_ms": guard.terms.fence_after_ms,
            "runs": [[str(d.run), d.deadline_ms - offset_ms] for d in guard.deadlines],
        }
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(record))
        temporary.replace(self._path)
        self._needed = bool(guard.deadlines)
        self.watch()

    def watch(self) -> None:
        """Starts a guard unless one runs. Called now and then."""
        if self._process is not None and self._process.poll() is None:
            return
        if not self._needed or (lock := try_lock(self._state_dir / "guard.lock")) is None:
            return
        os.close(lock)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agent.guard", str(self._state_dir.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[1],
        )

    def _offset_ms(self) -> int:
        return self._clock.now_ms() - boottime_ms()
