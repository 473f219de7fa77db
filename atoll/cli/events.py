"""`events`: what happened, oldest first."""

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from atoll import manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import output
from atoll.cli.command import Command
from atoll.cli.session import connected

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

LOOK_AGAIN_S = 1.0


@click.command(
    cls=Command,
    examples="""\
  atoll events
  atoll events --object workload/default/hello
  atoll events -f
  atoll events -A --object node/
""",
)
@click.option("--object", "prefix", default="", help="Only of objects whose name begins so.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--region", default="", help="Of this region only.")
@click.option("-A", "--all-tenants", "everywhere", is_flag=True, help="Of every tenant, and of nodes; for operators.")
@click.option("-f", "--follow", is_flag=True, help="Go on as things happen.")
@click.option("-o", "--output", "style", type=click.Choice(("text", "jsonl")), default="text")
@connected
async def events(
    client: "AsyncClient", prefix: str, limit: int, region: str, everywhere: bool, follow: bool, style: str
) -> None:
    """What happened, as far back as the regions remember."""
    regions = [region] if region else [known.metadata.name for known in await client.regions.list()]
    after = dict.fromkeys(regions, 0)
    while True:
        found = []
        for name in regions:
            heard = await client.events.list(
                object=prefix, limit=limit, after=after[name], everywhere=everywhere, region=name
            )
            after[name] = max((event.seq for event in heard), default=after[name])
            found += heard
        for event in sorted(found, key=lambda event: event.at_ms)[-limit:]:
            line = manifest.to_json(manifest.tree(event), indent=None) if style == "jsonl" else _line(event)
            output.write(line + "\n")
        if not follow:
            if not found:
                output.tell("no events")
            return
        await asyncio.sleep(LOOK_AGAIN_S)


def _line(event: objects_pb2.Event) -> str:
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).astimezone().strftime("%H:%M:%S")
    return output.visible(f"{at}  {event.type:<14}  {event.object}  {event.message}").rstrip()
