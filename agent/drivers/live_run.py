"""A run that may have a container: what is known of it, and its record for the next agent and the guard."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from agent.drivers.container_kill import RECORD
from agent.drivers.run_folder import RunFolder
from agent.drivers.supervisor import write_record


@dataclass(slots=True)
class LiveRun:
    """`began`: its start was answered: it runs, as far as is known, or has ended. `ended`: so it was told."""

    folder: RunFolder
    name: str
    id: str = ""  # empty until it was created
    began: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    checking: bool = False
    died: bool = False  # an event said so, maybe before its start was answered

    @property
    def container(self) -> str:
        return self.id or self.name

    def record(self, engine: Path, started_ms: int = 0) -> None:
        """`engine`: its socket. Raises OSError."""
        record = {"name": self.name, "id": self.id, "socket": str(engine), "started_ms": started_ms}
        write_record(str(self.folder.path / RECORD), record)
