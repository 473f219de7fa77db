"""`version`: of this program and of what it stands on."""

import click

from atoll import __version__, manifest
from atoll.cli import findings, output
from atoll.cli.command import Command


@click.command(
    cls=Command,
    examples="""\
  atoll version
  atoll version -o json
  atoll --version        one line
""",
)
@click.option("-o", "--output", "style", type=click.Choice(("text", "json")), default="text")
def version(style: str) -> None:
    """Versions of Atoll, Python and the etcd found here."""
    versions = {"atoll": __version__, "python": findings.python().found, "etcd": findings.etcd().found}
    if style == "json":
        output.write(manifest.to_json(versions) + "\n")
    else:
        output.write("".join(f"{name} {found}\n" for name, found in versions.items()))
