"""`tenant` and `quota`."""

import sys
from typing import TYPE_CHECKING

import click
from click.decorators import FC

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Group
from atoll.cli.session import connected
from atoll.cli.workloads import mutation, show
from atoll.model import resources
from atoll.model.accounts import BURST_PERCENT
from atoll.model.resources import DIMENSIONS

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient


@click.group(
    cls=Group,
    examples="""\
  atoll tenant create shop --cpu 20 --memory 64Gi
  atoll tenant list
  atoll tenant delete shop
""",
)
def tenant() -> None:
    """Tenants: who owns workloads, and how much they may use."""


@click.group(
    cls=Group,
    examples="""\
  atoll quota get shop
  atoll quota set shop --cpu 40
  atoll top tenants
""",
)
def quota() -> None:
    """What a tenant may use, over all regions together."""


def amounts(verb: FC) -> FC:
    for name, example in (("gpu", "2"), ("disk", "1Ti"), ("memory", "64Gi"), ("cpu", "20")):
        verb = click.option(f"--{name}", default="", metavar="QUANTITY", help=f"For example {example}.")(verb)
    return verb


bursting = click.option(
    "--burst",
    type=click.IntRange(0, BURST_PERCENT),
    metavar="PERCENT",
    help=f"Of the quota, beside it, for low priorities: 0 to {BURST_PERCENT}; at first {BURST_PERCENT}.",
)
weighed = click.option("--weight", type=click.IntRange(1, 1_000), help="Its part when tenants compete; at first 1.")


@tenant.command(
    "create",
    examples="""\
  atoll tenant create shop --cpu 20 --memory 64Gi
  atoll tenant create lab --cpu 8 --memory 32Gi --gpu 2
  atoll tenant create shop --cpu 20 --dry-run
""",
)
@click.argument("name")
@amounts
@weighed
@bursting
@click.option("--dry-run", is_flag=True, help="Only let the server check it.")
@output.result
@mutation
@connected
async def create(
    client: "AsyncClient",
    name: str,
    style: str,
    weight: int | None,
    burst: int | None,
    dry_run: bool,
    request_id: str,
    **quota: str,
) -> None:
    """Create a tenant with its quota."""
    document = objects_pb2.Tenant(metadata=objects_pb2.Metadata(name=name))
    _set(document.spec.quota, quota)
    document.spec.weight = weight or 0
    if burst is not None:
        document.spec.burst_percent = burst
    answer = await client.tenants.apply(document, request_id=request_id, dry_run=dry_run)
    show(style, "Tenant", answer.tenant, answer.outcome + " (dry run)" * dry_run)


@tenant.command(
    "get",
    examples="""\
  atoll tenant get shop
  atoll tenant get shop -o yaml
  atoll quota get shop            what is in effect, granted and used
""",
)
@click.argument("name")
@output.shown_as("wide")
@connected
async def get(client: "AsyncClient", name: str, style: str) -> None:
    """One tenant: its quota, what is granted to regions, what is used."""
    output.write(output.render(views.TENANTS, [await client.tenants.get(name)], style, single=True))


@tenant.command(
    "list",
    examples="""\
  atoll tenant list
  atoll tenant list -o wide
  atoll tenant list -o name
""",
)
@output.shown_as()
@connected
async def list_(client: "AsyncClient", style: str) -> None:
    """All tenants."""
    output.shown(views.TENANTS, await client.tenants.list(), style)


@tenant.command(
    "delete",
    examples="""\
  atoll get workloads -t shop     must be empty before
  atoll tenant delete shop
  atoll tenant delete shop --yes
""",
)
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@mutation
@connected
async def delete(client: "AsyncClient", name: str, yes: bool, request_id: str) -> None:
    """Delete a tenant that has no workloads any more."""
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("nobody is here to ask; say --yes")
        click.confirm(f"Delete tenant {output.visible(name)}?", abort=True, err=True)
    await client.tenants.delete(name, request_id=request_id)
    output.write(f"tenant/{output.visible(name)} deleted\n")


@quota.command(
    "get", examples="  atoll quota get\n  atoll quota get shop -o json\n  atoll top tenants     all of them\n"
)
@click.argument("name", default="")
@output.shown_as()
@connected
async def quota_get(client: "AsyncClient", name: str, style: str) -> None:
    """What a tenant, that of the context if none is named, may use, what is in effect, granted to regions, and used: of
    its quota, and of the burst beside it, by which low and best-effort work runs while others leave it the room."""
    name = name or client.connection.tenant
    tenant = await client.tenants.get(name)
    status, burst = tenant.status, tenant.status.burst
    parts = {"quota": tenant.spec.quota, "effective": status.effective, "granted": status.granted, "used": status.used}
    parts |= {"burst": burst.limit, "burst effective": burst.effective}
    parts |= {"burst granted": burst.granted, "burst used": burst.used}
    if not output.is_table(style):
        written = {_word(key): views.quantities(amount) for key, amount in parts.items()}
        kept = {part.region: views.quantities(part.amount) for part in tenant.spec.protected}
        document = {"tenant": name, **written} | ({"protected": kept} if kept else {})
        output.write(output.documents([document], style, names=[f"tenant/{name}"], single=True))
        return
    parts |= {f"protected in {part.region}": part.amount for part in tenant.spec.protected}
    rows = [[key, *(views.rounded(getattr(amount, d), d) for d in DIMENSIONS)] for key, amount in parts.items()]
    output.write(output.table(["", *(d.partition("_")[0].upper() for d in DIMENSIONS)], rows))


def _word(label: str) -> str:
    """`burstEffective` of `burst effective`."""
    first, *rest = label.split()
    return first + "".join(map(str.capitalize, rest))


@quota.command(
    "set",
    examples="""\
  atoll quota set shop --cpu 40 --memory 128Gi
  atoll quota set shop --gpu 2
  atoll quota set shop --weight 3        its part when tenants compete
  atoll quota set shop --burst 0         nothing beyond the quota, not even of low priority
  atoll quota set shop --cpu 10 --dry-run
""",
)
@click.argument("name")
@amounts
@weighed
@bursting
@click.option("--dry-run", is_flag=True, help="Only let the server check it.")
@output.result
@mutation
@connected
async def set_(
    client: "AsyncClient",
    name: str,
    style: str,
    weight: int | None,
    burst: int | None,
    dry_run: bool,
    request_id: str,
    **quota: str,
) -> None:
    """Change a tenant's quota, burst or weight; what is not given stays. What is lowered takes effect as work ends."""
    document = await client.tenants.get(name)
    _set(document.spec.quota, quota)
    document.spec.weight = document.spec.weight if weight is None else weight
    document.spec.burst_percent = document.spec.burst_percent if burst is None else burst
    generation = document.metadata.generation
    answer = await client.tenants.apply(document, request_id=request_id, dry_run=dry_run, if_generation=generation)
    show(style, "Tenant", answer.tenant, answer.outcome + " (dry run)" * dry_run)


@quota.command(
    "protect",
    examples="""\
  atoll quota protect shop eu-west --cpu 4 --memory 8Gi
  atoll quota protect shop eu-west --cpu 0 --memory 0        not any more
  atoll quota get shop
""",
)
@click.argument("name")
@click.argument("region")
@amounts
@click.option("--dry-run", is_flag=True, help="Only let the server check it.")
@output.result
@mutation
@connected
async def protect(
    client: "AsyncClient", name: str, region: str, style: str, dry_run: bool, request_id: str, **quota: str
) -> None:
    """Keep a part of a region for a tenant, used or not; what is not given stays."""
    document = await client.tenants.get(name)
    parts = {part.region: part for part in document.spec.protected}
    part = parts.get(region) or document.spec.protected.add(region=region)
    _set(part.amount, quota)
    kept = [one for one in document.spec.protected if any(getattr(one.amount, d) for d in DIMENSIONS)]
    del document.spec.protected[:]
    document.spec.protected.extend(kept)
    generation = document.metadata.generation
    answer = await client.tenants.apply(document, request_id=request_id, dry_run=dry_run, if_generation=generation)
    show(style, "Tenant", answer.tenant, answer.outcome + " (dry run)" * dry_run)


def _set(quota: objects_pb2.Resources, texts: dict[str, str]) -> None:
    mistakes = []
    for name, text in texts.items():
        unit = f"{name}_milli" if name in ("cpu", "gpu") else f"{name}_mib"
        try:
            if text:
                setattr(quota, unit, resources.parse_quantity(text, unit))
        except resources.QuantityError as error:
            mistakes.append(errors.Mistake(f"--{name}", str(error)))
    if mistakes:
        raise errors.Invalid("the quota is not well formed", mistakes=tuple(mistakes))
