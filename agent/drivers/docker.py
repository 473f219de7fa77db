"""Runs replicas as containers of this host's Docker engine.

Containers outlive the agent: a run is known by its folder (containers/<run>), which is there before its container is,
so that an agent which starts while the engine is away still knows what may be alive. The engine is looked through at
intervals, and its events shorten the wait: so ends are noticed whoever caused them, also over a restart or a hang of
the engine. Once an end is known its output is kept in the folder and the container removed; containers with this state
folder's label that no folder knows are removed before anything is started.

An answer to a start that never came leaves the run starting, which is told with the reason, until the engine says what
became of it, or has removed the container. Never told: an end that was not seen by the engine or by there being no
process left in the cgroup.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from agent.config import DockerSettings
from agent.core.events import DriverDelayed, DriverExited, DriverStarted, DriverStartFailed, DriverStopped
from agent.core.runs import Exit, Found, RunName
from agent.drivers import container, container_check, container_create, container_log, container_stop
from agent.drivers.container_kill import FOLDER, RECORD, read_record
from agent.drivers.driver import Cursor, Notify, RunSpec
from agent.drivers.engine import Engine, EngineDown, EngineRefused
from agent.drivers.live_run import LiveRun
from agent.drivers.run_folder import RunFolders
from atoll.errors import Unavailable
from atoll.model.slots import SlotName

log = structlog.get_logger()

AGAIN_S = 1.0


class DockerDriver:
    """Needs a running asyncio loop. `notify` and `changed` are called from that loop."""

    def __init__(
        self,
        state_dir: Path,
        notify: Notify,
        settings: DockerSettings,
        *,
        node: str,
        address: str,
        log_bytes: int,
        finished_runs: int,
        own_address: Callable[[RunName], str] = lambda run: "",
    ) -> None:
        self._settings = settings
        self._own_address = own_address
        self._node = container.Node(
            name=node,
            state=str(state_dir.resolve()),
            address=address,
            processors=os.cpu_count() or 1,
            most_pids=settings.most_pids,
            log_bytes=log_bytes,
            gpus=settings.gpus,
        )
        self._folders = RunFolders(state_dir / FOLDER, finished_runs)
        self._notify = notify
        self._engine = Engine(
            settings.socket,
            call_s=settings.call_s,
            calls_at_once=settings.calls_at_once,
            pulls_at_once=settings.pulls_at_once,
        )
        self._live: dict[RunName, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = False
        self._looked = False  # at least once since this agent's start
        self.images: tuple[str, ...] = ()  # that are here, sorted

    def watch_engine(self, changed: Callable[[], None]) -> None:
        """`changed` is called when `available` or `images` has changed."""
        self._engine.changed = changed

    @property
    def available(self) -> bool:
        return self._looked and not self._engine.down

    @property
    def unavailable(self) -> str:
        """Why it cannot be used; empty also while nobody has asked yet."""
        return self._engine.down

    # ------------------------------------------------------------------ the driver's protocol

    def adopt(self) -> Sequence[Found]:
        self._begin()
        found = []
        for run in self._folders.names():
            exit = self._folders.of(run).exit()
            if exit is not None or run in self._live:
                started_ms = int(read_record(self._folders.of(run).path).get("started_ms", 0))
                found.append(Found(run, exit, started_ms))
        return found

    def start(self, run: RunName, spec: RunSpec) -> None:
        self._begin()
        live = self._live[run] = LiveRun(self._folders.of(run), container.name_of(run, self._node))
        self._folders.prune({*self._live})
        self._task(self._start(run, spec, live))

    def stop(self, run: RunName, grace_ms: int) -> None:
        live = self._live.get(run)
        if live is None or live.stopping:
            return
        live.stopping = True
        check, finish = partial(self._check, run), partial(self._finish, run, live)
        self._task(container_stop.stop(self._engine, live, grace_ms / 1000, check, finish))

    async def logs(self, slot: SlotName, tail_lines: int, after: Cursor | None = None) -> tuple[bytes, Cursor]:
        runs = [run for run in self._folders.names() if run.slot == slot]
        if not runs:
            return b"", Cursor()
        run = max(runs)
        kept = await asyncio.to_thread(container_log.read, self._folders.of(run).path)
        live = self._live.get(run)
        if live is not None and live.id:
            last_ns = max(kept[-1].at_ns if kept else 0, after.offset if after else 0)
            try:
                raw = await self._engine.output(live.id, None if after else max(tail_lines, 1), last_ns)
            except EngineDown as down:
                raise Unavailable(str(down)) from down
            kept += [entry for entry in container_log.entries(raw) if entry.at_ns > last_ns]
        return container_log.tail(kept, tail_lines) if after is None else container_log.after(kept, after)

    async def exec_check(self, run: RunName, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
        live = self._live.get(run)
        if live is None or not live.began.is_set():
            return False, "it does not run"
        return await container_check.check(self._engine, live.container, command, timeout_ms)

    def close(self) -> None:
        self._engine.changed = lambda: None
        for task in self._tasks:
            task.cancel()
        self._engine.close()

    # ------------------------------------------------------------------ seeing what is there

    def _begin(self) -> None:
        """Once: takes the runs of an earlier agent over, and begins to look."""
        if self._begun:
            return
        self._begun = True
        for run in self._folders.names():
            folder = self._folders.of(run)
            if folder.exit() is not None:
                continue
            record = read_record(folder.path)
            if not record:
                self._folders.remove(run)  # nothing of it was ever started
                continue
            live = self._live[run] = LiveRun(folder, container.name_of(run, self._node), str(record.get("id", "")))
            live.began.set()
        self._task(self._watch(self._look_at_intervals))
        self._task(self._watch(self._follow_events))
        self._task(self._watch(self._list_images_at_intervals))

    async def _watch(self, once: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            with contextlib.suppress(EngineDown, EngineRefused, OSError):
                await once()
            await asyncio.sleep(AGAIN_S)

    async def _look_at_intervals(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._settings.look_s)

    async def _look(self) -> None:
        """Compares what there is with what should be: ends that were missed, and containers nobody wants."""
        running = [run for run, live in self._live.items() if live.began.is_set()]
        listed = await self._engine.containers(self._node.state)
        status = {run: item["State"] for item in listed if (run := container.run_of(item["Labels"])) is not None}
        for run in running:
            if not container.lives(status.get(run, "")):
                self._task(self._check(run))
        for item in listed:
            run = container.run_of(item["Labels"])
            if run is None or run not in self._live:
                await self._clear(item["Id"], run)
        if not self._looked:
            self._looked = True
            self._engine.changed()

    async def _list_images_at_intervals(self) -> None:
        while True:
            held = container.images_of(await self._engine.images())
            if held != self.images:
                self.images = held
                self._engine.changed()
            await asyncio.sleep(self._settings.images_s)

    async def _follow_events(self) -> None:
        async for event in self._engine.events(self._node.state):
            attributes = event.get("Actor", {}).get("Attributes", {})
            run = container.run_of(attributes)
            live = self._live.get(run) if run is not None else None
            if run is None or live is None or event.get("id") != live.id:
                continue
            live.died = True
            code = attributes.get("exitCode", "")
            self._task(self._check(run, int(code) if code.isdigit() else None))

    async def _check(self, run: RunName, code: int | None = None) -> None:
        """Asks the engine whether the run has ended, and tells it if so. `code`: from an event of its end."""
        live = self._live.get(run)
        if live is None or live.checking or not live.began.is_set():
            return
        live.checking = True
        try:
            info = await self._engine.inspect(live.container)
            if info is None:
                await self._finish(run, live, container.gone(_now_ms(), code))
            elif info["State"]["Status"] == "created":  # of an agent that died starting it: its start may yet come
                await self._engine.remove(live.container)
                await self._finish(run, live, container.gone(_now_ms()))
            elif not container.lives(info["State"]["Status"]):
                memory = int(info["HostConfig"].get("Memory") or 0)
                await self._finish(run, live, container.exit_of(info["State"], memory, _now_ms()))
        except (EngineDown, EngineRefused) as error:
            log.info("how a run ended is not known yet", run=str(run), reason=str(error))
        finally:
            live.checking = False

    async def _finish(self, run: RunName, live: LiveRun, exit: Exit) -> None:
        """Nothing of the run is alive."""
        try:
            live.folder.write_exit(exit)
        except OSError as error:  # a full disk: the container stays, so that the next agent finds the same
            log.error("how a run ended cannot be kept", run=str(run), reason=str(error))
        else:
            with contextlib.suppress(EngineDown, EngineRefused):
                await self._clear(live.container, run)
        if self._live.get(run) is not live:
            return
        del self._live[run]
        live.ended.set()
        self._notify(DriverStopped(run, exit) if live.stopping else DriverExited(run, exit))

    async def _clear(self, container_id: str, run: RunName | None) -> None:
        """Keeps its output, where there is a folder for it, and removes the container."""
        if run is not None and (folder := self._folders.of(run)).path.is_dir():
            raw = await self._engine.output(container_id, None, 0)
            with contextlib.suppress(OSError):  # a full disk costs output, nothing else
                await asyncio.to_thread(container_log.keep, folder.path, raw, self._node.log_bytes)
        await self._engine.remove(container_id)

    # ------------------------------------------------------------------ starting

    async def _start(self, run: RunName, spec: RunSpec, live: LiveRun) -> None:
        begun = False
        try:
            await self._create(run, spec, live)
            begun = True
            await self._engine.start(live.id)
        except container.Refused as refused:
            await self._failed(run, live, str(refused))
        except EngineRefused as refused:
            why = container.why_not_started(refused.status, str(refused), spec.task)
            await self._failed(run, live, why, certain=begun)
        except OSError as error:
            await self._failed(run, live, f"StorageFailed: its folder cannot be written: {error}")
        except EngineDown as down:
            if begun and down.sent:
                await self._resolve(run, live, str(down))
            else:
                await self._failed(run, live, f"EngineDown: {down}")
        else:
            self._started(run, live)

    async def _create(self, run: RunName, spec: RunSpec, live: LiveRun) -> None:
        request = container.create_request(run, spec, self._node, self._own_address(run))
        live.folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        live.folder.clear()
        live.record(self._settings.socket)
        if not self._looked:
            await self._look()
        await self._clear(live.name, run)
        live.id = await container_create.create(
            self._engine, live.name, request, self._settings, lambda why: self._notify(DriverDelayed(run, why))
        )
        live.record(self._settings.socket)

    def _started(self, run: RunName, live: LiveRun) -> None:
        with contextlib.suppress(OSError):
            live.record(self._settings.socket, _now_ms())
        live.began.set()
        self._notify(DriverStarted(run))
        if live.died:
            self._task(self._check(run))

    async def _resolve(self, run: RunName, live: LiveRun, why: str) -> None:
        """A start was not answered: it runs, or it was removed before it could."""
        self._notify(
            DriverDelayed(run, f"EngineDown: whether it started is not known before the engine answers: {why}")
        )
        while True:
            await asyncio.sleep(AGAIN_S)
            try:
                info = await self._engine.inspect(live.id)
                if info is not None and info["State"]["Status"] != "created":
                    self._started(run, live)
                    self._task(self._check(run))
                    return
                await self._engine.remove(live.id)
                await self._failed(run, live, f"EngineDown: {why}")
                return
            except (EngineDown, EngineRefused) as error:
                log.warning("whether a run started is not known yet", run=str(run), reason=str(error))

    async def _failed(self, run: RunName, live: LiveRun, reason: str, certain: bool = False) -> None:
        """Nothing of the run exists. `certain`: a start was tried, so its container must be seen to go."""
        while True:
            try:
                await self._engine.remove(live.container)
                break
            except (EngineDown, EngineRefused):
                if not certain:
                    break  # created at most: a look removes it later
                self._notify(DriverDelayed(run, f"{reason}; its container is still to be removed"))
                await asyncio.sleep(AGAIN_S)
        with contextlib.suppress(OSError):
            (live.folder.path / RECORD).unlink(missing_ok=True)
        if self._live.get(run) is live:
            del self._live[run]
        live.began.set()
        live.ended.set()
        self._notify(DriverStartFailed(run, reason))

    # ------------------------------------------------------------------ small things

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
