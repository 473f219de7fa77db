"""What only real processes can show: output, limits, environment, a supervisor that is killed, leftovers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.core.events import DriverExited, DriverStarted, DriverStartFailed
from agent.drivers import proc
from agent.drivers.driver import Notice, RunSpec
from agent.drivers.process import ProcessDriver
from atoll.api.v1 import objects_pb2
from tests.support.agent_core import run

LOG_BYTES = 256 * 1024


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = str(folder.resolve())
        self.queue: asyncio.Queue[Notice] = asyncio.Queue()
        self.driver = ProcessDriver(
            folder, self.queue.put_nowait, log_bytes=LOG_BYTES, finished_runs=2, kill_wait_s=1.0
        )

    def start(self, script: str, n: int = 1, memory_mib: int = 0) -> None:
        resources = objects_pb2.ResourceRequirements(requests=objects_pb2.Resources(memory_mib=memory_mib))
        task = objects_pb2.Task(command=["sh", "-c"], args=[script], resources=resources)
        self.driver.start(run(n), RunSpec(task, (("COLOUR", "blue"),)))

    async def finish(self, script: str, n: int = 1, memory_mib: int = 0) -> DriverExited:
        self.start(script, n, memory_mib)
        assert await self.queue.get() == DriverStarted(run(n))
        ended = await self.queue.get()
        assert isinstance(ended, DriverExited)
        return ended


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.driver.close()
    for name in proc.marked(made.state):
        while proc.kill_members(made.state, name):
            pass


async def test_both_outputs_are_kept_and_only_the_tasks_environment_is_there(bench: Bench) -> None:
    os.environ["ATOLL_AGENT_SECRET_OF_THE_AGENT"] = "x"
    try:
        await bench.finish("echo $COLOUR; echo oops >&2; env | grep -c SECRET; pwd")
    finally:
        del os.environ["ATOLL_AGENT_SECRET_OF_THE_AGENT"]
    folder = bench.folder.resolve() / "runs" / str(run()) / "work"
    assert (await bench.driver.logs(run().slot, 10))[0].decode() == f"blue\noops\n0\n{folder}\n"


async def test_output_is_bounded_and_its_end_is_kept(bench: Bench) -> None:
    await bench.finish("i=0; while [ $i -lt 30000 ]; do echo line-of-some-length-$i; i=$((i+1)); done")
    folder = bench.folder / "runs" / str(run())
    assert sum((folder / name).stat().st_size for name in ("log", "log.1")) <= LOG_BYTES
    assert (await bench.driver.logs(run().slot, 1))[0] == b"line-of-some-length-29999\n"


async def test_following_goes_on_across_a_rotation(bench: Bench) -> None:
    bench.start(
        "echo first; while [ ! -e go ]; do sleep 0.02; done; head -c 140000 /dev/zero | tr '\\0' 'x'; echo; echo last"
    )
    await bench.queue.get()
    async with asyncio.timeout(20):
        while True:
            data, cursor = await bench.driver.logs(run().slot, 10)
            if data:
                break
            await asyncio.sleep(0.01)
    assert data == b"first\n"
    (bench.folder / "runs" / str(run()) / "work" / "go").touch()
    await bench.queue.get()
    rest, cursor = await bench.driver.logs(run().slot, 0, cursor)
    assert rest == b"x" * 140000 + b"\nlast\n"
    assert (await bench.driver.logs(run().slot, 0, cursor))[0] == b""


async def test_a_killed_supervisor_takes_its_command_with_it_and_the_code_is_unknown(bench: Bench) -> None:
    bench.start("setsid sleep 1000 & exec sleep 1000")
    assert await bench.queue.get() == DriverStarted(run())
    pids = proc.marked(bench.state)[str(run())]
    os.kill(min(pids), signal.SIGKILL)
    ended = await bench.queue.get()
    assert isinstance(ended, DriverExited)
    assert (ended.exit.code, ended.exit.reason) == (-1, "Unknown")
    assert proc.marked(bench.state) == {}


async def test_memory_beyond_the_limit_is_refused_to_the_process(bench: Bench) -> None:
    hungry = "exec python3 -c 'x = bytearray(200 << 20)'"
    assert (await bench.finish(hungry, 1, 64)).exit.code == 1
    assert b"MemoryError" in (await bench.driver.logs(run().slot, 5))[0]
    assert (await bench.finish(hungry, 2, 512)).exit.code == 0


async def test_an_images_command_is_never_run_outside_its_image(bench: Bench) -> None:
    for task in (objects_pb2.Task(image="busybox"), objects_pb2.Task(driver=objects_pb2.DRIVER_DOCKER)):
        task.command.append("true")
        bench.driver.start(run(), RunSpec(task, ()))
        assert await bench.queue.get() == DriverStartFailed(run(), "DriverMissing: this node runs plain processes only")


async def test_without_a_command_nothing_starts(bench: Bench) -> None:
    bench.driver.start(run(), RunSpec(objects_pb2.Task(), ()))
    assert await bench.queue.get() == DriverStartFailed(run(), "CommandMissing: a process needs a command")


async def test_folders_of_finished_runs_are_bounded(bench: Bench) -> None:
    for n in range(1, 6):
        await bench.finish("true", n)
    assert len(list((bench.folder / "runs").iterdir())) == 3


async def test_a_check_that_hangs_is_killed(bench: Bench) -> None:
    bench.start("exec sleep 1000")
    assert await bench.queue.get() == DriverStarted(run())
    before = proc.marked(bench.state)
    assert await bench.driver.exec_check(run(), ["sleep", "1000"], 50) == (False, "no end within 50 ms")
    assert await bench.driver.exec_check(run(), ["sh", "-c", "exit 4"], 5000) == (False, "exit code 4")
    assert await bench.driver.exec_check(run(), ["sh", "-c", '[ "$COLOUR" = blue ]'], 5000) == (True, "")
    assert proc.marked(bench.state) == before
