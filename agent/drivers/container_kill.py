"""Ends a container for sure, also when its engine hangs. Standard library and proc only: the guard uses it.

First the processes themselves, found by the container's id in their cgroup (version 1 or 2, whoever laid it out): that
needs no engine. Then the engine is told to remove the container, so that a start it may still have in its queue comes
to nothing. `container.json` beside a run says which container it is and where its engine listens.
"""

import contextlib
import hashlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any
from urllib.parse import quote

RECORD = "container.json"
FOLDER = "containers"
ENGINE_S = 1.0
GONE = (204, 404)


def container_name(run: str, state: str) -> str:
    return f"{run}.{hashlib.sha256(state.encode()).hexdigest()[:8]}"


def read_record(folder: Path) -> dict[str, Any]:
    """Keys: name, id (empty before it was created), socket, started_ms. Empty when there is none."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def processes_of(container_id: str) -> list[int]:
    """Everything alive in this container."""
    found = []
    for name in os.listdir("/proc") if container_id else ():
        if name.isdigit():
            with contextlib.suppress(OSError):
                if container_id in Path(f"/proc/{name}/cgroup").read_text():
                    found.append(int(name))
    return found


def kill_processes(container_id: str) -> int:
    """SIGKILL to everything in it; how many there were. Repeat until 0: a dying process may still fork."""
    pids = processes_of(container_id)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def remove_by_engine(socket_path: str, container: str) -> bool:
    """Whether the engine says that there is no such container any more."""
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(ENGINE_S)
            engine.connect(socket_path)
            target = f"/containers/{quote(container)}?force=true&v=true"
            engine.sendall(f"DELETE {target} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
            words = engine.recv(4096).split()
    except OSError:
        return False
    return len(words) > 1 and words[1].isdigit() and int(words[1]) in GONE


def kill_run(state_dir: Path, run: str) -> bool:
    """One try; whether nothing of this run can be alive in a container any more."""
    folder = state_dir / FOLDER / run
    if not folder.is_dir() or (folder / "exit.json").exists():
        return True
    record = read_record(folder)
    left = kill_processes(str(record.get("id", "")))
    return remove_by_engine(str(record.get("socket", "")), str(record.get("name", ""))) and not left
