"""`node token`: with what nodes join."""

from typing import TYPE_CHECKING

import click

from atoll.cli import output, views
from atoll.cli.command import Group
from atoll.cli.session import Seconds, connected
from atoll.cli.workloads import mutation, show
from atoll.manifest import scalars

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient


@click.group(
    "token",
    cls=Group,
    examples="""\
  atoll node token create --region eu-west --pool default
  atoll node token list
  atoll node token revoke 3f9a
""",
)
def token() -> None:
    """Join tokens: each lets one node join, once."""


@token.command(
    "create",
    examples="""\
  atoll node token create --region eu-west --node n7 --ttl 10m
  atoll node token create --region eu-west --pool memory --label pool=memory
  atoll node token create > join.token
  atoll node token create --node n7 --request-id join-n7     asked again, the same token
""",
)
@click.option("--region", default="", help="May be left out where there is only one.")
@click.option("--pool", default="default", show_default=True)
@click.option("--node", default="", help="Only this name may join; else any.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A trusted label of the node.")
@click.option("--ttl", type=Seconds(), default="15m", show_default=True, help="At most 30m.")
@mutation
@connected
async def create(
    client: "AsyncClient", region: str, pool: str, node: str, labels: tuple[str, ...], ttl: float, request_id: str
) -> None:
    """Create a token with which one node may join, once. It goes to standard output, and is stored nowhere."""
    pairs = [text.partition("=") for text in labels]
    if any(not separator for _, separator, _ in pairs):
        raise click.BadParameter("--label wants KEY=VALUE")
    answer = await client.tokens.create_join(
        region=region, pool=pool, node=node, ttl_s=round(ttl), labels={k: v for k, _, v in pairs}, request_id=request_id
    )
    record = answer.record
    output.tell(f"for one node of {record.region}, good until {scalars.format_instant(record.expires_ms)}")
    output.write(answer.token + "\n")


@token.command(
    "list",
    examples="""\
  atoll node token list                        of every region
  atoll node token list --region eu-west --pool gpu -o wide
  atoll node token list --region eu-west -o name
""",
)
@click.option("--region", default="", help="Only those of this region.")
@click.option("--pool", default="", help="Only those of this pool.")
@output.shown_as()
@connected
async def list_(client: "AsyncClient", region: str, pool: str, style: str) -> None:
    """Tokens that have not expired: open, used or revoked. Never their secrets."""
    answer = await client.tokens.list_join(region=region)
    output.tell_unreachable(answer.unreachable)
    output.shown(views.JOIN_TOKENS, [token for token in answer.tokens if pool in ("", token.pool)], style)


@token.command(
    "revoke",
    examples="""\
  atoll node token list                        shows the IDs
  atoll node token revoke 6a1f0c5d2b3e4f70
  atoll node token revoke 6a1f0c5d2b3e4f70 --request-id revoke-n7
""",
)
@click.argument("id_", metavar="ID")
@click.option("--region", default="", help="May be left out: the region that has it.")
@output.result
@mutation
@connected
async def revoke(client: "AsyncClient", id_: str, region: str, style: str, request_id: str) -> None:
    """No node joins with it any more. A node that did stays: `atoll node remove` ends it."""
    record = await client.tokens.revoke_join(id_, region=region, request_id=request_id)
    used = f"; node {record.used_by.partition(' ')[0]} has joined with it, and stays" if record.used_ms else ""
    show(style, "JoinToken", record, f"revoked{used}")
