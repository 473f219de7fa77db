"""`context`: which cluster to talk to, and as whom."""

from dataclasses import replace
from pathlib import Path

import click

from atoll import errors
from atoll.cli import output
from atoll.cli.command import Group
from atoll.sdk import contexts


@click.group(
    cls=Group,
    examples="""\
  atoll context list
  atoll context set prod --address atoll.example.com:7070 --ca ca.crt --token "$TOKEN" --tenant shop
  atoll context use prod
""",
)
def context() -> None:
    """Named clusters in ~/.config/atoll/config.toml, or $ATOLL_CONFIG."""


@context.command(
    "list",
    examples="  atoll context list\n  atoll context list -o json\n  ATOLL_CONFIG=other.toml atoll context list\n",
)
@output.shown_as()
def list_(style: str) -> None:
    """All contexts; the current one is marked. Never their tokens."""
    known = contexts.load()
    if not output.is_table(style):
        shown = ("address", "ca", "certificate", "tenant", "etcd_endpoints")
        found = [
            {"name": name, "current": name == known.current, **{f: getattr(it, f) for f in shown if getattr(it, f)}}
            for name, it in known.named.items()
        ]
        output.write(output.documents(found, style, names=[f"context/{name}" for name in known.named]))
        return
    rows = [
        [
            "*" if name == known.current else " ",
            name,
            it.address,
            it.tenant,
            "certificate" if it.certificate else "token",
            *([it.ca, it.etcd_endpoints] if style == "wide" else []),
        ]
        for name, it in known.named.items()
    ]
    if rows:
        more = ["CA", "ETCD"] if style == "wide" else []
        output.write(output.table(["", "NAME", "ADDRESS", "TENANT", "AS", *more], rows))
    else:
        output.tell(f"no contexts in {contexts.config_path()}\nTry   atoll dev")


@context.command(
    "use",
    examples="""\
  atoll context list                       shows the names
  atoll context use prod
  atoll get nodes --context prod           only this once
""",
)
@click.argument("name")
def use(name: str) -> None:
    """Make a context the current one."""
    known = contexts.load()
    if name not in known.named:
        raise errors.Invalid(f"there is no context {name!r}", hint="atoll context list", code="E1012")
    contexts.save(replace(known, current=name))


@context.command(
    "set",
    examples="""\
  atoll context set prod --address host:7070 --ca ca.crt --token "$TOKEN"
  atoll context set prod --address host:7071 --ca ca.crt --certificate me.crt --key me.key
  atoll context set prod --tenant shop
""",
)
@click.argument("name")
@click.option("--address", default="", metavar="HOST:PORT…", help="One or more servers, separated by commas.")
@click.option("--ca", default="", metavar="FILE", help="The cluster's root certificate.")
@click.option("--token", default="", help="A user token.")
@click.option("--certificate", default="", metavar="FILE", help="Instead of a token.")
@click.option("--key", default="", metavar="FILE", help="The certificate's key.")
@click.option("--tenant", default="", help="Used where a command names none.")
@click.option("--etcd", "etcd_endpoints", default="", metavar="HOST:PORT…", help="Members of the store, for verify.")
@click.option("--etcd-ca", default="", metavar="FILE", help="For TLS to them: their root; with both below.")
@click.option("--etcd-certificate", default="", metavar="FILE")
@click.option("--etcd-key", default="", metavar="FILE")
def set_(name: str, **values: str) -> None:
    """Create a context, or change what is given; it becomes the current one."""
    known = contexts.load()
    for file in ("ca", "certificate", "key", "etcd_ca", "etcd_certificate", "etcd_key"):
        if values[file]:
            values[file] = str(Path(values[file]).absolute())
    changed = replace(known.named.get(name, contexts.Connection()), **{k: v for k, v in values.items() if v})
    if values["token"]:
        changed = replace(changed, certificate="", key="")
    elif values["certificate"]:
        changed = replace(changed, token="")
    output.tell(f"context {output.visible(name)} in {contexts.save(contexts.with_context(known, name, changed))}")
