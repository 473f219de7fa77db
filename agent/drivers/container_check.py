"""One command beside a container's own process: an exec that is begun, watched and, when it is late, killed."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

from agent.drivers.container_kill import processes_of
from agent.drivers.engine import Engine, EngineDown, EngineRefused

LOOK_S = 0.05


async def check(engine: Engine, container: str, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
    """(exit code was 0, what was wrong)."""
    try:
        begun = await engine.begin_exec(container, list(command))
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while (state := await engine.inspect_exec(begun))["Running"]:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            await _kill(engine, container, begun)
            return False, f"no end within {timeout_ms} ms"
    except (EngineDown, EngineRefused) as error:
        return False, str(error)
    code = state["ExitCode"]
    return code == 0, "" if code == 0 else f"exit code {code}"


async def _kill(engine: Engine, container: str, begun: str) -> None:
    """The engine cannot end an exec: its process is killed, when it is still one of this container."""
    pid = int((await engine.inspect_exec(begun)).get("Pid") or 0)
    if pid and pid in await asyncio.to_thread(processes_of, container):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
