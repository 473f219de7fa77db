"""Starts that an engine does not answer: told meanwhile, and settled by what the engine says when it is back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.config import DockerSettings
from agent.core.events import DriverDelayed, DriverStarted, DriverStartFailed
from agent.drivers.docker import DockerDriver
from agent.drivers.driver import Notice, RunSpec
from atoll.api.v1 import objects_pb2
from tests.support.agent_core import run
from tests.support.recording_engine import ID, RecordingEngine, answer_to

START, INSPECT = f"/containers/{ID}/start", ("GET", f"/containers/{ID}/json")
REMOVE = ("DELETE", f"/containers/{ID}")


class Node:
    """A driver on an engine that can fall silent, and what it says."""

    def __init__(self, folder: Path, engine: RecordingEngine) -> None:
        self.engine = engine
        self.notices: asyncio.Queue[Notice] = asyncio.Queue()
        settings = DockerSettings(socket=engine.socket, call_s=0.5, look_s=0.1)
        self.driver = DockerDriver(
            folder,
            self.notices.put_nowait,
            settings,
            node="n1",
            address="127.0.0.1",
            log_bytes=1 << 20,
            finished_runs=1,
        )

    def start(self) -> None:
        task = objects_pb2.Task(image="some/image:1", command=["true"])
        task.resources.requests.CopyFrom(objects_pb2.Resources(cpu_milli=500, memory_mib=16))
        self.driver.start(run(), RunSpec(task, ()))

    async def next(self) -> Notice:
        async with asyncio.timeout(20):
            return await self.notices.get()

    async def outcome(self) -> Notice:
        """The next that is no delay: on a busy machine one may be told again."""
        while isinstance(notice := await self.next(), DriverDelayed):
            pass
        return notice

    async def delayed(self) -> str:
        notice = await self.next()
        assert isinstance(notice, DriverDelayed)
        return notice.reason


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with RecordingEngine(tmp_path / "engine.sock") as engine:
        made = Node(tmp_path, engine)
        yield made
        made.driver.close()


async def test_it_was_heard_and_runs(node: Node) -> None:
    node.engine.silent = {START}
    node.start()
    assert (await node.delayed()).startswith("EngineDown: ")
    assert await node.outcome() == DriverStarted(run())


async def test_it_was_not_heard_and_is_removed_before_that_is_told(node: Node) -> None:
    _, inspected = answer_to(*INSPECT)
    node.engine.silent = {START}
    node.engine.instead = {INSPECT: (200, {**inspected, "State": {"Status": "created"}}), REMOVE: (204, None)}
    node.start()
    assert (await node.delayed()).startswith("EngineDown: ")
    failed = await node.outcome()
    assert isinstance(failed, DriverStartFailed)
    assert failed.reason.startswith("EngineDown: ")
    made = [r.path for r in node.engine.requests].index(START)
    assert REMOVE in [(r.method, r.path) for r in node.engine.requests[made:]]


async def test_nothing_is_told_before_its_container_is_removed(node: Node) -> None:
    _, inspected = answer_to(*INSPECT)
    node.engine.silent = {START}
    created = {**inspected, "State": {"Status": "created"}}
    node.engine.instead = {INSPECT: (200, created), REMOVE: (500, {"message": "busy"})}
    node.start()
    await node.delayed()
    while [(r.method, r.path) for r in node.engine.requests].count(REMOVE) < 2:  # noqa: ASYNC110 - it tries again
        await asyncio.sleep(0.05)
    told = [node.notices.get_nowait() for _ in range(node.notices.qsize())]
    assert all(isinstance(notice, DriverDelayed) for notice in told)
    node.engine.instead[REMOVE] = (204, None)
    assert isinstance(await node.outcome(), DriverStartFailed)


async def test_a_pull_is_told(node: Node) -> None:
    node.engine.instead = {("POST", "/containers/create"): (404, {"message": "No such image"})}
    node.start()
    assert await node.delayed() == "pulling some/image:1"
    failed = await node.outcome()
    assert isinstance(failed, DriverStartFailed)
    assert failed.reason.startswith("ImageMissing: some/image:1 ")


async def test_the_images_that_are_here_are_known(node: Node) -> None:
    changed = asyncio.Event()
    node.driver.watch_engine(changed.set)
    node.driver.adopt()
    async with asyncio.timeout(20):
        while not node.driver.images:
            await changed.wait()
            changed.clear()
    assert node.driver.images == ("some/image:1",)
