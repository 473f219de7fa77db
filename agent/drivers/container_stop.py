"""How a run in a container is stopped: SIGTERM, SIGKILL, then through its cgroup, until its end has been told.

Leaves to others: how it ended, which `check` finds out, and telling it, which `finish` does.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

from agent.core.runs import Exit
from agent.drivers.container_kill import kill_processes, processes_of
from agent.drivers.engine import Engine, EngineDown, EngineRefused
from agent.drivers.live_run import LiveRun

AGAIN_S = 1.0
LISTENS_LOOK_S = 0.05
LISTENS_S = 2.0
KILLED = 137

Check = Callable[[], Awaitable[None]]
Finish = Callable[[Exit], Awaitable[None]]


async def stop(engine: Engine, live: LiveRun, grace_s: float, check: Check, finish: Finish) -> None:
    """Returns when the end has been told."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace_s
    await live.began.wait()
    asked = False
    while not live.ended.is_set():
        kill = loop.time() >= deadline
        try:
            if not kill and not asked:
                await _until_it_listens(live)
            if kill or not asked:
                await engine.signal(live.container, "SIGKILL" if kill else "SIGTERM")
                asked = True
        except EngineRefused:  # it does not run any more
            await check()
        except EngineDown as down:
            if kill:
                await _kill_without_engine(live, str(down), finish)
        pause_s = AGAIN_S if kill or not asked else deadline - loop.time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(pause_s, 0)):
                await live.ended.wait()


async def _until_it_listens(live: LiveRun) -> None:
    """The engine's init drops a SIGTERM that comes before it has a child, and says nothing."""
    end = asyncio.get_running_loop().time() + LISTENS_S
    while asyncio.get_running_loop().time() < end and not live.ended.is_set():
        if len(await asyncio.to_thread(processes_of, live.id)) > 1:
            return
        await asyncio.sleep(LISTENS_LOOK_S)


async def _kill_without_engine(live: LiveRun, why: str, finish: Finish) -> None:
    if not live.id:
        return
    await asyncio.to_thread(kill_processes, live.id)
    if not await asyncio.to_thread(processes_of, live.id):
        await finish(Exit(KILLED, "Failed", f"killed through its cgroup: {why}", time.time_ns() // 1_000_000))
