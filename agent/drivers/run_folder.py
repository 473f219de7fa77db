"""The folder of one run: what to start, who supervises it, how it ended, what it wrote.

runs/<run>/spec.json      written by the driver
           started.json   by the supervisor before it starts anything: its pid, start time and boot
           exit.json      by the supervisor when nothing of the run is alive, else by the driver
           log, log.1     output, bounded
           work/          working directory of the command
"""

import json
import os
import shutil
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.core.runs import Exit, RunName, run_name
from agent.drivers.driver import Cursor
from agent.drivers.proc import boot_id, start_ticks
from agent.drivers.supervisor import write_record

MOST_LOG_BYTES = 1 << 20  # of one answer


@dataclass(frozen=True, slots=True)
class Supervisor:
    pid: int
    start_ticks: int
    boot_id: str
    at_ms: int

    @property
    def alive(self) -> bool:
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks


class RunFolder:
    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self, spec: dict[str, object]) -> None:
        """Ready for a (new) start. Raises OSError."""
        (self.path / "work").mkdir(parents=True, exist_ok=True, mode=0o700)
        self.clear()
        write_record(str(self.path / "spec.json"), spec)

    def clear(self) -> None:
        for name in ("started.json", "exit.json"):
            (self.path / name).unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """What the command was started with."""
        return dict(_read(self.path / "spec.json").get("environment", {}))

    def supervisor(self) -> Supervisor | None:
        record = _read(self.path / "started.json")
        try:
            return Supervisor(**record) if record else None
        except TypeError:
            return None

    def exit(self) -> Exit | None:
        record = _read(self.path / "exit.json")
        if not record:
            return None
        code = int(record["code"])
        message = str(record.get("message", "")) or ("" if code < 128 else f"ended by signal {code - 128}")
        reason = str(record.get("reason", "")) or ("Completed" if code == 0 else "Unknown" if code < 0 else "Failed")
        return Exit(code, reason, message, int(record["at_ms"]))

    def write_exit(self, exit: Exit) -> None:
        """For a run whose supervisor could not, and for containers. Raises OSError."""
        told = {"code": exit.code, "reason": exit.reason, "message": exit.message, "at_ms": exit.at_ms}
        write_record(str(self.path / "exit.json"), told)

    def tail(self, lines: int) -> tuple[bytes, Cursor]:
        """The last lines and where to read on."""
        kept: deque[bytes] = deque(maxlen=max(lines, 1))
        cursor = Cursor()
        for name in ("log.1", "log"):
            data, cursor = _read_from(self.path / name, 0)
            kept.extend(data.splitlines(keepends=True))
        return b"".join(kept)[-MOST_LOG_BYTES:], cursor

    def after(self, cursor: Cursor) -> tuple[bytes, Cursor]:
        """What came since, as far as it is kept."""
        rest = b""
        if _inode(self.path / "log.1") == cursor.file:  # rotated meanwhile
            rest, _ = _read_from(self.path / "log.1", cursor.offset)
            cursor = Cursor()
        offset = cursor.offset if _inode(self.path / "log") == cursor.file else 0
        data, cursor = _read_from(self.path / "log", offset)
        return rest + data, cursor


class RunFolders:
    """All of one node. Finished ones are kept for their output, the newest `keep` of them."""

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        path.mkdir(parents=True, exist_ok=True, mode=0o700)

    def of(self, run: RunName) -> RunFolder:
        return RunFolder(self._path / str(run))

    def names(self) -> list[RunName]:
        return sorted(run for entry in os.listdir(self._path) if (run := run_name(entry)) is not None)

    def prune(self, live: set[RunName]) -> None:
        finished = [run for run in self.names() if run not in live]
        finished.sort(key=lambda run: self.of(run).path.stat().st_mtime_ns)
        for run in finished[: max(0, len(finished) - self._keep)]:
            self.remove(run)

    def remove(self, run: RunName) -> None:
        shutil.rmtree(self.of(run).path, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _read_from(path: Path, offset: int) -> tuple[bytes, Cursor]:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
            return data, Cursor(os.fstat(file.fileno()).st_ino, offset + len(data))
    except OSError:
        return b"", Cursor()


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return -1
