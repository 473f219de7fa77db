"""Runs replicas as plain processes of this host, each under a small supervisor of its own (supervisor.py).

Runs outlive the agent: they are found again by their folder, by pid with start time and boot id, and by the marker in
their environment. An end is noticed through a pidfd, for adopted runs too, and told only when no process of the run is
left. The exit code is known unless the supervisor itself was killed or the host went down: then it is -1, `Unknown`.

Memory is bounded with RLIMIT_DATA, which counts for each process by itself; processor time and disk are not bounded,
and a process that wipes its environment and has lost its supervisor is no longer recognised. cgroups close both gaps.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.core.events import DriverExited, DriverStarted, DriverStartFailed, DriverStopped
from agent.core.runs import Exit, Found, RunName
from agent.drivers import proc, supervisor
from agent.drivers.driver import Cursor, Notify, RunSpec
from agent.drivers.run_folder import RunFolder, RunFolders
from atoll.api.v1 import objects_pb2
from atoll.model.slots import SlotName

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SWEEP_S = 0.05
MIB = 1 << 20


@dataclass(slots=True)
class _Live:
    """A run that has a supervisor. `child`: it is ours to reap."""

    folder: RunFolder
    pidfd: int = -1
    child: subprocess.Popen[bytes] | None = None
    stopping: bool = False
    timer: asyncio.TimerHandle | None = None


class ProcessDriver:
    """Needs a running asyncio loop. `notify` is called from that loop."""

    def __init__(
        self, state_dir: Path, notify: Notify, *, log_bytes: int, finished_runs: int, kill_wait_s: float
    ) -> None:
        self._state = str(state_dir.resolve())
        self._folders = RunFolders(state_dir / "runs", finished_runs)
        self._notify = notify
        self._log_bytes = log_bytes
        self._kill_wait_s = kill_wait_s
        self._live: dict[RunName, _Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self) -> Sequence[Found]:
        marked = proc.marked(self._state)
        found = []
        for run in self._folders.names():
            folder = self._folders.of(run)
            exit, known = folder.exit(), folder.supervisor()
            if exit is not None:
                found.append(Found(run, exit))
                continue
            pid = known.pid if known and known.alive else min(marked.get(str(run), [0]))
            if not pid and known is None:
                self._folders.remove(run)  # the agent died before anything was started
                continue
            live = self._live[run] = _Live(folder)
            found.append(Found(run, None, known.at_ms if known else 0))
            if not pid or not self._watch(run, live, pid):
                self._task(self._finish(run))
        return found

    def start(self, run: RunName, spec: RunSpec) -> None:
        folder = self._folders.of(run)
        live = self._live[run] = _Live(folder)
        self._folders.prune({*self._live})
        report, into = os.pipe()
        try:
            folder.prepare(self._record(run, spec, folder))
            command = [sys.executable, "-I", "-S", supervisor.__file__, str(folder.path), str(into)]
            live.child = subprocess.Popen(
                command,
                env=self._marker(run),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(into,),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(report)
            word = "StorageFailed: its folder cannot be written: " if isinstance(error, OSError) else ""
            self._failed(run, f"{word}{error}")
            return
        finally:
            os.close(into)
        self._task(self._starting(run, live, live.child, report))

    def stop(self, run: RunName, grace_ms: int) -> None:
        live = self._live.get(run)
        if live is None or live.stopping:
            return
        live.stopping = True
        self._signal(live, signal.SIGTERM)
        live.timer = asyncio.get_running_loop().call_later(grace_ms / 1000, self._kill, run, live)

    async def logs(self, slot: SlotName, tail_lines: int, after: Cursor | None = None) -> tuple[bytes, Cursor]:
        runs = [run for run in self._folders.names() if run.slot == slot]
        if not runs:
            return b"", Cursor()
        folder = self._folders.of(max(runs))
        return folder.tail(tail_lines) if after is None else folder.after(after)

    async def exec_check(self, run: RunName, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
        folder = self._folders.of(run)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=folder.environment() | self._marker(run),
                cwd=folder.path / "work",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return False, str(error)
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                code = await process.wait()
        except TimeoutError:
            return False, f"no end within {timeout_ms} ms"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return code == 0, "" if code == 0 else f"exit code {code}"

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for live in self._live.values():
            self._unwatch(live)

    # ------------------------------------------------------------------ the life of a run

    async def _starting(self, run: RunName, live: _Live, child: subprocess.Popen[bytes], report: int) -> None:
        answer = (await _read_all(report)).decode(errors="replace")
        if answer == "started":
            self._notify(DriverStarted(run))
            if not self._watch(run, live, child.pid):
                await self._finish(run)
            return
        await self._sweep(run, live)
        self._failed(run, answer.removeprefix("failed ") or "the supervisor died")

    def _failed(self, run: RunName, reason: str) -> None:
        live = self._live.pop(run)
        live.folder.clear()
        self._unwatch(live)
        self._notify(DriverStartFailed(run, reason))

    def _watch(self, run: RunName, live: _Live, pid: int) -> bool:
        """False when the supervisor is gone already."""
        try:
            live.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        known = live.folder.supervisor()
        if live.child is None and known is not None and not known.alive:
            self._unwatch(live)  # the number belongs to another process by now
            return False
        asyncio.get_running_loop().add_reader(live.pidfd, self._ended, run, live)
        return True

    def _unwatch(self, live: _Live) -> None:
        if live.timer is not None:
            live.timer.cancel()
        if live.pidfd >= 0:
            asyncio.get_running_loop().remove_reader(live.pidfd)
            os.close(live.pidfd)
            live.pidfd = -1

    def _ended(self, run: RunName, live: _Live) -> None:
        self._unwatch(live)
        self._task(self._finish(run))

    async def _finish(self, run: RunName) -> None:
        """The supervisor is gone: tell how the run ended, when nothing of it is left."""
        live = self._live[run]
        await self._sweep(run, live)
        exit = live.folder.exit()
        if exit is None:
            exit = Exit(-1, "Unknown", "the supervisor was killed or the host went down", time.time_ns() // 1_000_000)
            with contextlib.suppress(OSError):  # a full disk: an agent started later will find the same
                live.folder.write_exit(exit)
        del self._live[run]
        self._notify(DriverStopped(run, exit) if live.stopping else DriverExited(run, exit))

    async def _sweep(self, run: RunName, live: _Live) -> None:
        """Until nothing of the run is alive."""
        if live.child is not None:
            live.child.poll()
        while proc.kill_members(self._state, str(run)):
            await asyncio.sleep(SWEEP_S)
            if live.child is not None:
                live.child.poll()

    def _kill(self, run: RunName, live: _Live) -> None:
        """The grace is over: the supervisor kills what is below it, and is killed itself when it does not."""
        self._signal(live, signal.SIGUSR1)
        kill = asyncio.get_running_loop().call_later
        live.timer = kill(self._kill_wait_s, proc.kill_members, self._state, str(run))

    def _signal(self, live: _Live, number: signal.Signals) -> None:
        if live.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(live.pidfd, number)

    # ------------------------------------------------------------------ small things

    def _record(self, run: RunName, spec: RunSpec, folder: RunFolder) -> dict[str, object]:
        task = spec.task
        argv = [*task.command, *task.args]
        if task.driver not in (objects_pb2.DRIVER_UNSPECIFIED, objects_pb2.DRIVER_PROCESS) or task.image:
            # never an image's command outside its image
            raise ValueError("DriverMissing: this node runs plain processes only")
        if not argv:
            raise ValueError("CommandMissing: a process needs a command")
        memory_mib = task.resources.limits.memory_mib or task.resources.requests.memory_mib
        environment = {"PATH": PATH, "HOME": str(folder.path / "work"), **dict(spec.environment), **self._marker(run)}
        return {
            "argv": argv,
            "environment": environment,
            "folder": str(folder.path / "work"),
            "memory_bytes": memory_mib * MIB,
            "log_bytes": self._log_bytes,
        }

    def _marker(self, run: RunName) -> dict[str, str]:
        return {proc.RUN_VARIABLE: str(run), proc.NODE_VARIABLE: self._state}

    def _task(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _read_all(fd: int) -> bytes:
    """Everything from a pipe until its other end is closed."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb"))
    try:
        return await reader.read()
    finally:
        transport.close()
