"""`events`: what happened, oldest first."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import output
from atoll.cli.command import Command
from atoll.cli.listing import PATIENT_S, SILENT_S
from atoll.cli.session import connected

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

LOOK_AGAIN_S = 1.0
_GLOBAL = ""  # beside the names of regions
WIDEST = 40  # of the column of objects


@click.command(
    cls=Command,
    examples="""\
  atoll events
  atoll events --object workload/default/hello
  atoll events -f
  atoll events -A --object node/ -o wide
""",
)
@click.option("--object", "prefix", default="", help="Only of objects whose name begins so.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--region", default="", help="Of this region only.")
@click.option("-A", "--all-tenants", "everywhere", is_flag=True, help="Of every tenant, and of nodes; for operators.")
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen.")
@output.shown_as()
@connected
async def events(
    client: "AsyncClient", prefix: str, limit: int, region: str, everywhere: bool, follow: bool, style: str
) -> None:
    """What happened, as far back as the leaders of regions and of the global plane remember. `-f -o json` writes a line
    each, as jsonl does."""
    regions = [region] if region else [_GLOBAL, *(known.metadata.name for known in await client.regions.list())]
    after = dict.fromkeys(regions, 0)
    away: set[str] = set()
    style = "jsonl" if follow and style == "json" else style
    while True:
        found: list[objects_pb2.Event] = []
        asked = (_heard(client, name, len(regions) < 3, prefix, limit, after[name], everywhere) for name in regions)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for name, heard in zip(regions, answers, strict=True):
            if isinstance(heard, errors.Unavailable) and len(regions) > 1:
                if name not in away:
                    output.tell(f"{_called(name)} cannot be asked: what it has is not shown")
                away.add(name)
                continue
            if isinstance(heard, BaseException):
                raise heard
            away.discard(name)
            after[name] = max((event.seq for event in heard), default=after[name])
            found += heard
        _show(sorted(found, key=lambda event: event.at_ms)[-limit:], style)
        if not follow:
            if not found and output.is_table(style):
                output.tell("no events")
            return
        await asyncio.sleep(LOOK_AGAIN_S)


async def _heard(
    client: "AsyncClient", name: str, alone: bool, prefix: str, limit: int, after: int, everywhere: bool
) -> Sequence[objects_pb2.Event]:
    """What one region, or the global plane, tells; `alone`: no other region is asked, so it may take its time."""
    asked: dict[str, Any] = {"object": prefix, "limit": limit, "after": after, "everywhere": everywhere}
    if name == _GLOBAL:
        return await client.events.list_global(**asked)
    return await client.events.list(**asked, region=name, within_s=PATIENT_S if alone else SILENT_S)


def _called(name: str) -> str:
    return f"region {output.visible(name)}" if name else "the global plane"


def _show(found: list[objects_pb2.Event], style: str) -> None:
    if output.is_table(style):
        width = min(max((len(event.object) for event in found), default=0), WIDEST)
        output.write("".join(_line(event, width, wide=style == "wide") + "\n" for event in found))
    elif found or style != "yaml":
        output.write(output.documents(list(map(manifest.tree, found)), style, names=[event.object for event in found]))


def _line(event: objects_pb2.Event, width: int, *, wide: bool) -> str:
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).astimezone()
    when = f"{at:%Y-%m-%d %H:%M:%S}  {event.region:<10}" if wide else f"{at:%H:%M:%S}"
    return output.visible(f"{when}  {event.type:<14}  {event.object:<{width}}  {event.message}").rstrip()
