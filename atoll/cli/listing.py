"""`get` and `list`: what there is, once or as it changes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from atoll import errors
from atoll.api.v1 import global_pb2, objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Command
from atoll.cli.session import connected
from atoll.manifest import selectors

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

Item = TypeVar("Item")
Change = tuple[Any, bool]  # an item, and whether it is gone
LOOK_AGAIN_S = 2.0  # kinds that the API cannot watch are listed again
PATIENT_S = 15.0  # with the only region, or the one that is named: longer than a change of leader takes
SILENT_S = 5.0  # one of several regions that gives no page for so long is left out
Ask = Callable[[str, float], Awaitable[Sequence[Item]]]  # a region, and how long a page may take
WORDS = {"Workload": "workload", "Node": "node", "Slot": "slot", "Tenant": "tenant", "Region": "region"}
SHORT = {"wl": "Workload", "w": "Workload", "no": "Node", "s": "Slot"}


@click.command(
    cls=Command,
    examples="""\
  atoll get workloads
  atoll get workload hello -o yaml
  atoll get nodes -o wide
  atoll get slots hello
  atoll get slots -A                    of every tenant
  atoll get workloads -w
""",
)
@click.argument(
    "view",
    metavar="KIND",
    callback=lambda context, argument, word: views.BY_KIND[_kind(word)],
    shell_complete=lambda context, argument, begun: [f"{it}s" for it in WORDS.values() if f"{it}s".startswith(begun)],
)
@click.argument("name", default="")
@output.shown_as()
@click.option(
    "-l",
    "--selector",
    "requirements",
    default="",
    metavar="TEXT",
    callback=lambda context, option, text: _requirements(text),
    help="Workloads with these labels: zone=a,gpu.",
)
@click.option(
    "-A", "--all-tenants", "everywhere", is_flag=True, help="Workloads and slots of every tenant; for operators."
)
@click.option("--region", default="", help="Nodes and slots of this region only.")
@click.option("-w", "--watch", is_flag=True, help="Go on, and show what changes.")
@connected
async def get(
    client: "AsyncClient",
    view: output.View[Any],
    name: str,
    style: str,
    requirements: list[Any],
    everywhere: bool,
    region: str,
    watch: bool,
) -> None:
    """Show workloads, nodes, slots, tenants or regions. For slots, NAME is the workload."""
    if everywhere:
        view = views.OF_ALL_TENANTS.get(view.kind, view)
    if name and view.kind == "Workload" and not everywhere and not watch:
        items: list[Any] = [await client.workloads.get(name)]
    else:
        items = await _list(client, view.kind, name, requirements, everywhere, region)
    single = bool(name) and view.kind != "Slot"
    if single and not items:
        raise errors.NotFound(f"there is no {view.kind.lower()} {name!r}")
    if watch and style == "json":
        style = "jsonl"
    if single:
        output.write(output.render(view, items, style, single=True))
    elif items or not watch:
        output.shown(view, items, style)
    if not watch:
        return
    changes = (
        _watch_workloads(client, name, everywhere)
        if view.kind == "Workload"
        else _look_again(lambda: _list(client, view.kind, name, requirements, everywhere, region), view, items)
    )
    async with contextlib.aclosing(changes):
        async for item, gone in changes:
            if gone and (output.is_table(style) or style == "name"):
                output.write(f"{output.visible(view.name(item))} deleted\n")
            else:
                output.write(output.render(view, [item], style, single=True, headers=False))


def _kind(word: str) -> str:
    singular = word.lower().removesuffix("s")
    known = {**{text: kind for kind, text in WORDS.items()}, **SHORT}
    if singular not in known and word.lower() not in known:
        raise click.BadParameter(f"{word!r} is not one of {', '.join(text + 's' for text in WORDS.values())}")
    return known.get(singular) or known[word.lower()]


def _requirements(text: str) -> list[Any]:
    try:
        return selectors.parse_selector(text) if text else []
    except selectors.SelectorError as error:
        raise click.BadParameter(str(error)) from None


async def _list(
    client: "AsyncClient", kind: str, name: str, requirements: list[Any], everywhere: bool, region: str
) -> list[Any]:
    items: list[Any]
    match kind:
        case "Workload":
            items = await client.workloads.list(selector=requirements, everywhere=everywhere)
        case "Node":
            items = await of_regions(
                client, region, lambda each, within_s: client.nodes.list(region=each, name=name, page_within_s=within_s)
            )
        case "Slot":
            return await of_regions(
                client,
                region,
                lambda each, within_s: client.slots.list(
                    workload=name, everywhere=everywhere, region=each, page_within_s=within_s
                ),
            )
        case "Tenant":
            items = [await client.tenants.get(name)] if name else await client.tenants.list()
        case _:
            items = await client.regions.list()
    return [item for item in items if not name or item.metadata.name == name]


async def of_regions(client: "AsyncClient", region: str, ask: Ask[Item]) -> list[Item]:
    """What the region has, or every region when none is named, all asked at once; those that cannot be asked, or do not
    answer, are told and left out."""
    if region:
        return list(await ask(region, PATIENT_S))
    try:
        known = await client.regions.list()
    except errors.Invalid:  # a region itself was dialled, which knows of no other
        return list(await ask("", PATIENT_S))
    if len(known) < 2:
        return list(await ask("", PATIENT_S))
    names = [each.metadata.name for each in known]
    asked = [ask(each.metadata.name, SILENT_S) if each.connected else _silent() for each in known]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, errors.Unavailable):
            raise answer
    silent = [name for name, answer in zip(names, answers, strict=True) if isinstance(answer, BaseException)]
    output.tell_unreachable(silent)
    return [item for answer in answers if not isinstance(answer, BaseException) for item in answer]


async def _silent() -> Sequence[Any]:
    raise errors.Unavailable("is not connected")


async def _watch_workloads(client: "AsyncClient", name: str, everywhere: bool) -> AsyncGenerator[Change, None]:
    """Changes; the opening list was shown already."""
    async with client.workloads.watch(everywhere=everywhere) as events:
        async for event in events:
            gone = event.type == global_pb2.EVENT_TYPE_DELETED
            if (gone or event.type == global_pb2.EVENT_TYPE_CHANGED) and name in ("", event.workload.metadata.name):
                yield event.workload, gone


async def _look_again(
    look: Callable[[], Awaitable[list[Any]]], view: output.View[Any], before: list[Any]
) -> AsyncGenerator[Change, None]:
    """Items that are not as they were at the last look, or are gone."""
    known = {_identity(view, item): item for item in before}
    while True:
        await asyncio.sleep(LOOK_AGAIN_S)
        now = {_identity(view, item): item for item in await look()}
        for name, item in now.items():
            if name not in known or _lasting(known[name]) != _lasting(item):
                yield item, False
        for name in known.keys() - now.keys():
            yield known[name], True
        known = now


def _identity(view: output.View[Any], item: Any) -> tuple[str, ...]:
    """Names of slots and nodes count in a region, those of slots in a tenant too."""
    return getattr(item, "region", ""), item.slot.id.tenant if view.kind == "Slot" else "", view.name(item)


def _lasting(item: Any) -> Any:
    """Without the age of a node's heartbeat, which is another one at every look."""
    if not isinstance(item, objects_pb2.Node):
        return item
    lasting = objects_pb2.Node()
    lasting.CopyFrom(item)
    lasting.ClearField("heartbeat_age_ms")
    return lasting
