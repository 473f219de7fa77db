"""`status`: the cluster on one page."""

from typing import TYPE_CHECKING

import click

from atoll.api.v1 import objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Command
from atoll.cli.session import connected

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient


@click.command(cls=Command, examples="  atoll status\n")
@connected
async def status(client: "AsyncClient") -> None:
    """Who you are, the regions, and the workloads that are not as they should be."""
    me = await client.tokens.whoami()
    role = views.enum(me.role, objects_pb2.Role)
    scope = f"tenant {me.tenant}" if me.tenant else "all tenants"
    line = f"cluster {me.cluster} at {client.connection.address}; you are {me.name} ({role}, {scope})"
    output.write(output.visible(line) + "\n\n" + output.render(views.REGIONS, await client.regions.list(), "table"))
    everywhere = not me.tenant
    workloads = await client.workloads.list(everywhere=everywhere)
    waiting = [workload for workload in workloads if views.workload_state(workload) not in ("serving", "done")]
    count = f"{len(workloads)} workload{'s' * (len(workloads) != 1)}"
    output.write(f"\n{count}, {len(workloads) - len(waiting)} as they should be\n" if workloads else "\nno workloads\n")
    if waiting:
        output.write(output.render(views.OF_ALL_TENANTS if everywhere else views.WORKLOADS, waiting, "table"))
        first = waiting[0].metadata
        tenant = f" -t {output.visible(first.tenant)}" * (first.tenant != client.connection.tenant)
        output.tell(f"Try   atoll why {output.visible(first.name)}{tenant}")
    elif not workloads:
        output.tell("Try   atoll init hello.yaml && atoll apply -f hello.yaml")
