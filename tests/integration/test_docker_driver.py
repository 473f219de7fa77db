"""Driver and guard against real engines: what is refused, who is killed, and engines that hang, die and come back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agent import guard
from agent.config import DockerSettings
from agent.core.events import DriverDelayed, DriverExited, DriverStarted, DriverStartFailed, DriverStopped
from agent.core.runs import RunName
from agent.drivers import container_kill
from agent.drivers.docker import DockerDriver
from agent.drivers.driver import Notice, RunSpec
from atoll.api.v1 import objects_pb2
from atoll.cli import scratch_image
from tests.support import docker
from tests.support.agent_core import run
from tests.support.dockerd import Dockerd
from tests.support.etcd import free_ports

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]


class Node:
    """A driver on a state folder, and what it says."""

    def __init__(self, folder: Path, engine: Path = docker.SOCKET, call_s: float = 20.0) -> None:
        self.folder = folder
        self.notices: asyncio.Queue[Notice] = asyncio.Queue()
        self.driver = DockerDriver(
            folder,
            self.notices.put_nowait,
            DockerSettings(socket=engine, look_s=0.5, call_s=call_s, pull="never"),
            node="n1",
            address="127.0.0.1",
            log_bytes=1 << 20,
            finished_runs=10,
        )

    def start(self, n: int, *command: str, image: str = scratch_image.TAG, port: int = 0) -> RunName:
        task = objects_pb2.Task(image=image, command=command)
        task.resources.requests.CopyFrom(objects_pb2.Resources(cpu_milli=500, memory_mib=16))
        if port:
            task.ports.add(name="http", number=port)
        self.driver.start(run(n), RunSpec(task, ()))
        return run(n)

    async def next(self) -> Notice:
        async with asyncio.timeout(60):
            return await self.notices.get()

    async def outcome(self) -> Notice:
        """The next that is no delay: an engine may take its time on a busy machine."""
        while isinstance(notice := await self.next(), DriverDelayed):
            pass
        return notice

    async def runs(self, n: int) -> RunName:
        started = self.start(n, "sleep", "1000")
        assert await self.outcome() == DriverStarted(started)
        return started

    def record(self, which: RunName) -> dict[str, object]:
        return container_kill.read_record(self.folder / container_kill.FOLDER / str(which))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    docker.image()
    made = Node(tmp_path)
    yield made
    made.driver.close()
    docker.remove_all(tmp_path)


@pytest.fixture(scope="module")
def engine() -> Iterator[Dockerd]:
    with Dockerd() as made:
        scratch_image.build(made.socket)
        yield made


async def test_what_cannot_start_begins_with_its_word_and_leaves_nothing(node: Node) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_ports(1)[0]))
        taken.listen()
        node.start(1, "sleep", "1", image="no.such/image:1")
        node.start(2, "sleep", "1", image="NOT A NAME")
        node.start(3, "sleep", "1", port=taken.getsockname()[1])
        node.start(4, "no-such-program")
        answers = [await node.outcome() for _ in range(4)]
    words = {a.run.rank.attempt.n: a.reason.split(":")[0] for a in answers if isinstance(a, DriverStartFailed)}
    assert words == {1: "ImageMissing", 2: "ImageInvalid", 3: "PortTaken", 4: "CommandNotFound"}
    assert docker.containers(node.folder) == []


async def test_ends_say_who_ended_them(node: Node) -> None:
    node.start(1, "sh", "-c", "x=a; while :; do x=$x$x; done")
    assert await node.outcome() == DriverStarted(run(1))
    hungry = await node.outcome()
    assert isinstance(hungry, DriverExited)
    assert (hungry.exit.reason, hungry.exit.message) == ("OutOfMemory", "it used more than its 16 MiB of memory")
    await node.runs(2)
    with docker.client() as client:
        client.kill(str(node.record(run(2))["id"]))
    struck = await node.outcome()
    assert isinstance(struck, DriverExited)
    assert (struck.exit.code, struck.exit.message) == (137, "ended by signal 9")
    await node.runs(3)
    with docker.client() as client:
        client.remove_container(str(node.record(run(3))["id"]), force=True)
    removed = await node.outcome()
    assert isinstance(removed, DriverExited)
    assert removed.exit.code in (137, -1)
    assert docker.containers(node.folder) == []


async def test_a_container_that_no_folder_knows_is_removed_before_anything_starts(node: Node, tmp_path: Path) -> None:
    await node.runs(1)
    node.driver.close()
    (known,) = (tmp_path / container_kill.FOLDER).iterdir()
    for file in known.iterdir():
        file.unlink()
    known.rmdir()
    later = Node(tmp_path)
    assert list(later.driver.adopt()) == []
    await later.runs(2)
    assert [c["Labels"]["atoll.run"] for c in docker.running(tmp_path)] == [str(run(2))]
    later.driver.close()


async def test_the_guard_kills_a_container_and_its_engine_forgets_it(node: Node, tmp_path: Path) -> None:
    await node.runs(1)
    node.driver.close()  # as a dead agent would
    late = {"runs": [[str(run(1)), 0]]}
    while await asyncio.to_thread(guard.enforce, tmp_path, late):  # noqa: ASYNC110 - that is how a guard works
        await asyncio.sleep(0.05)
    assert docker.containers(tmp_path) == []


async def test_the_guard_kills_through_the_cgroup_while_the_engine_hangs(engine: Dockerd, tmp_path: Path) -> None:
    node = Node(tmp_path, engine.socket)
    await node.runs(1)
    node.driver.close()
    container = str(node.record(run(1))["id"])
    assert container_kill.processes_of(container)
    engine.pause()
    try:
        late = {"runs": [[str(run(1)), 0]]}
        while container_kill.processes_of(container):
            assert await asyncio.to_thread(guard.enforce, tmp_path, late) == 1  # not believed before the engine answers
    finally:
        engine.resume()
    while await asyncio.to_thread(guard.enforce, tmp_path, late):  # noqa: ASYNC110 - that is how a guard works
        await asyncio.sleep(0.05)
    assert docker.containers(tmp_path, engine.socket) == []


async def test_a_hung_engine_stops_nothing_else_and_heals(engine: Dockerd, tmp_path: Path) -> None:
    node = Node(tmp_path, engine.socket, call_s=2.0)
    await node.runs(1)
    changes: asyncio.Queue[bool] = asyncio.Queue()
    node.driver.watch_engine(lambda: changes.put_nowait(node.driver.available))
    engine.pause()
    try:
        assert await changes.get() is False
        node.start(2, "sleep", "1000")
        refused = await node.outcome()
        assert isinstance(refused, DriverStartFailed)
        assert refused.reason.startswith("EngineDown: ")
        node.driver.stop(run(1), 100)
        stopped = await node.outcome()  # through its cgroup
        assert isinstance(stopped, DriverStopped)
        assert (stopped.run, stopped.exit.code) == (run(1), 137)
    finally:
        engine.resume()
    assert await changes.get() is True
    await node.runs(3)
    node.driver.stop(run(3), 100)
    assert isinstance(await node.outcome(), DriverStopped)
    node.driver.close()


async def test_a_start_without_an_answer_is_told_and_settled(engine: Dockerd, tmp_path: Path) -> None:
    node = Node(tmp_path, engine.socket, call_s=2.0)
    stopped = await node.runs(1)
    node.driver.stop(stopped, 100)
    assert isinstance(await node.outcome(), DriverStopped)
    with engine.deaf_below():
        started = node.start(2, "sleep", "1000")
        delayed = await node.next()
        assert isinstance(delayed, DriverDelayed)
        assert (delayed.run, delayed.reason.split(":")[0]) == (started, "EngineDown")
    assert await node.outcome() == DriverStarted(started)
    assert len(docker.running(tmp_path, engine.socket)) == 1
    node.driver.stop(started, 100)
    assert isinstance(await node.outcome(), DriverStopped)
    node.driver.close()


async def test_ends_over_an_engines_death_are_noticed_and_a_late_engine_is_waited_for(
    engine: Dockerd, tmp_path: Path
) -> None:
    node = Node(tmp_path, engine.socket)
    await node.runs(1)
    engine.kill()
    node.driver.close()
    later = Node(tmp_path, engine.socket)  # an agent that starts while there is no engine
    (found,) = later.driver.adopt()
    assert (found.run, found.exit) == (run(1), None)
    later.start(2, "sleep", "1000")
    refused = await later.outcome()
    assert isinstance(refused, DriverStartFailed)
    assert refused.reason.startswith("EngineDown: ")
    await asyncio.to_thread(engine.start)  # without live-restore it ends what it finds
    ended = await later.outcome()
    assert isinstance(ended, DriverExited)
    assert ended.run == run(1)
    await later.runs(3)
    later.driver.stop(run(3), 100)
    assert isinstance(await later.outcome(), DriverStopped)
    later.driver.close()
