"""`node`: let nodes join, take them out of use, mark them, forget them."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import click
from click.decorators import FC

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Group
from atoll.cli.join_tokens import token
from atoll.cli.listing import of_regions
from atoll.cli.session import Seconds, connected
from atoll.cli.workloads import mutation, show
from atoll.manifest import taints
from atoll.model import explain

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

LOOK_AGAIN_S = 0.5
SHOWN_WORKLOADS = 10


@click.group(
    cls=Group,
    examples="""\
  atoll node list
  atoll node drain n7 --reason "kernel update" --deadline 30m
  atoll node token create --region eu-west --pool default
""",
)
def node() -> None:
    """Nodes: let them join, take them out of use, mark them, forget them."""


node.add_command(token)


def region(verb: FC) -> FC:
    return click.option("--region", default="", help="May be left out where only one has such a node.")(verb)


def numbered(request_id: str, number: int) -> str:
    return f"{request_id}.{number}" if request_id and number else request_id


async def each(
    names: tuple[str, ...],
    request_id: str,
    style: str,
    said: str,
    act: Callable[[str, str], Awaitable[objects_pb2.Node]],
) -> None:
    for number, name in enumerate(names):
        show(style, "Node", await act(name, numbered(request_id, number)), said)


@node.command("list", examples="  atoll node list\n  atoll node list -o wide\n  atoll node list --region eu-west\n")
@output.shown_as()
@click.option("--region", default="", help="Only those of this region.")
@connected
async def list_(client: "AsyncClient", style: str, region: str) -> None:
    """The nodes of every region, or of one."""
    output.shown(
        views.NODES,
        await of_regions(client, region, lambda each, within_s: client.nodes.list(region=each, page_within_s=within_s)),
        style,
    )


@node.command(
    "get",
    examples="""\
  atoll node get n7
  atoll node get n7 -o yaml
  atoll node get n7 --region eu-west
""",
)
@click.argument("name")
@output.shown_as("wide")
@region
@connected
async def get(client: "AsyncClient", name: str, style: str, region: str) -> None:
    """One node, what runs there, and which container images it has."""
    found = await client.nodes.get(name, region=region)
    output.write(output.render(views.NODES, [found], style, single=True))
    if style in ("table", "wide"):
        slots = await client.nodes.slots(name, region=region)
        output.write("\n" + output.render(views.SLOTS, slots, "table") if slots else "")
        images = "".join(f"{output.visible(image)}\n" for image in found.images)
        output.write(f"\nIMAGES\n{images}" if images else "")


@node.command(
    "cordon",
    examples="""\
  atoll node cordon n7
  atoll node cordon n7 n8 --reason "disk is slow"
  atoll node uncordon n7          undoes it
""",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--reason", default="", help="For those who ask later.")
@output.result
@region
@mutation
@connected
async def cordon(
    client: "AsyncClient", names: tuple[str, ...], reason: str, style: str, region: str, request_id: str
) -> None:
    """No new work; what runs there stays. Ends a drain."""
    await each(
        names,
        request_id,
        style,
        "cordoned",
        lambda name, id_: client.nodes.cordon(name, reason=reason, region=region, request_id=id_),
    )


@node.command(
    "uncordon",
    examples="""\
  atoll node uncordon n7
  atoll node uncordon n7 n8
  atoll node uncordon n7 --region eu-west
""",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@output.result
@region
@mutation
@connected
async def uncordon(client: "AsyncClient", names: tuple[str, ...], style: str, region: str, request_id: str) -> None:
    """Take work again. Ends a cordon and a drain."""
    await each(
        names,
        request_id,
        style,
        "takes work",
        lambda name, id_: client.nodes.uncordon(name, region=region, request_id=id_),
    )


@node.command(
    "drain",
    examples="""\
  atoll node drain n7 --reason "kernel update"
  atoll node drain n7 n8 --reason "rack 3 moves" --deadline 30m --yes
  atoll node drain n7 --reason test --no-wait
""",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Shown to everybody whose work moves.")
@click.option("--deadline", type=Seconds(), default="1h", show_default=True, help="Then what is left stops anyhow.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait/--no-wait", default=True, help="Wait until nothing is left; Ctrl-C is safe.")
@output.result
@region
@mutation
@connected
async def drain(
    client: "AsyncClient",
    names: tuple[str, ...],
    reason: str,
    deadline: float,
    yes: bool,
    wait: bool,
    style: str,
    region: str,
    request_id: str,
) -> None:
    """Move a node's work away, few replicas of a task at a time. Shows what would move, and asks."""
    for name in names:
        await _show_work(client, name, region, "will move")
    _ask("Drain?", yes)
    await each(
        names,
        request_id,
        style,
        "draining",
        lambda name, id_: client.nodes.drain(
            name, reason=reason, deadline_s=max(1, round(deadline)), region=region, request_id=id_
        ),
    )
    if wait:
        for name in names:
            await _until_drained(client, name, region)


@node.command(
    "label",
    examples="""\
  atoll node label n7 disk=ssd
  atoll node label n7 disk- zone=b     removes one, sets another
  atoll node list -o wide              shows them
""",
)
@click.argument("name")
@click.argument("labels", metavar="KEY=VALUE|KEY-...", nargs=-1, required=True)
@output.result
@region
@mutation
@connected
async def label(
    client: "AsyncClient", name: str, labels: tuple[str, ...], style: str, region: str, request_id: str
) -> None:
    """Set or remove labels. They win over what the node says of itself."""
    pairs = [text.partition("=") for text in labels]
    gone = [text.removesuffix("-") for text, separator, _ in pairs if not separator and text.endswith("-")]
    kept = {key: value for key, separator, value in pairs if separator}
    if len(gone) + len(kept) < len(labels):
        raise click.BadParameter("wants KEY=VALUE, or KEY- to remove it, each key once")
    changed = await client.nodes.label(name, kept, remove=gone, region=region, request_id=request_id)
    show(style, "Node", changed, "labeled")


@node.command(
    "taint",
    examples="""\
  atoll node taint n7 gpu=a100:NoSchedule
  atoll node taint n7 broken:NoExecute     what does not tolerate it leaves
  atoll node taint n7 gpu-                 removes it
""",
)
@click.argument("name")
@click.argument("marks", metavar="KEY=VALUE:EFFECT|KEY-...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Do not ask before a NoExecute taint moves work.")
@output.result
@region
@mutation
@connected
async def taint(
    client: "AsyncClient", name: str, marks: tuple[str, ...], yes: bool, style: str, region: str, request_id: str
) -> None:
    """Set or remove taints: NoSchedule, PreferNoSchedule, NoExecute."""
    try:
        parsed = [taints.parse_taint(text) for text in marks]
    except taints.TaintError as error:
        raise click.BadParameter(str(error)) from None
    added = [taint for taint, gone in parsed if not gone]
    if any(taint.effect == objects_pb2.TAINT_EFFECT_NO_EXECUTE for taint in added):
        await _show_work(client, name, region, "will move, unless it tolerates the taint")
        _ask("Taint?", yes)
    removed = [taint for taint, gone in parsed if gone]
    changed = await client.nodes.taint(name, added, remove=removed, region=region, request_id=request_id)
    show(style, "Node", changed, "tainted")


@node.command(
    "remove",
    examples="""\
  atoll node remove n7
  atoll node remove n7 n8 --yes
  atoll node remove n7 --destroyed --reason "burnt down" --yes
""",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--reason", default="", help="Needed with --destroyed.")
@click.option("--destroyed", is_flag=True, help="You vouch that a lost machine runs nothing any more.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@region
@mutation
@connected
async def remove(
    client: "AsyncClient",
    names: tuple[str, ...],
    reason: str,
    destroyed: bool,
    yes: bool,
    region: str,
    request_id: str,
) -> None:
    """Forget nodes that are drained or lost. Their certificates are refused from then on."""
    for name in names:
        if not request_id:  # asked again, they may be gone already
            await _show_work(client, name, region, "stands in the way")
    _ask("Remove?", yes)
    for number, name in enumerate(names):
        id_ = numbered(request_id, number)
        remove = client.nodes.remove(name, reason=reason, destroyed=destroyed, region=region, request_id=id_)
        said = "removed" if await remove else "goes as soon as what may still run there is written off"
        output.write(f"node/{output.visible(name)} {said}\n")


async def _show_work(client: "AsyncClient", name: str, region: str, said: str) -> None:
    """The blast radius: what is there, by workload."""
    found = await client.nodes.get(name, region=region)
    slots = await client.nodes.slots(name, region=region)
    state = views.node_state(found)
    if not slots:
        output.tell(f"{output.visible(name)} ({state}): nothing runs there")
        return
    workloads = Counter(f"{view.slot.id.tenant}/{view.slot.id.workload}" for view in slots)
    parts = [f"{output.visible(workload)} ({count})" for workload, count in workloads.most_common(SHOWN_WORKLOADS)]
    more = f" and {len(workloads) - SHOWN_WORKLOADS} more" if len(workloads) > SHOWN_WORKLOADS else ""
    output.tell(
        f"{output.visible(name)} ({state}): {explain.counted(len(slots), 'replica')}: {', '.join(parts)}{more}: {said}"
    )


def _ask(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody is here to ask; say --yes")
    click.confirm(question, abort=True, err=True)


async def _until_drained(client: "AsyncClient", name: str, region: str) -> None:
    """Tells what is left whenever that changes. Raises Conflict when the drain was ended."""
    told = ""
    while True:
        found = await client.nodes.get(name, region=region)
        if not found.draining:
            raise errors.Conflict(f"the drain of {name} was ended by somebody else")
        if not found.slots:
            output.tell(f"{output.visible(name)}: drained")
            return
        left_s = max(0.0, found.drain.deadline_ms / 1000 - time.time())
        if found.drain.progress != told:
            told = found.drain.progress
            span = output.span(round(left_s * 1000))
            output.tell(f"{output.visible(name)}: {output.visible(told)} (deadline in {span})")
        await asyncio.sleep(LOOK_AGAIN_S)
