"""`dev`: a whole cluster on this machine, in the foreground; --once is the shortest way from a manifest to running."""

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import click

from atoll import manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import containers, output, placement, playground, verify, views, workloads
from atoll.cli.command import Command
from atoll.cli.dev_cluster import DevCluster
from atoll.cli.failure import EXIT_OBJECTIVE
from atoll.sdk import contexts
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection

NAME = "dev"
LOOK_AGAIN_S = 0.2
AGENT_BACK_S = 30.0  # long enough to see its node lost and its work placed elsewhere
OTHERS_BACK_S = 3.0


processes_only = click.option("--processes", is_flag=True, help="No containers, even where an engine answers.")


def runs(image: str, without: str) -> str:
    """How replicas run, for people."""
    return f"which run containers of {image}, built from scratch" if image else f"which run processes ({without})"


@click.command(
    cls=Command,
    examples="""\
  atoll dev                                  until Ctrl-C; then everything is gone
  atoll dev --regions 1 --agents 2 --bare    a small one with nothing on it
  atoll dev --standbys --dir ./cluster       the data stays; start it again with the same --dir
  atoll dev --once -f examples/hello.yaml    manifest to running processes to verified, then stop
""",
)
@click.option("--regions", default=3, show_default=True, type=click.IntRange(1, len(playground.REGIONS)))
@click.option("--agents", default=3, show_default=True, type=click.IntRange(1, 50), help="Nodes in each region.")
@click.option("--standbys", is_flag=True, help="A second candidate for the global plane and for each region.")
@click.option("--bare", is_flag=True, help="Without the founding platform of examples/platform.")
@processes_only
@click.option("--dir", "folder", default=None, type=click.Path(path_type=Path), help="Keep the data here.")
@click.option("--once", is_flag=True, help="Apply, wait, show, verify, stop; the exit code tells.")
@workloads.manifests(help="Manifests to apply when the cluster is up, instead of the founding platform.")
def dev(
    regions: int,
    agents: int,
    standbys: bool,
    bare: bool,
    processes: bool,
    folder: Path | None,
    once: bool,
    documents: list[manifest.Document],
) -> None:
    """The ordinary programs and an etcd of their own, on free loopback ports. Needs no root and no network."""
    if once and not documents:
        raise click.UsageError("--once wants a manifest: -f examples/hello.yaml")
    platform = not documents and not bare
    if platform:
        documents = workloads.read_manifests([str(playground.platform())])
    image, without = ("", "as asked") if processes else containers.image()
    with running(folder, regions=regions, standbys=standbys) as cluster:
        began = time.monotonic()
        output.tell(f"starting etcd, the global plane and {', '.join(cluster.regions)} with {agents} nodes each")
        version = playground.start(cluster, agents, driver="auto" if image else "process")
        output.tell(
            f"up in {time.monotonic() - began:.1f} s: etcd {version} at {' '.join(cluster.etcd)}; "
            f"{regions * agents} nodes, {runs(image, without)}; logs in {cluster.folder / 'logs'}"
        )
        if documents:
            if image and platform:
                documents = containers.in_containers(documents, image)
            playground.connected(cluster.connection, lambda client: apply_all(client, documents))
        if once:
            sys.exit(_judge(cluster, documents))
        stay(cluster, _first_steps(cluster))


@contextlib.contextmanager
def running(
    folder: Path | None, *, regions: int, standbys: bool, region_settings: Mapping[str, Any] | None = None
) -> Iterator[DevCluster]:
    """A cluster that nothing was started of; at the end, however it comes, nothing of it is left running."""
    home = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="atoll-dev-"))
    with _signals():
        cluster = None
        try:
            names = playground.REGIONS[:regions]
            cluster = DevCluster(home, names, candidates=1 + standbys, region_settings=region_settings)
            yield cluster
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # stopping is bounded; half of it would leave processes behind
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if cluster is not None:  # also with no program: one may have been started in this very moment
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


async def apply_all(client: AsyncClient, documents: list[manifest.Document]) -> None:
    """Applies, and waits until all of it serves; of jobs, until they have started."""
    applied = await workloads.apply_documents(client, documents, "", False, "name")
    for one in applied:
        await workloads.wait_for(client, one.workload, "", 120.0)


def _judge(cluster: DevCluster, documents: list[manifest.Document]) -> int:
    """Shows what runs and why there, then lets the auditor replay the store. The exit code."""
    found = [d.message.metadata for d in documents if isinstance(d.message, objects_pb2.Workload)]

    async def show(client: AsyncClient) -> None:
        listed = await client.workloads.list(everywhere=True)
        output.write("\n" + output.render(views.WORKLOADS_OF_ALL, listed, "wide") + "\n")
        for one in found:
            for region in cluster.regions:
                slots = await client.slots.list(workload=one.name, tenant=one.tenant, region=region)
                if not slots:
                    continue
                output.write(output.render(views.SLOTS, slots, "table") + "\n")
                first = slots[0].slot.id
                answers = await client.slots.why(
                    one.name, task=first.task, index=first.index, tenant=one.tenant, region=region
                )
                for answer in answers:
                    output.write("".join(line + "\n" for line in placement.explain(answer)) + "\n")

    playground.connected(cluster.connection, show)
    verdict = asyncio.run(verify.audit_store(cluster.etcd))
    verify.show(verdict)
    return EXIT_OBJECTIVE if verdict.violations else 0


def _first_steps(cluster: DevCluster) -> list[str]:
    victim = min(cluster.agents)
    return [
        "atoll status",
        "atoll get workloads -A",
        "atoll run hello --replicas 3 -- sh -c 'while true; do date; sleep 1; done'",
        "atoll why hello",
        f"kill -9 {cluster.named(victim).process.pid}       the agent of {victim}; then atoll get slots -A -w",
        "atoll verify",
    ]


def stay(cluster: DevCluster, tips: Sequence[str]) -> None:
    """In the foreground, with a context of its own, until Ctrl-C."""
    connection = cluster.connection
    before = contexts.load()
    path = contexts.save(contexts.with_context(before, NAME, connection))
    output.tell(f"context {NAME!r} in {path} is the current one")
    for number, tip in enumerate(tips):
        output.tell(f"{'     ' if number else 'Try  '} {tip}")
    output.tell("Ctrl-C stops everything")
    try:
        _tend(cluster)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
    finally:
        _forget(connection, before)


def _tend(cluster: DevCluster) -> NoReturn:
    """What ends by itself, or by your hand, is started again after a while, as an init system would."""
    due: dict[str, float] = {}
    while True:
        for program in cluster.ended():
            if program.name not in due:
                pause_s = AGENT_BACK_S if program.name in cluster.agents else OTHERS_BACK_S
                due[program.name] = time.monotonic() + pause_s
                code = program.process.returncode
                output.tell(f"{program.name} ended with code {code}; it is started again in {pause_s:.0f} s")
            elif time.monotonic() >= due[program.name]:
                del due[program.name]
                cluster.relaunch(program.name)
                output.tell(f"{program.name} is started again; its log is {program.log}")
        time.sleep(LOOK_AGAIN_S)


def _forget(connection: Connection, before: contexts.Contexts) -> None:
    """Takes our context out again, and makes the one before it the current one."""
    now = contexts.load()
    if now.named.get(NAME) != connection:
        return
    named = {name: it for name, it in now.named.items() if name != NAME}
    if NAME in before.named:
        named[NAME] = before.named[NAME]
    contexts.save(replace(now, named=named, current=before.current if now.current == NAME else now.current))
