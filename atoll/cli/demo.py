"""`demo`: Atoll in about a minute. The founding platform on three regions, a node that dies, the proof.

What is shown is measured while it happens, through the API that users have; the exit code is 0 only if all of it held.
"""

import asyncio
import sys
import urllib.request
from collections import Counter
from collections.abc import Sequence

import click

from atoll import audit, errors, manifest
from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.cli import containers, dev, output, placement, playground, verify, views, workloads
from atoll.cli.command import Command
from atoll.cli.dev_cluster import DevCluster
from atoll.cli.failure import EXIT_FAILED, EXIT_OBJECTIVE
from atoll.cli.simulated import show as show_simulated
from atoll.cli.story import Story
from atoll.sdk.client import AsyncClient
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import prefix_end

REGIONS, AGENTS = 3, 3
SERVES_S, REPLACED_S, CLEARED_S = 120.0, 60.0, 60.0
LOOK_AGAIN_S = 0.1
ASKED_S = 2.0
SHOWN = "risk-api"  # looked at closely, and struck
TENANT = "payments"
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@click.command(
    cls=Command,
    examples="""\
  atoll demo
  atoll demo --standbys              with a second candidate for every control plane
  atoll demo --simulated 10000       ten thousand nodes behind the real programs; stays until Ctrl-C
  atoll demo --simulated 300 --standbys --regions 1 --once
  atoll dev                          the demo's cluster, for as long as you like
""",
)
@dev.processes_only
@click.option("--standbys", is_flag=True, help="A second candidate for the global plane and for each region.")
@click.option(
    "--simulated",
    type=click.IntRange(1, 30_000),
    metavar="NODES",
    help="Show so many simulated nodes instead; --standbys goes with it too.",
)
@click.option("--regions", type=click.IntRange(1, 9), help=f"With --simulated; {REGIONS} else.")
@click.option("--once", is_flag=True, help="With --simulated: do not stay.")
def demo(processes: bool, standbys: bool, simulated: int | None, regions: int | None, once: bool) -> None:
    """Atoll in about a minute: three regions, five workloads, a node that dies, and the proof.

    Everything runs on this machine, and nothing of it is left at the end. Ctrl-C is safe at any moment.
    """
    if simulated and processes:
        raise click.UsageError("--processes goes without --simulated: on simulated nodes nothing really runs")
    if not simulated and (regions or once):
        raise click.UsageError("--regions and --once go with --simulated; atoll dev takes them too")
    if simulated:
        show_simulated(simulated, regions or REGIONS, standbys, once)
    else:
        _show(standbys, processes)


def _show(standbys: bool, processes: bool) -> None:
    documents = workloads.read_manifests([str(playground.platform())])
    image, without = ("", "as asked") if processes else containers.image()
    if image:
        documents = containers.in_containers(documents, image)
    story = Story()
    story.title("Atoll: three regions on this machine, with real etcd, real programs and TLS between them")
    with dev.running(None, regions=REGIONS, standbys=standbys) as cluster:
        story.chapter("1  A cluster", "atoll dev")
        playground.start(cluster, AGENTS, driver="auto" if image else "process", seen=story.line)
        story.detail(f"{dev.runs(image, without)}{'; every control plane has a standby' if standbys else ''}")
        story.detail(f"etcd at {' '.join(cluster.etcd)}; logs in {cluster.folder / 'logs'}")
        playground.connected(cluster.connection, lambda client: _platform(client, cluster, story, documents))
        verdict = _prove(cluster, story)
    _end(story, verdict)
    sys.exit(EXIT_OBJECTIVE if verdict.violations else 0)


async def _platform(
    client: AsyncClient, cluster: DevCluster, story: Story, documents: Sequence[manifest.Document]
) -> None:
    story.chapter("2  Five workloads of four tenants, and one that runs at night", "atoll apply -f examples/platform")
    await _apply(client, story, documents)
    story.chapter("3  They answer", "atoll get slots risk-api -t payments; atoll logs risk-api/0 -t payments")
    await _ask(client, story, documents)
    story.chapter("4  Why there?", f"atoll why {SHOWN}/0 -t {TENANT}")
    (answer, *_) = await client.slots.why(SHOWN, index=0, tenant=TENANT)
    for line in placement.explain(answer):
        story.detail(line)
    await _strike(client, cluster, story)


# ---- 2 and 3: the platform serves


async def _apply(client: AsyncClient, story: Story, documents: Sequence[manifest.Document]) -> None:
    wanted = []
    for document in sorted(documents, key=lambda document: document.kind != "Tenant"):
        if isinstance(document.message, objects_pb2.Tenant):
            await client.tenants.apply(document.message)
        elif isinstance(document.message, objects_pb2.Workload):
            wanted.append((await client.workloads.apply(document.message)).workload)

    async def tell(workload: objects_pb2.Workload) -> None:
        job = workload.spec.type == objects_pb2.WORKLOAD_TYPE_JOB
        scheduled = workload.spec.HasField("schedule")
        stage = "admitted" if scheduled else "done" if job else "serving"
        now = await client.workloads.wait(workload, until=stage, timeout=SERVES_S)
        counts = now.status.counts
        count, word = (counts.succeeded, "done") if job else (counts.serving, "serving")
        where = " · ".join(f"{part.region} {part.counts.desired}" for part in now.status.regions if part.counts.desired)
        priority = views.enum(now.spec.priority, objects_pb2.Priority)
        name, tenant = now.metadata.name, now.metadata.tenant
        if scheduled:
            story.line(f"{name:<13} {tenant:<10} {priority:<12} runs at {now.spec.schedule.cron}")
            return
        story.line(f"{name:<13} {tenant:<10} {priority:<12} {count}/{counts.desired} {word:<8} {where}")

    await asyncio.gather(*(tell(workload) for workload in wanted))


async def _ask(client: AsyncClient, story: Story, documents: Sequence[manifest.Document]) -> None:
    """One replica of each workload that has a port: where it says it serves, and what it answers there."""
    for document in documents:
        message = document.message
        if not isinstance(message, objects_pb2.Workload) or not message.spec.tasks[0].ports:
            continue
        name, tenant = message.metadata.name, message.metadata.tenant
        view = (await client.slots.list(workload=name, tenant=tenant))[0]
        slot = view.slot.id
        log = client.slots.logs(name, index=slot.index, task=slot.task, tenant=tenant, region=_region(view.slot.node))
        said = b"".join([chunk async for chunk in log]).decode(errors="replace")
        url = next((word for word in said.split() if word.startswith("http://")), "")
        if not url:
            raise errors.Unavailable(f"{views.slot_text(slot)} does not say where it serves", hint="atoll logs")
        body = await asyncio.to_thread(_get, url)
        story.detail(f"{url:<30} 200  {body}")


def _get(url: str) -> str:
    """The first line of the page. Raises Unavailable."""
    try:
        with _NO_PROXY.open(url, timeout=ASKED_S) as answer:
            return str(answer.readline(200).decode(errors="replace").strip())
    except OSError as error:
        raise errors.Unavailable(f"{url} does not answer: {error}") from error


# ---- 5: a node dies


async def _strike(client: AsyncClient, cluster: DevCluster, story: Story) -> None:
    """kill -9 of the agent with most replicas of SHOWN; its work is placed elsewhere; it comes back and cleans up."""
    before = await client.slots.list(workload=SHOWN, tenant=TENANT)
    (victim, _), *_ = Counter(view.slot.node for view in before).most_common(1)
    region = _region(victim)
    struck = {_key(view) for view in before if view.slot.node == victim}
    agent = cluster.named(victim).process
    story.chapter(f"5  A node dies: the agent of {victim}", f"kill -9 {agent.pid}")
    agent.kill()
    agent.wait()
    story.restart()
    story.line(f"replicas of {SHOWN} on it: {len(struck)}; they run on, but nobody answers for them")

    async def state_is(*states: objects_pb2.NodeState.ValueType) -> bool:
        nodes = await client.nodes.list(region=region)
        return any(node.metadata.name == victim and node.state in states for node in nodes)

    async def replaced() -> bool:
        views_ = await client.slots.list(workload=SHOWN, tenant=TENANT, region=region)
        elsewhere = [view for view in views_ if _key(view) in struck and view.slot.node != victim]
        return len(elsewhere) == len(struck) and all(view.attempt.ready for view in elsewhere)

    suspect, lost = objects_pb2.NODE_STATE_SUSPECT, objects_pb2.NODE_STATE_LOST
    await _until(lambda: state_is(suspect, lost), "the node is not suspected", REPLACED_S)
    story.line("suspect: it gets no new work")
    await _until(lambda: state_is(lost), "the node does not count as lost", REPLACED_S)
    story.line("lost: its replicas are bound to other nodes")
    await _until(replaced, "the replicas are not ready elsewhere", REPLACED_S)
    now = await client.slots.list(workload=SHOWN, tenant=TENANT, region=region)
    where = Counter(view.slot.node for view in now if _key(view) in struck)
    story.line("ready again, on " + ", ".join(f"{node} ({count})" for node, count in sorted(where.items())))
    await asyncio.to_thread(lambda: cluster.await_ready(cluster.relaunch(victim)))
    story.line(f"the agent of {victim} starts again")
    root = keys.region_root(region)
    await _until(lambda: _nothing_below(cluster, root + b"zombie/"), "old copies are not cleared", CLEARED_S)
    story.line("it has stopped the old copies and certified it: nothing runs twice")


def _key(view: regional_pb2.SlotView) -> tuple[str, str, int]:
    """Indices count anew in each region."""
    return _region(view.slot.node), view.slot.id.task, view.slot.id.index


def _region(node: str) -> str:
    """Of a playground's node: eu-west of eu-west-n2."""
    return node.rpartition("-")[0]


async def _nothing_below(cluster: DevCluster, prefix: bytes) -> bool:
    store = await EtcdStore.connect(cluster.etcd)
    try:
        return not (await store.range(prefix, prefix_end(prefix), keys_only=True)).items
    finally:
        await store.close()


async def _until(holds: playground.Holds, otherwise: str, within_s: float) -> None:
    await playground.until(holds, otherwise, within_s, LOOK_AGAIN_S)


# ---- 6: the proof


def _prove(cluster: DevCluster, story: Story) -> audit.Verdict:
    story.chapter("6  The proof: an auditor of its own replays the store from its first revision", "atoll verify")
    verdict = asyncio.run(verify.audit_store(cluster.etcd, quiet=True))
    story.verdict(not verdict.violations, f"{verdict.line(0)} ({verdict.checked} revisions checked)")
    for violation in verdict.violations[: verify.SHOWN]:
        story.detail(str(violation))
    for ended in cluster.ended():
        story.verdict(False, f"{ended.name} ended by itself; its log is {ended.log}")
        sys.exit(EXIT_FAILED)
    return verdict


def _end(story: Story, verdict: audit.Verdict) -> None:
    story.title(f"\nDone in {story.elapsed_s:.0f} s; everything that was started is gone.")
    output.write(
        "Try next\n"
        "  make dev                                 the same cluster, until Ctrl-C; then in another terminal\n"
        "  . .venv/bin/activate && atoll status     and what README.md shows\n"
        "  atoll demo --simulated 10000             ten thousand nodes, the same API and command line\n"
    )
