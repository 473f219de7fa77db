"""What waits to be placed: whose turn it is, how long the line is, and why something is not in it."""

from typing import TYPE_CHECKING

import click

from atoll import manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import output
from atoll.cli.command import Command, Group
from atoll.cli.session import connected
from atoll.cli.views import enum
from atoll.model.explain import summary

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient


@click.group(
    cls=Group,
    examples="""\
  atoll queue list                how long the lines are, of each tenant and priority
  atoll queue list -A             of every tenant; who comes first is on top
  atoll queue get hello           where it stands, or what it waits for
""",
)
def queue() -> None:
    """What waits to be placed."""


@queue.command(
    "list",
    cls=Command,
    examples="""\
  atoll queue list
  atoll queue list -A --region r1
  atoll queue list -o json
""",
)
@click.option("-A", "--all-tenants", "everywhere", is_flag=True, help="Of every tenant; for operators.")
@click.option("--region", default="", help="Of one region; else of all.")
@output.shown_as()
@connected
async def list_(client: "AsyncClient", everywhere: bool, region: str, style: str) -> None:
    """Show how much waits, of each tenant and priority, the next one first."""
    answer = await client.queue.list(tenant="" if everywhere else None, region=region)
    output.tell_unreachable(answer.unreachable)
    if not output.is_table(style):
        names = [f"{view.tenant}/{enum(view.priority, objects_pb2.Priority)}" for view in answer.queues]
        output.write(output.documents([manifest.tree(view) for view in answer.queues], style, names=names))
        return
    rows = [
        [
            view.region,
            view.tenant,
            enum(view.priority, objects_pb2.Priority),
            str(view.replicas),
            str(view.parked),
            f"{view.weighted_share:.3f}",
            output.span(view.oldest_ms),
            view.head or "-",
        ]
        for view in answer.queues
    ]
    headers = ["REGION", "TENANT", "PRIORITY", "WAITING", "PARKED", "SHARE", "OLDEST", "NEXT"]
    output.write(output.table(headers, rows)) if rows else output.tell("nothing waits")


@queue.command(
    cls=Command,
    examples="""\
  atoll queue get hello
  atoll queue get hello --region r1
  atoll queue get hello -o yaml
""",
)
@click.argument("workload")
@click.option("--region", default="", help="In one region; else in all that run it.")
@output.shown_as()
@connected
async def get(client: "AsyncClient", workload: str, region: str, style: str) -> None:
    """Show where a workload's replicas stand: 1 is next of its tenant and priority."""
    answer = await client.queue.list(workload=workload, region=region)
    output.tell_unreachable(answer.unreachable)
    if not output.is_table(style):
        names = [f"{item.workload}/{item.task}".rstrip("/") for item in answer.items]
        output.write(output.documents([manifest.tree(item) for item in answer.items], style, names=names))
        return
    rows = [
        [
            item.region,
            item.task or "(gang)",
            enum(item.priority, objects_pb2.Priority),
            str(item.replicas + item.backing_off),
            str(item.position) if item.position else "-",
            output.span(item.waiting_ms),
            summary(item.reasons) if item.reasons else "in line",
        ]
        for item in answer.items
    ]
    headers = ["REGION", "TASK", "PRIORITY", "WAITING", "POSITION", "WAITED", "REASON"]
    if rows:
        output.write(output.table(headers, rows))
    else:
        name = output.visible(workload)
        output.tell(f"nothing of {name} waits in a region's queue\nTry   atoll why {name}")
