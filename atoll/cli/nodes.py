"""`node`: let nodes join."""

from typing import TYPE_CHECKING

import click

from atoll.cli import output
from atoll.cli.command import Group
from atoll.cli.session import Seconds, connected
from atoll.manifest import scalars

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient


@click.group(cls=Group, examples="  atoll node token create --region eu-west --pool default\n")
def node() -> None:
    """Let nodes join. `atoll get nodes` shows them."""


@node.group("token", examples="  atoll node token create --region eu-west --pool default\n")
def token() -> None:
    """Join tokens."""


@token.command("create", examples="  atoll node token create --region eu-west --node n7 --ttl 10m\n")
@click.option("--region", default="", help="May be left out where there is only one.")
@click.option("--pool", default="default", show_default=True)
@click.option("--node", default="", help="Only this name may join; else any.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A trusted label of the node.")
@click.option("--ttl", type=Seconds(), default="15m", show_default=True, help="At most 30m.")
@connected
async def create(client: "AsyncClient", region: str, pool: str, node: str, labels: tuple[str, ...], ttl: float) -> None:
    """Create a token with which one node may join, once. It is shown once, on standard output."""
    pairs = [text.partition("=") for text in labels]
    if any(not separator for _, separator, _ in pairs):
        raise click.BadParameter("--label wants KEY=VALUE")
    answer = await client.tokens.create_join(
        region=region, pool=pool, node=node, ttl_s=round(ttl), labels={k: v for k, _, v in pairs}
    )
    record = answer.record
    output.tell(f"for one node of {record.region}, good until {scalars.format_instant(record.expires_ms)}")
    output.write(answer.token + "\n")
