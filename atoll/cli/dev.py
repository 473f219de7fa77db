"""`dev`: a whole cluster on this machine, in the foreground; --once is the shortest way from a manifest to running."""

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import click

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import output, placement, verify, views, workloads
from atoll.cli.command import Command
from atoll.cli.dev_cluster import DevCluster
from atoll.cli.failure import EXIT_FAILED, EXIT_OBJECTIVE
from atoll.sdk import contexts
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection

Answer = TypeVar("Answer")
NAME = "dev"
TENANT = "default"
QUOTA = objects_pb2.Resources(cpu_milli=1_000_000, memory_mib=4 << 20, disk_mib=100 << 20, gpu_milli=100_000)
NODES_S = 60.0
LOOK_AGAIN_S = 0.2


@click.command(
    cls=Command,
    examples="""\
  atoll dev                                  until Ctrl-C; then everything is gone
  atoll dev --agents 5 --dir ./cluster       the data stays; start it again with the same --dir
  atoll dev --once -f examples/hello.yaml    manifest to running processes to verified, then stop
""",
)
@click.option("--regions", default=1, show_default=True, type=click.IntRange(1, 9))
@click.option("--agents", default=2, show_default=True, type=click.IntRange(1, 50), help="Nodes in each region.")
@click.option("--dir", "folder", default=None, type=click.Path(path_type=Path), help="Keep the data here.")
@click.option("--once", is_flag=True, help="Apply, wait, show, verify, stop; the exit code tells.")
@workloads.manifests(help="Manifests to apply when the cluster is up.")
def dev(regions: int, agents: int, folder: Path | None, once: bool, documents: list[manifest.Document]) -> None:
    """The ordinary programs and an etcd of their own, on free loopback ports. Needs no root and no network."""
    if once and not documents:
        raise click.UsageError("--once wants a manifest: -f examples/hello.yaml")
    home = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="atoll-dev-"))
    with _signals():
        cluster = DevCluster(home)
        try:
            connection = start(cluster, regions, agents)
            if documents:
                connected(connection, lambda client: _apply(client, documents))
            if once:
                sys.exit(_judge(cluster, connection, documents))
            _stay(cluster, connection)
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping is bounded; half of it would leave processes behind
            output.tell("stopping what was started")
            cluster.stop()
            if folder is None:
                shutil.rmtree(home, ignore_errors=True)
            else:
                output.tell(f"data is kept in {home}")


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM ends us as Ctrl-C does, and Ctrl-C does even where a shell started us with it ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in before:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def start(cluster: DevCluster, regions: int, agents: int) -> Connection:
    """Brings everything up; says each step. Returns how to connect as admin."""
    began = time.monotonic()
    output.tell(f"etcd {cluster.start_etcd()} at {cluster.etcd}")
    plane = cluster.start_global()
    address = plane.ready["programs"]
    output.tell(f"global plane at {address}, for people with a token at {plane.ready['people']}")
    admin = cluster.admin
    connection = Connection(
        address,
        ca=str(admin.ca),
        certificate=str(admin.certificate),
        key=str(admin.key),
        tenant=TENANT,
        etcd_endpoints=cluster.etcd,
    )
    names = [f"r{number}" for number in range(1, regions + 1)]
    started = {name: cluster.start_region(name, address) for name in names}
    connected(connection, _regions_active(names))
    for name, program in started.items():
        output.tell(f"region {name} at {program.ready['programs']}")
        nodes = [f"{name}-n{number}" for number in range(1, agents + 1)]
        cluster.start_agents(program, connected(connection, _join_tokens(name, nodes)))
        connected(connection, _nodes_ready(name, agents))
        output.tell(f"nodes {', '.join(nodes)}, process driver")
    connected(connection, _create_tenant)
    output.tell(f"up in {time.monotonic() - began:.1f} s; logs in {cluster.folder / 'logs'}")
    return connection


def connected(connection: Connection, action: Callable[[AsyncClient], Awaitable[Answer]]) -> Answer:
    """Runs one action over a connection of its own."""

    async def run() -> Answer:
        async with AsyncClient(
            connection.address,
            ca=connection.ca,
            certificate=connection.certificate,
            key=connection.key,
            tenant=connection.tenant,
        ) as client:
            return await action(client)

    return asyncio.run(run())


def _join_tokens(region: str, nodes: list[str]) -> Callable[[AsyncClient], Awaitable[dict[str, str]]]:
    async def create(client: AsyncClient) -> dict[str, str]:
        answers = [await client.tokens.create_join(region=region, pool=NAME, node=node, ttl_s=600) for node in nodes]
        return {node: answer.token for node, answer in zip(nodes, answers, strict=True)}

    return create


async def _create_tenant(client: AsyncClient) -> None:
    tenant = objects_pb2.Tenant(metadata=objects_pb2.Metadata(name=TENANT))
    tenant.spec.quota.CopyFrom(QUOTA)
    await client.tenants.apply(tenant)


def _regions_active(names: list[str]) -> Callable[[AsyncClient], Awaitable[None]]:
    async def wait(client: AsyncClient) -> None:
        async def all_active() -> bool:
            active = objects_pb2.REGION_STATE_ACTIVE
            return {r.metadata.name for r in await client.regions.list() if r.state == active} >= set(names)

        await _until(all_active, "the regions did not register with the global plane")

    return wait


def _nodes_ready(region: str, count: int) -> Callable[[AsyncClient], Awaitable[None]]:
    async def wait(client: AsyncClient) -> None:
        async def all_ready() -> bool:
            nodes = await client.nodes.list(region=region)
            return sum(node.state == objects_pb2.NODE_STATE_READY for node in nodes) >= count

        await _until(all_ready, f"the nodes of {region} did not all become ready")

    return wait


async def _until(holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + NODES_S
    while not await holds():
        if loop.time() > deadline:
            raise errors.Unavailable(otherwise, hint="look into the logs")
        await asyncio.sleep(LOOK_AGAIN_S)


async def _apply(client: AsyncClient, documents: list[manifest.Document]) -> None:
    applied = await workloads.apply_documents(client, documents, "", False, "name")
    for one in applied:
        await workloads.wait_for(client, one.workload, "", 120.0)


def _judge(cluster: DevCluster, connection: Connection, documents: list[manifest.Document]) -> int:
    """Shows what runs and why there, then lets the auditor replay the store. The exit code."""
    names = [d.message.metadata.name for d in documents if isinstance(d.message, objects_pb2.Workload)]

    async def show(client: AsyncClient) -> None:
        output.write("\n" + output.render(views.WORKLOADS, await client.workloads.list(), "wide") + "\n")
        for name in names:
            output.write(output.render(views.SLOTS, await client.slots.list(workload=name), "table") + "\n")
            for answer in await client.slots.why(name, index=0):
                output.write("".join(line + "\n" for line in placement.explain(answer)) + "\n")

    connected(connection, show)
    verdict = asyncio.run(verify.audit_store((cluster.etcd,)))
    verify.show(verdict)
    return EXIT_OBJECTIVE if verdict.violations else 0


def _stay(cluster: DevCluster, connection: Connection) -> None:
    """In the foreground, with a context of its own, until Ctrl-C or until a program ends by itself."""
    before = contexts.load()
    path = contexts.save(contexts.with_context(before, NAME, connection))
    output.tell(
        f"context {NAME!r} in {path} is the current one\n"
        "Try   atoll status\n"
        "      atoll run hello --replicas 3 -- sh -c 'while true; do date; sleep 1; done'\n"
        "      atoll why hello\n"
        "      atoll verify\n"
        "Ctrl-C stops everything"
    )
    try:
        while (ended := cluster.dead()) is None:
            time.sleep(LOOK_AGAIN_S)
        output.tell(f"{ended.name} ended with code {ended.process.returncode}; its log is {ended.log}")
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    finally:
        _forget(connection, before)


def _forget(connection: Connection, before: contexts.Contexts) -> None:
    """Takes our context out again, and makes the one before it the current one."""
    now = contexts.load()
    if now.named.get(NAME) != connection:
        return
    named = {name: it for name, it in now.named.items() if name != NAME}
    if NAME in before.named:
        named[NAME] = before.named[NAME]
    contexts.save(replace(now, named=named, current=before.current if now.current == NAME else now.current))
