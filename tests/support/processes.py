"""A program of Atoll as a child process: started with a settings file, ready by its own word, killed by its id."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from tests.support.freeze import freeze


class Program:
    """`python -m <module> --config <file>`. Standard error goes to `<file>.log`."""

    def __init__(self, module: str, config: Path) -> None:
        self._module = module
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self.people = ""
        self.programs = ""
        self.metrics = ""

    async def start(self, deadline_s: float = 30.0) -> None:
        """Returns when the program has said that it serves."""
        with self._config.with_suffix(".log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", self._module, "--config", str(self._config),
                stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(deadline_s):
            line = await self._process.stdout.readline()
        assert line, f"{self._module} ended before it was ready:\n{self.log()[-3000:]}"
        ready = json.loads(line)
        self.people, self.programs, self.metrics = ready["people"], ready["programs"], ready["metrics"]

    def log(self) -> str:
        """Empty before it was started."""
        path = self._config.with_suffix(".log")
        return path.read_text() if path.exists() else ""

    def children(self) -> list[int]:
        """Processes that it has started."""
        pid = self._running().pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """Asks it to end in order; its exit code."""
        return await self._end(signal.SIGTERM)

    def pause(self) -> None:
        freeze(self._running().pid)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    async def _end(self, number: signal.Signals) -> int:
        process = self._running()
        if process.returncode is None:
            process.send_signal(number)
            process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            return await process.wait()

    def _running(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "never started"
        return self._process


def left_running(folder: Path) -> list[str]:
    """Processes that know this folder, from their arguments or their environment; not those of the test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes()
                if str(folder).encode() in arguments + (entry / "environ").read_bytes():
                    found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
    return found
