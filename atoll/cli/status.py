"""`status`: the cluster on one page."""

from typing import TYPE_CHECKING, Any

import click

from atoll import manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Command
from atoll.cli.session import connected
from atoll.model import explain

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

AS_THEY_SHOULD_BE = ("serving", "done", "scheduled", "suspended")
SHOWN_REASONS = 3


@click.command(cls=Command, examples="  atoll status\n  atoll status -o json\n  atoll status -t shop\n")
@output.shown_as()
@connected
async def status(client: "AsyncClient", style: str) -> None:
    """Who you are, the regions, the nodes that are not ready, the tenants, and the workloads that are not as they
    should be, with the reasons; with -t those of one tenant. What your role may not see is left out."""
    me = await client.tokens.whoami()
    tenant = me.tenant or click.get_current_context().params["tenant"]  # that of the context does not limit an operator
    everywhere = not tenant
    regions = await client.regions.list()
    workloads = await client.workloads.list(tenant=tenant, everywhere=everywhere)
    tenants = await client.tenants.list() if everywhere else [await client.tenants.get(tenant)]
    near = [region.metadata.name for region in regions if region.connected and not me.tenant]
    output.tell_unreachable(region.metadata.name for region in regions if not region.connected)
    nodes = [node for name in near for node in await client.nodes.list(region=name)]
    late = [workload for workload in workloads if views.workload_state(workload) not in AS_THEY_SHOULD_BE]
    troubled = [node for node in nodes if views.node_state(node) != "ready"]
    if not output.is_table(style):
        found: dict[str, Any] = {"cluster": me.cluster, "workloads": len(workloads), "nodes": len(nodes)}
        found["regions"] = [manifest.tree(region, "Region") for region in regions]
        found["tenants"] = [manifest.tree(tenant, "Tenant") for tenant in tenants]
        found["notReady"] = [manifest.tree(node, "Node") for node in troubled]
        found["waiting"] = [manifest.tree(workload, "Workload") for workload in late]
        names = [f"node/{node.metadata.name}" for node in troubled]
        names += [f"workload/{workload.metadata.name}" for workload in late]
        output.write(output.documents([found], style, names=names, single=True))
        return
    role = views.enum(me.role, objects_pb2.Role)
    scope = f"tenant {me.tenant}" if me.tenant else "all tenants"
    line = f"cluster {me.cluster} at {client.connection.address}; you are {me.name} ({role}, {scope})"
    output.write(output.visible(line) + "\n\n" + output.render(views.REGIONS, regions, style))
    if nodes:
        output.write(f"\n{explain.counted(len(nodes), 'node')}, {len(nodes) - len(troubled)} ready\n")
        output.write(output.render(views.NODES, troubled, style) if troubled else "")
    if tenants:
        output.write("\n" + output.render(views.TENANTS, tenants, style))
    _show_workloads(client, workloads, late, everywhere, style)


def _show_workloads(
    client: "AsyncClient",
    workloads: list[objects_pb2.Workload],
    late: list[objects_pb2.Workload],
    everywhere: bool,
    style: str,
) -> None:
    count = explain.counted(len(workloads), "workload")
    output.write(f"\n{count}, {len(workloads) - len(late)} as they should be\n" if workloads else "\nno workloads\n")
    if late:
        output.write(output.render(views.WORKLOADS_OF_ALL if everywhere else views.WORKLOADS, late, style))
        for workload in late:
            pending = workload.status.pending[:SHOWN_REASONS]
            several = len({reason.region for reason in workload.status.pending}) > 1
            where = [f"{reason.region}: " * bool(several and reason.region) for reason in pending]
            reasons = [place + explain.sentence(reason) for place, reason in zip(where, pending, strict=True)]
            if reasons:
                output.write(f"  {output.visible(workload.metadata.name)}: {output.visible(' · '.join(reasons))}\n")
        first = late[0].metadata
        tenant = f" -t {output.visible(first.tenant)}" * (first.tenant != client.connection.tenant)
        output.tell(f"Try   atoll why {output.visible(first.name)}{tenant}")
    elif not workloads:
        output.tell("Try   atoll init hello.yaml && atoll apply -f hello.yaml")
