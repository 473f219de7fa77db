"""`version`: of this program and of what it stands on."""

import click

from atoll import __version__
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
@output.shown_as()
def version(style: str) -> None:
    """Versions of Atoll, Python and the etcd found here."""
    versions = {"atoll": __version__, "python": findings.python().found, "etcd": findings.etcd().found}
    if output.is_table(style):
        output.write(output.table(["", ""], [*versions.items()], with_headers=False))
    else:
        output.write(output.documents([versions], style, names=versions, single=True))
