"""One contract, every driver: what agent/drivers/driver.py promises, on a Docker engine, on processes, on the fake."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from agent.config import DockerSettings
from agent.core.events import DriverExited, DriverStarted, DriverStartFailed, DriverStopped
from agent.core.runs import Rank, RunName
from agent.drivers.docker import DockerDriver
from agent.drivers.driver import Driver, Notice, Notify, RunSpec
from agent.drivers.fake import Behaviour, FakeDriver
from agent.drivers.process import ProcessDriver
from atoll.api.v1 import objects_pb2
from atoll.model.slots import AttemptId, SlotName
from tests.support import docker

RUN = RunName(SlotName("acme", "web", "main", 0), Rank(1, AttemptId(7, 1)))
NEWER = RunName(RUN.slot, Rank(1, AttemptId(7, 2)))

COMMANDS = {
    "forever": ["sleep", "1000"],
    "completes": ["sh", "-c", "echo one; echo two; echo three"],
    "fails": ["sh", "-c", "exit 3"],
    "stubborn": ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.05; done"],
    "missing": ["/no/such/program"],
    "orphans": ["sh", "-c", "setsid sleep 1000 & exit 0"],
}
BEHAVIOURS = {
    "forever": Behaviour(),
    "completes": Behaviour(runs_ms=5, output=b"one\ntwo\nthree\n"),
    "fails": Behaviour(runs_ms=5, code=3),
    "stubborn": Behaviour(term_ms=None, output=b"deaf\n"),
    "missing": Behaviour(fails="no such file"),
    "orphans": Behaviour(runs_ms=5),
}


def spec(kind: str, image: str = "") -> RunSpec:
    resources = objects_pb2.ResourceRequirements(requests=objects_pb2.Resources(cpu_milli=500, memory_mib=64))
    return RunSpec(objects_pb2.Task(image=image, command=COMMANDS[kind], resources=resources), (("KIND", kind),))


class Bench(Protocol):
    driver: Driver
    notices: list[Notice]

    def spec(self, kind: str) -> RunSpec: ...
    async def next(self) -> Notice: ...
    async def restart_agent(self) -> None: ...
    def alive(self) -> bool: ...
    async def settle(self) -> None: ...
    async def close(self) -> None: ...


class FakeBench:
    def __init__(self) -> None:
        self.notices: list[Notice] = []
        self.fake = FakeDriver(self.notices.append, lambda _, spec: BEHAVIOURS[dict(spec.environment)["KIND"]])
        self.driver: Driver = self.fake

    def spec(self, kind: str) -> RunSpec:
        return spec(kind)

    async def next(self) -> Notice:
        while not self.notices:
            due = self.fake.next_deadline()
            assert due is not None, "nothing will ever happen"
            self.fake.advance(due)
        return self.notices.pop(0)

    async def restart_agent(self) -> None:
        self.notices = []
        self.fake.attach(self.notices.append)

    def alive(self) -> bool:
        return bool(self.fake.alive)

    async def settle(self) -> None:
        while (due := self.fake.next_deadline()) is not None:
            self.fake.advance(due)

    async def close(self) -> None:
        self.fake.close()


class RealBench:
    """With real time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open()

    def _open(self) -> None:
        self.queue: asyncio.Queue[Notice] = asyncio.Queue()
        self.driver = self.make(self.queue.put_nowait)

    def make(self, notify: Notify) -> Driver:
        raise NotImplementedError

    def spec(self, kind: str) -> RunSpec:
        return spec(kind)

    @property
    def notices(self) -> list[Notice]:
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]

    async def next(self) -> Notice:
        async with asyncio.timeout(20):
            return await self.queue.get()

    async def restart_agent(self) -> None:
        self.driver.close()
        self._open()

    async def settle(self) -> None:
        """Longer than any late second notice would take: the end of another, later run."""
        other = RunName(SlotName("acme", "other", "main", 0), RUN.rank)
        self.driver.start(other, self.spec("completes"))
        while not isinstance(await self.next(), DriverExited):
            pass


class ProcessBench(RealBench):
    def make(self, notify: Notify) -> Driver:
        return ProcessDriver(self.folder, notify, log_bytes=1 << 20, finished_runs=10, kill_wait_s=2.0)

    def alive(self) -> bool:
        return bool(marked(self.folder))

    async def close(self) -> None:
        self.driver.close()
        deadline = time.monotonic() + 10
        while pids := marked(self.folder):
            assert time.monotonic() < deadline
            for pid in pids:
                os.kill(pid, 9)
            await asyncio.sleep(0.01)


class DockerBench(RealBench):
    def __init__(self, folder: Path) -> None:
        self._image = docker.image()
        super().__init__(folder)

    def make(self, notify: Notify) -> Driver:
        settings = DockerSettings(socket=docker.SOCKET, look_s=0.5)
        return DockerDriver(
            self.folder, notify, settings, node="n1", address="127.0.0.1", log_bytes=1 << 20, finished_runs=10
        )

    def spec(self, kind: str) -> RunSpec:
        return spec(kind, self._image)

    def alive(self) -> bool:
        return bool(docker.running(self.folder))

    async def close(self) -> None:
        self.driver.close()
        docker.remove_all(self.folder)


def marked(folder: Path) -> list[int]:
    """Live processes of this bench, found without the driver's help."""
    needle = f"ATOLL_STATE={folder.resolve()}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and needle in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture(params=["fake", "process", pytest.param("docker", marks=pytest.mark.docker)])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    make: dict[str, Callable[[], Bench]] = {
        "fake": FakeBench,
        "process": lambda: ProcessBench(tmp_path),
        "docker": lambda: DockerBench(tmp_path),
    }
    made = make[request.param]()
    yield made
    await made.close()


async def test_a_run_starts_and_exits_with_its_code(bench: Bench) -> None:
    assert list(bench.driver.adopt()) == []
    for kind, code, reason in (("fails", 3, "Failed"), ("completes", 0, "Completed")):
        bench.driver.start(RUN, bench.spec(kind))
        assert await bench.next() == DriverStarted(RUN)
        ended = await bench.next()
        assert isinstance(ended, DriverExited)
        assert (ended.exit.code, ended.exit.reason) == (code, reason)
    assert not bench.alive()


async def test_what_cannot_start_says_why_and_leaves_nothing(bench: Bench) -> None:
    bench.driver.start(RUN, bench.spec("missing"))
    answer = await bench.next()
    assert isinstance(answer, DriverStartFailed)
    assert "no such file" in answer.reason.lower()
    assert not bench.alive()
    bench.driver.start(RUN, bench.spec("forever"))
    assert await bench.next() == DriverStarted(RUN)


async def test_stop_ends_it_with_one_notice(bench: Bench) -> None:
    bench.driver.start(RUN, bench.spec("forever"))
    assert await bench.next() == DriverStarted(RUN)
    assert bench.alive()
    bench.driver.stop(RUN, 5000)
    bench.driver.stop(RUN, 5000)
    ended = await bench.next()
    assert isinstance(ended, DriverStopped)
    assert ended.exit.code == 143
    assert not bench.alive()
    bench.driver.stop(RUN, 5000)
    await bench.settle()
    assert [n for n in bench.notices if n.run == RUN] == []


async def test_what_ignores_sigterm_is_killed_after_the_grace(bench: Bench) -> None:
    bench.driver.start(RUN, bench.spec("stubborn"))
    assert await bench.next() == DriverStarted(RUN)
    while (await bench.driver.logs(RUN.slot, 1))[0] != b"deaf\n":  # noqa: ASYNC110 - only now its trap is set
        await asyncio.sleep(0.01)
    bench.driver.stop(RUN, 100)
    ended = await bench.next()
    assert isinstance(ended, DriverStopped)
    assert ended.exit.code == 137
    assert not bench.alive()


async def test_an_end_means_that_no_descendant_lives(bench: Bench) -> None:
    bench.driver.start(RUN, bench.spec("orphans"))
    assert await bench.next() == DriverStarted(RUN)
    ended = await bench.next()
    assert isinstance(ended, DriverExited)
    assert ended.exit.code == 0
    assert not bench.alive()


async def test_the_next_agent_adopts_what_runs_and_notices_its_end(bench: Bench) -> None:
    bench.driver.start(RUN, bench.spec("forever"))
    assert await bench.next() == DriverStarted(RUN)
    await bench.restart_agent()
    (found,) = bench.driver.adopt()
    assert (found.run, found.exit) == (RUN, None)
    assert bench.alive()
    bench.driver.stop(RUN, 5000)
    ended = await bench.next()
    assert isinstance(ended, DriverStopped)
    assert ended.exit.code == 143


async def test_the_next_agent_learns_how_a_run_ended(bench: Bench) -> None:
    bench.driver.start(RUN, bench.spec("fails"))
    assert await bench.next() == DriverStarted(RUN)
    assert isinstance(await bench.next(), DriverExited)
    await bench.restart_agent()
    (found,) = bench.driver.adopt()
    assert found.run == RUN
    assert found.exit is not None
    assert found.exit.code == 3


async def test_logs_are_the_newest_runs_last_lines(bench: Bench) -> None:
    assert (await bench.driver.logs(RUN.slot, 10))[0] == b""
    bench.driver.start(RUN, bench.spec("completes"))
    await bench.next()
    await bench.next()
    lines, cursor = await bench.driver.logs(RUN.slot, 2)
    assert lines == b"two\nthree\n"
    assert (await bench.driver.logs(RUN.slot, 2, cursor))[0] == b""


async def test_a_check_runs_beside_its_run(bench: Bench) -> None:
    bench.driver.start(RUN, bench.spec("forever"))
    assert await bench.next() == DriverStarted(RUN)
    assert await bench.driver.exec_check(RUN, ["true"], 5000) == (True, "")
