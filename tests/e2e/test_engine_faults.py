"""An engine that hangs, dies and comes back below a whole cluster: everything serves again, and nothing runs twice.

The engine is the test's own, in a network of its own: no port of its containers is reached, so readiness is a command.
"""

import asyncio
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.drivers.container_kill import processes_of
from agent.drivers.proc import RUN_VARIABLE
from atoll import errors
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.cli import scratch_image
from atoll.cli.children import STATE_VARIABLE, Program
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support import docker
from tests.support.cluster import Cluster
from tests.support.dockerd import Dockerd

pytestmark = [pytest.mark.etcd, pytest.mark.docker, pytest.mark.timeout(240)]
REGION, AGENTS = "r1", 2
HANGS_S = 10.0
PROBED, PLAIN = "probed", "plain"


class OnEngine(Cluster):
    """Agents that run containers in this engine, and count it as down when it is silent for two seconds."""

    def __init__(self, folder: Path, engine: Path) -> None:
        super().__init__(folder, (REGION,), agents=AGENTS)
        self._settings = {"driver": "auto", "docker.socket": str(engine), "docker.call_s": 2.0, "docker.look_s": 0.5}

    def _launch(self, name: str, module: str, settings: dict[str, Any]) -> Program:
        changed = self._settings if module == "agent" else {}
        return super()._launch(name, module, settings | changed)


@pytest.fixture(scope="module")
def engine() -> Iterator[Dockerd]:
    with Dockerd() as made:
        scratch_image.build(made.socket)
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, engine: Dockerd) -> Iterator[OnEngine]:
    folder = tmp_path_factory.mktemp("engine")
    try:
        with OnEngine(folder, engine.socket) as made:
            yield made
    finally:
        docker.remove_all(folder, engine.socket)


@pytest.fixture
async def client(cluster: OnEngine) -> AsyncIterator[AsyncClient]:
    async with cluster.client() as made:
        yield made


class Overlaps:
    """Watches the processes for two runs of one slot at the same moment."""

    PERIOD_S = 0.2

    def __init__(self, folder: Path) -> None:
        self._below = str(folder.resolve())
        self.seen: dict[str, set[str]] = {}

    def runs(self) -> dict[str, set[str]]:
        """Of each slot, whatever runs of it are alive."""
        found = defaultdict(set)
        for name in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                entries = Path(f"/proc/{name}/environ").read_bytes().split(b"\0") if name.isdecimal() else []
                said = dict(entry.decode(errors="replace").partition("=")[::2] for entry in entries)
                if RUN_VARIABLE in said and said.get(STATE_VARIABLE, "").startswith(self._below):
                    found[said["ATOLL_SLOT"]].add(said[RUN_VARIABLE])
        return dict(found)

    async def watch(self) -> None:
        while True:
            twice = {slot: runs for slot, runs in (await asyncio.to_thread(self.runs)).items() if len(runs) > 1}
            if twice:  # one look takes a while: the first may have ended before the second began
                again = await asyncio.to_thread(self.runs)
                self.seen |= {slot: runs for slot, runs in twice.items() if runs <= again.get(slot, set())}
            await asyncio.sleep(self.PERIOD_S)


@pytest.fixture
async def overlaps(cluster: OnEngine) -> AsyncIterator[Overlaps]:
    made = Overlaps(cluster.folder)
    task = asyncio.create_task(made.watch())
    yield made
    task.cancel()


async def until(holds: Callable[[], Awaitable[Any]], what: str, deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not await holds():
        assert time.monotonic() < end, what
        await asyncio.sleep(0.1)


def workload(name: str, replicas: int) -> objects_pb2.Workload:
    command = ("sh", "-c", "touch /tmp/ready; exec sleep 100000")
    image = scratch_image.TAG
    spec = Workload(name=name, image=image, command=command, replicas=replicas, cpu="50m", memory="16Mi").to_proto()
    (task,) = spec.spec.tasks
    task.restart.backoff_ms = 100
    task.termination_grace_s = 2
    if name == PROBED:
        task.readiness.command.command.extend(["test", "-f", "/tmp/ready"])
        task.readiness.interval_ms = 500
        task.liveness.CopyFrom(task.readiness)  # cannot be asked while the engine is silent: that is no failure
    return spec


async def all_serve(client: AsyncClient, cluster: OnEngine, engine: Dockerd, plain: int) -> list[str]:
    """Waits until all do, each in one container and nothing besides; their ids."""

    async def serve() -> bool:
        counts = [(await client.workloads.get(name)).status.counts for name in (PLAIN, PROBED)]
        return [(c.serving, c.desired) for c in counts] == [(plain, plain), (2, 2)]

    async def clean() -> bool:
        kept = await asyncio.to_thread(docker.containers, cluster.folder, engine.socket)
        return len(kept) == plain + 2 and all(container["State"] == "running" for container in kept)

    await until(serve, "not all serve")
    await until(clean, "there are other containers than those that serve")
    running = docker.running(cluster.folder, engine.socket)
    slots = {container["Labels"]["atoll.slot"] for container in running}
    assert len(slots) == plain + 2, slots
    return sorted(container["Id"] for container in running)


async def says_no_engine(client: AsyncClient, index: int) -> bool:
    """Whether the replica that cannot start tells it, as the one who asks why and the one who lists replicas see it."""
    try:
        (why,) = await client.slots.why(PLAIN, index=index)
    except errors.NotFound:  # the region has not heard of it yet
        return False
    listed = await client.slots.list(workload=PLAIN)
    attempt = next((view.attempt for view in listed if view.slot.id.index == index), agent_pb2.AttemptStatus())
    waits = [reason.code for reason in why.reasons]
    return "DriverMissing" in waits or attempt.message.startswith("EngineDown: ")


@pytest.fixture
async def before(
    cluster: OnEngine, client: AsyncClient, engine: Dockerd, overlaps: Overlaps
) -> AsyncIterator[list[str]]:
    """Both workloads serve; the ids of their containers. At the end nothing is left, and nothing ran twice."""
    await client.workloads.apply(workload(PLAIN, 3))
    await client.workloads.apply(workload(PROBED, 2))
    yield await all_serve(client, cluster, engine, 3)
    for name in (PLAIN, PROBED):
        deleted = await client.workloads.get(name)
        await client.workloads.delete(name)
        await client.workloads.wait(deleted, until="deleted", timeout=60.0)

    async def nothing() -> bool:
        return not await asyncio.to_thread(docker.containers, cluster.folder, engine.socket)

    await until(nothing, "something is left")
    assert not overlaps.seen
    assert not (await cluster.verdict()).violations


async def test_an_engine_that_hangs(cluster: OnEngine, client: AsyncClient, engine: Dockerd, before: list[str]) -> None:
    engine.pause()
    began = time.monotonic()
    try:
        await client.workloads.scale(PLAIN, 4)
        await until(lambda: says_no_engine(client, 3), "nothing tells that the engine hangs", 30.0)
        while time.monotonic() < began + HANGS_S:
            assert all(processes_of(container) for container in before), "a container ended with its engine silent"
            nodes = await client.nodes.list(region=REGION)
            assert {node.state for node in nodes} == {objects_pb2.NODE_STATE_READY}
            serving = [(await client.workloads.get(name)).status.counts.serving for name in (PLAIN, PROBED)]
            assert serving == [3, 2]
            await asyncio.sleep(0.5)
    finally:
        engine.resume()
    assert set(before) < set(await all_serve(client, cluster, engine, 4))  # nothing was restarted


async def test_an_engine_that_dies(cluster: OnEngine, client: AsyncClient, engine: Dockerd, before: list[str]) -> None:
    engine.kill()
    await client.workloads.scale(PLAIN, 4)
    await until(lambda: says_no_engine(client, 3), "nothing tells that there is no engine", 30.0)
    assert {node.state for node in await client.nodes.list(region=REGION)} == {objects_pb2.NODE_STATE_READY}
    await asyncio.to_thread(engine.start)
    after = await all_serve(client, cluster, engine, 4)
    assert not set(before) & set(after)  # without live-restore it ends what it finds
