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
    workloads = await client.workloads.list(everywhere=not me.tenant)
    waiting = [workload for workload in workloads if views.workload_state(workload) not in ("serving", "done")]
    output.write(f"\n{len(workloads)} workloads, {len(workloads) - len(waiting)} as they should be\n")
    if waiting:
        output.write(output.render(views.WORKLOADS, waiting, "table"))
        output.tell(f"Try   atoll why {output.visible(waiting[0].metadata.name)}")
    elif not workloads:
        output.tell("Try   atoll init hello.yaml && atoll apply -f hello.yaml")
