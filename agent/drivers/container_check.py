"""One command beside a container's own process: an exec that is begun, watched and, when it is late, killed.

An engine that does not answer says nothing of the container: that is no answer of the check.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from agent.drivers.container_kill import processes_of
from agent.drivers.engine import Engine, EngineDown, EngineRefused
from atoll.errors import Unavailable

LOOK_S = 0.05
ANSWER_S = 5.0  # for one answer of the engine


async def check(engine: Engine, container: str, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
    """(exit code was 0, what was wrong). `timeout_ms`: from its begin. Raises Unavailable."""
    try:
        async with asyncio.timeout(ANSWER_S):
            begun = await engine.begin_exec(container, list(command))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_ms / 1000):
                while (await engine.inspect_exec(begun))["Running"]:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(LOOK_S)
        async with asyncio.timeout(ANSWER_S):
            state = await engine.inspect_exec(begun)
    except EngineRefused as refused:
        return False, str(refused)
    except EngineDown as down:
        raise Unavailable(str(down)) from down
    except TimeoutError as silent:
        raise Unavailable(f"the Docker engine did not answer within {ANSWER_S:g} s") from silent
    if state["Running"]:
        await _kill(state, container)
        return False, f"no end within {timeout_ms} ms"
    code = state["ExitCode"]
    return code == 0, "" if code == 0 else f"exit code {code}"


async def _kill(state: Mapping[str, Any], container: str) -> None:
    """The engine cannot end an exec: its process is killed, when it is still one of this container."""
    pid = int(state.get("Pid") or 0)
    if pid and pid in await asyncio.to_thread(processes_of, container):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
