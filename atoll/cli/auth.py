"""`auth`: tokens for people."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from atoll import errors, tokens
from atoll.api.v1 import objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Group
from atoll.cli.session import Seconds, connected
from atoll.cli.workloads import mutation, show
from atoll.manifest import scalars
from atoll.sdk import contexts

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

ROLES = ("viewer", "user", "operator", "admin")


@click.group(
    cls=Group,
    examples="""\
  atoll auth token create ann --role user --for-tenant shop
  atoll auth login < token.txt
  atoll auth whoami
""",
)
def auth() -> None:
    """Tokens for people."""


@auth.command(
    "whoami", examples="  atoll auth whoami\n  atoll auth whoami -o json\n  atoll auth whoami --context prod\n"
)
@output.shown_as()
@connected
async def whoami(client: "AsyncClient", style: str) -> None:
    """Whom the server takes you for."""
    me = await client.tokens.whoami()
    if not output.is_table(style):
        found = {"name": me.name, "role": views.enum(me.role, objects_pb2.Role), "tenant": me.tenant}
        names = [f"user/{me.name}"]
        output.write(output.documents([{**found, "cluster": me.cluster}], style, names=names, single=True))
        return
    rows = [[me.name, views.enum(me.role, objects_pb2.Role), me.tenant, me.cluster]]
    output.write(output.table(["NAME", "ROLE", "TENANT", "CLUSTER"], rows))


@auth.command(
    "login",
    examples="""\
  atoll auth login                asks for it
  atoll auth login < token.txt
  atoll auth token create ann --role user --for-tenant shop > token.txt
""",
)
def login() -> None:
    """Keep a token in the current context. Reads it from standard input, so that it is in no history."""
    known = contexts.load()
    if known.current not in known.named:
        raise errors.Invalid("there is no current context", hint="atoll context set NAME --address HOST:PORT --ca FILE")
    token = click.prompt("Token", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline().strip()
    if tokens.parse_user(token) is None:
        raise errors.Invalid("this is no user token: those are atoll-user.ID.SECRET; nothing is changed")
    changed = replace(known.named[known.current], token=token, certificate="", key="")
    output.tell(f"kept in {contexts.save(contexts.with_context(known, known.current, changed))}")


@auth.group(
    "token",
    examples="""\
  atoll auth token create ann --role user --for-tenant shop
  atoll auth token list
  atoll auth token revoke 6a1f0c5d2b3e4f70
""",
)
def token() -> None:
    """User tokens."""


@token.command(
    "create",
    examples="""\
  atoll auth token create ann --role user --for-tenant shop --ttl 90d
  atoll auth token create board --role viewer --for-tenant shop > token.txt
  atoll auth token create eve --role operator
""",
)
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True)
@click.option("--for-tenant", default="", help="A viewer or user belongs to one tenant.")
@click.option("--ttl", type=Seconds(), default="30d", show_default=True, help="How long it is good for.")
@connected
async def create(client: "AsyncClient", name: str, role: str, for_tenant: str, ttl: float) -> None:
    """Create a user token. It is shown once, on standard output."""
    number = objects_pb2.Role.ValueType(scalars.parse_enum(role, objects_pb2.Role.DESCRIPTOR))
    answer = await client.tokens.create_user(name, number, tenant=for_tenant, ttl_s=round(ttl))
    output.tell(f"for {output.visible(name)}, good until {scalars.format_instant(answer.record.expires_ms)}")
    output.write(answer.token + "\n")


@token.command(
    "list", examples="  atoll auth token list\n  atoll auth token list -o json\n  atoll auth token list -o name\n"
)
@output.shown_as()
@connected
async def list_(client: "AsyncClient", style: str) -> None:
    """All user tokens. Never their secrets."""
    output.shown(views.USER_TOKENS, await client.tokens.list_user(), style)


@token.command(
    "revoke",
    examples="""\
  atoll auth token list                        shows the IDs
  atoll auth token revoke 6a1f0c5d2b3e4f70
  atoll auth token revoke 6a1f0c5d2b3e4f70 --request-id revoke-ann
""",
)
@click.argument("id_", metavar="ID")
@output.result
@mutation
@connected
async def revoke(client: "AsyncClient", id_: str, style: str, request_id: str) -> None:
    """Refuse the token from now on, in every region as soon as it hears of it. What still streams under it is cut."""
    record = await client.tokens.revoke_user(id_, request_id=request_id)
    show(style, "UserToken", record, f"revoked: it was {record.name}'s")
