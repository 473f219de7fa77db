"""An image, from a manifest to containers and back: killed from outside, left by their agent, adopted, deleted; and
what users see of an image that is not there, a name that is none, and a port that is taken, until the cause is gone.

On the machine's own engine; every container there is known by the cluster's folder.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.cli.children import Program
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support import docker
from tests.support.cluster import Cluster
from tests.support.commandline import serves, told
from tests.support.etcd import free_ports

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.etcd, pytest.mark.docker, pytest.mark.timeout(180)]


class Containers(Cluster):
    """One region, one node, whose agent runs containers and processes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, agents=1)

    def _launch(self, name: str, module: str, settings: dict[str, Any]) -> Program:
        changed = {"driver": "auto"} if module == "agent" else {}
        return super()._launch(name, module, settings | changed)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    docker.image()
    folder = tmp_path_factory.mktemp("containers")
    try:
        with Containers(folder) as made:
            yield made
    finally:
        docker.remove_all(folder)


@pytest.fixture
async def client(cluster: Containers) -> AsyncIterator[AsyncClient]:
    async with cluster.client() as made:
        yield made


def workload(name: str, script: str, *, image: str = "", more: str = "") -> objects_pb2.Workload:
    text = f"""
apiVersion: atoll/v1
kind: Workload
metadata: {{name: {name}}}
spec:
  task:
    image: {image or docker.image()}
    command: [sh, -c]
    args: ['{script}']
    resources: {{cpu: 200m, memory: 16Mi}}
    restart: {{backoff: 100ms}}
    terminationGrace: 2s
{more}
"""
    (document,) = manifest.parse(text, "test")
    assert isinstance(document.message, objects_pb2.Workload)
    return document.message


async def until(holds: Callable[[], Any], what: str, deadline_s: float = 60.0) -> Any:
    end = time.monotonic() + deadline_s
    while not (found := (await answer if asyncio.iscoroutine(answer := holds()) else answer)):
        assert time.monotonic() < end, what
        await asyncio.sleep(0.1)
    return found


async def test_an_image_becomes_a_container_that_outlives_everybody(cluster: Containers, client: AsyncClient) -> None:
    (port,) = free_ports(1)
    publish = f"    ports: [{{name: http, number: {port}}}]\n"
    probe = f"    readiness: {{http: {{port: {port}, path: /index.html}}}}"
    web = workload(
        "web",
        f"echo hello from $ATOLL_SLOT; echo well > /tmp/index.html; exec httpd -f -p {port} -h /tmp",
        more=publish + probe,
    )
    await client.workloads.apply(web)
    await until(lambda: serving(client, "web", 1), "it does not serve")
    (first,) = docker.running(cluster.folder)
    assert first["Labels"]["atoll.slot"] == "default/web/main/0"

    with docker.client() as engine:
        engine.kill(first["Id"])
    restarted = await until(lambda: [c for c in docker.running(cluster.folder) if c["Id"] != first["Id"]], "no restart")
    await until(lambda: serving(client, "web", 1), "it does not serve again")

    (agent,) = cluster.agents
    cluster.kill(agent)
    cluster.restart(agent)
    await until(lambda: serving(client, "web", 1), "it is not adopted")
    assert [c["Id"] for c in docker.running(cluster.folder)] == [c["Id"] for c in restarted]

    assert await until(lambda: output(client, "web"), "no logs") == 2 * b"hello from default/web/main/0\n"  # both lives

    await client.workloads.delete("web")
    await until(lambda: not docker.containers(cluster.folder), "something is left")
    assert not (await cluster.verdict()).violations


async def serving(client: AsyncClient, name: str, count: int) -> bool:
    return (await client.workloads.get(name)).status.counts.serving == count


async def output(client: AsyncClient, name: str) -> bytes:
    try:
        return b"".join([part async for part in client.slots.logs(name)])
    except errors.Unavailable:  # the agent is not back yet
        return b""


async def test_what_keeps_a_container_from_starting(cluster: Containers, client: AsyncClient) -> None:
    missing, sleep = f"atoll-test.invalid/missing:{cluster.folder.name}", "exec sleep 1000"
    with contextlib.ExitStack() as stack:
        await client.workloads.apply(workload("missing", sleep, image=missing))
        await client.workloads.apply(workload("none", sleep, image="NOT-A-NAME"))
        await told(cluster, "missing", "ImageMissing", missing)
        await told(cluster, "none", "ImageInvalid", "'NOT-A-NAME' is not the name of an image")
        (port,) = free_ports(1)
        with socket.socket() as taken:  # at every address; nobody listens there
            taken.bind(("", port))
            ports = f"    ports: [{port}]"
            await client.workloads.apply(workload("taken", f"exec httpd -f -p {port}", more=ports))
            await told(cluster, "taken", "PortTaken", f"a port of {port} is taken on this node")
        assert not docker.containers(cluster.folder), "nothing of them is left between two tries"
        with docker.client() as engine:
            engine.tag(docker.image(), missing)
        stack.callback(untag, missing)
        mended = await client.workloads.get("none")
        mended.spec.tasks[0].image = docker.image()
        await client.workloads.apply(mended)
        for name in ("missing", "none", "taken"):
            await serves(client, name)
            await client.workloads.delete(name)
        await until(lambda: not docker.containers(cluster.folder), "something is left")
    assert not (await cluster.verdict()).violations


def untag(image: str) -> None:
    with docker.client() as engine:
        engine.remove_image(image, noprune=True)


async def test_a_container_that_takes_too_much_memory(cluster: Containers, client: AsyncClient) -> None:
    hungry = workload("hungry", "x=a; while :; do x=$x$x; done")
    await client.workloads.apply(hungry)
    await told(cluster, "hungry", "OutOfMemory", "it used more than its 16 MiB of memory")
    hungry.spec.tasks[0].args[:] = ["exec sleep 1000"]
    await client.workloads.apply(hungry)
    await serves(client, "hungry")
    await client.workloads.delete("hungry")
    await until(lambda: not docker.containers(cluster.folder), "something is left")


async def test_both_drivers_run_side_by_side(cluster: Containers, client: AsyncClient) -> None:
    process = workload("plain", "exec sleep 1000")
    process.spec.tasks[0].image = ""
    await client.workloads.apply(process)
    await client.workloads.apply(workload("boxed", "exec sleep 1000"))
    for name in ("plain", "boxed"):
        await until(lambda name=name: serving(client, name, 1), f"{name} does not serve")
    assert [c["Labels"]["atoll.slot"] for c in docker.running(cluster.folder)] == ["default/boxed/main/0"]
    for name in ("plain", "boxed"):
        await client.workloads.delete(name)
    await until(lambda: not docker.containers(cluster.folder), "something is left")


async def test_the_example_serves_and_so_does_what_run_makes(cluster: Containers, client: AsyncClient) -> None:
    (document,) = manifest.parse((ROOT / "examples/container.yaml").read_bytes(), "container.yaml")
    assert isinstance(document.message, objects_pb2.Workload)
    assert document.message.spec.tasks[0].image == docker.image()
    await client.workloads.apply(document.message)
    script = "echo well > /tmp/well; exec httpd -f -p 8080 -h /tmp"
    spec = Workload(
        name="ran", image=docker.image(), command=("sh", "-c", script), cpu="50m", memory="16Mi", http="8080/well"
    )
    await client.workloads.apply(spec)
    await until(lambda: serving(client, "box", 2), "the example does not serve")
    await until(lambda: serving(client, "ran", 1), "what run makes does not serve")
    for name in ("box", "ran"):
        await client.workloads.delete(name)
    await until(lambda: not docker.containers(cluster.folder), "something is left")
    assert not (await cluster.verdict()).violations
