"""`region`: which regions take work."""

from typing import TYPE_CHECKING

import click

from atoll import errors
from atoll.cli import output, views
from atoll.cli.command import Group
from atoll.cli.session import connected
from atoll.cli.workloads import mutation, show

if TYPE_CHECKING:
    from atoll.api.v1 import global_pb2
    from atoll.sdk.client import AsyncClient


@click.group(
    cls=Group,
    examples="""\
  atoll region cordon eu-west
  atoll region drain eu-west
  atoll region label eu-west jurisdiction=eu
""",
)
def region() -> None:
    """Regions: keep new replicas out, move those that run to other regions, set labels."""


@region.command("list", examples="  atoll region list\n  atoll region list -o wide\n  atoll region list -o json\n")
@output.shown_as()
@connected
async def list_(client: "AsyncClient", style: str) -> None:
    """All regions: their state, nodes, and how full they are."""
    output.shown(views.REGIONS, await client.regions.list(), style)


@region.command(
    "get",
    examples="  atoll region get eu-west\n  atoll region get eu-west -o yaml\n  atoll get nodes --region eu-west\n",
)
@click.argument("name")
@output.shown_as("wide")
@connected
async def get(client: "AsyncClient", name: str, style: str) -> None:
    """One region."""
    found = [region for region in await client.regions.list() if region.metadata.name == name]
    if not found:
        raise errors.NotFound(f"there is no region {name!r}", hint="atoll region list")
    output.write(output.render(views.REGIONS, found, style, single=True))


@region.command(
    "cordon",
    examples="""\
  atoll region cordon eu-west
  atoll region cordon eu-west -o yaml
  atoll region uncordon eu-west   undoes it
""",
)
@click.argument("name")
@output.result
@mutation
@connected
async def cordon(client: "AsyncClient", name: str, style: str, request_id: str) -> None:
    """Give the region no new replicas. Those it has stay."""
    _show(style, await client.regions.update(name, cordoned=True, request_id=request_id), "cordoned")


@region.command(
    "uncordon",
    examples="""\
  atoll region uncordon eu-west
  atoll region uncordon eu-west -o yaml
  atoll region list               shows which are cordoned
""",
)
@click.argument("name")
@output.result
@mutation
@connected
async def uncordon(client: "AsyncClient", name: str, style: str, request_id: str) -> None:
    """Let the region take replicas again; this ends a drain too."""
    _show(style, await client.regions.update(name, cordoned=False, request_id=request_id), "takes work")


@region.command(
    "drain",
    examples="""\
  atoll region drain eu-west
  atoll get workloads -A -o wide -w      watch them move
  atoll region uncordon eu-west          ends it
""",
)
@click.argument("name")
@output.result
@mutation
@connected
async def drain(client: "AsyncClient", name: str, style: str, request_id: str) -> None:
    """Cordon the region, and move its replicas to the other regions that their workloads allow. A replica is stopped
    when another one is ready; where the quota has no room for both at once, a few are stopped first. Jobs run to their
    end where they are. What no other region may take stays."""
    _show(style, await client.regions.update(name, draining=True, request_id=request_id), "draining")


@region.command(
    "label",
    examples="""\
  atoll region label eu-west jurisdiction=eu
  atoll region label eu-west jurisdiction=eu tier-     sets one, removes another
  atoll region list -o wide                            shows them
""",
)
@click.argument("name")
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-…")
@output.result
@mutation
@connected
async def label(client: "AsyncClient", name: str, changes: tuple[str, ...], style: str, request_id: str) -> None:
    """Set labels (KEY=VALUE) or remove them (KEY-). From then on the labels in the region's own settings count no
    more. Workloads whose residency the region no longer meets leave it at once."""
    values, removed = {}, []
    for text in changes:
        key, separator, value = text.partition("=")
        if separator:
            values[key] = value
        elif text.endswith("-"):
            removed.append(text.removesuffix("-"))
        else:
            raise click.BadParameter(f"{output.visible(text)} is neither KEY=VALUE nor KEY-")
    answer = await client.regions.update(name, labels=values, removed_labels=removed, request_id=request_id)
    _show(style, answer, "labeled")


def _show(style: str, answer: "global_pb2.UpdateRegionResponse", said: str) -> None:
    show(style, "Region", answer.region, said if answer.outcome == "updated" else answer.outcome)
