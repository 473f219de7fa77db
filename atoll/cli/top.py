"""`top`: how full everything is: what is used, asked for and there, by region, node and tenant."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from atoll.api.v1 import objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Command
from atoll.cli.listing import of_regions
from atoll.cli.session import connected
from atoll.model import demand as model
from atoll.model.resources import DIMENSIONS, Vector, format_quantity, vector

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

SUBJECTS = ("regions", "nodes", "tenants")
HEADERS = ("NAME", "RESOURCE", "USED", "ASKED", "OF", "FULL")
Row = tuple[str, Vector, Vector | None, Vector]  # name, used, asked for, what there is


@click.command(
    cls=Command,
    examples="""\
  atoll top                     regions and tenants
  atoll top nodes               the fullest first
  atoll top tenants -o json
""",
)
@click.argument("subject", type=click.Choice(SUBJECTS), required=False)
@click.option("--region", default="", help="Nodes of this region only.")
@output.shown_as()
@connected
async def top(client: "AsyncClient", subject: str | None, region: str, style: str) -> None:
    """How full the regions, nodes and tenants are. USED is bound, by quota and burst; ASKED is what the workloads ask
    for: of the replicas that have not ended, as many as may run at once; OF is the capacity, or a tenant's quota
    without burst."""
    me = await client.tokens.whoami()
    subjects = [subject] if subject else ["regions", "tenants"]
    found = {name: await _rows(client, name, region, me.tenant) for name in subjects}
    if not output.is_table(style):
        documents = [_document(name, row) for name, rows in found.items() for row in rows]
        names = [f"{document['kind'].lower()}/{document['name']}" for document in documents]
        output.write(output.documents(documents, style, names=names))
        return
    for number, (name, rows) in enumerate(found.items()):
        output.write("\n" * bool(number) + output.table([name.upper(), *HEADERS[1:]], _cells(rows)))


async def _rows(client: "AsyncClient", subject: str, region: str, tenant: str) -> list[Row]:
    match subject:
        case "nodes":
            nodes = await of_regions(
                client, region, lambda each, within_s: client.nodes.list(region=each, page_within_s=within_s)
            )
            return _fullest((n.metadata.name, vector(n.used), None, vector(n.capacity)) for n in nodes)
        case "tenants":
            tenants = [await client.tenants.get(tenant)] if tenant else await client.tenants.list()
            asked = await demands(client, tenant)
            return _fullest(
                (
                    t.metadata.name,
                    _used(t),
                    asked.get(t.metadata.name, Vector()),
                    vector(t.spec.quota),
                )
                for t in tenants
            )
    return _fullest(
        (r.metadata.name, vector(r.summary.used), None, vector(r.summary.capacity)) for r in await client.regions.list()
    )


def _used(tenant: objects_pb2.Tenant) -> Vector:
    return vector(tenant.status.used) + vector(tenant.status.burst.used)


async def demands(client: "AsyncClient", tenant: str = "") -> dict[str, Vector]:
    """What the workloads of each tenant ask for; of `tenant` only, where the caller may see no other."""
    found: dict[str, Vector] = {}
    for workload in await client.workloads.list(tenant=tenant, everywhere=not tenant):
        owner = workload.metadata.tenant
        found[owner] = found.get(owner, Vector()) + demand(workload)
    return found


def demand(workload: objects_pb2.Workload, *, firm: bool = False) -> Vector:
    """As the global plane counts it, or the part of it that burst may not pay for; nothing once it is being deleted."""
    if workload.metadata.deleted_ms:
        return Vector()
    job = workload.status.job
    ended = model.ended(workload.spec, job) if job.generation == workload.metadata.generation else model.NONE_ENDED
    return model.demand(workload.spec, ended, firm=firm)


def _fullest(rows: Iterable[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (-max(_shares(row), default=0.0), row[0]))


def _shares(row: Row) -> list[float]:
    _, used, _, there = row
    return [u / t for u, t in zip(used.amounts(), there.amounts(), strict=True) if t]


def _cells(rows: list[Row]) -> list[list[str]]:
    """A line for each resource that there is; the name stands on the first."""
    cells = []
    for name, used, asked, there in rows:
        shown, wanted = name, asked or used
        for dimension, u, a, t in zip(DIMENSIONS, used.amounts(), wanted.amounts(), there.amounts(), strict=True):
            if not (u or a or t):
                continue
            amounts = [views.rounded(amount, dimension) for amount in (u, a, t)]
            amounts[1] = amounts[1] if asked is not None else ""
            share = f"{100 * u // t} %" if t else ""
            cells.append([shown, dimension.partition("_")[0], *amounts, share])
            shown = " "
        if shown == name:
            cells.append([name, "", "", "", "", ""])
    return cells


def _document(subject: str, row: Row) -> dict[str, Any]:
    name, used, asked, there = row
    parts = {"used": used, "asked": asked, "of": there}
    amounts = {
        key: {d.partition("_")[0]: format_quantity(n, d) for d, n in zip(DIMENSIONS, v.amounts(), strict=True) if n}
        for key, v in parts.items()
        if v is not None
    }
    return {"kind": subject.removesuffix("s").capitalize(), "name": name, **amounts}
