"""`logs`: what a replica wrote."""

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from atoll.cli.command import Command
from atoll.cli.session import SlotReference, connected

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient


@click.command(
    cls=Command,
    examples="""\
  atoll logs hello
  atoll logs hello/2 -f
  atoll logs shop/worker/0 --tail 100
""",
)
@click.argument("slot", type=SlotReference(), metavar="NAME[/INDEX]")
@click.option("-f", "--follow", is_flag=True, help="Go on as it writes.")
@click.option("--tail", default=0, type=click.IntRange(0), help="Only the last lines; 0 = all that is kept.")
@click.option("--region", default="", help="Where several regions have a replica of that index.")
@connected
async def logs(client: "AsyncClient", slot: tuple[str, str, int], follow: bool, tail: int, region: str) -> None:
    """What a replica wrote, as it was written. Without INDEX: of replica 0."""
    workload, task, index = slot
    chunks = client.slots.logs(workload, index=max(index, 0), task=task, tail_lines=tail, follow=follow, region=region)
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
