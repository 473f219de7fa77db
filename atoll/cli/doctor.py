"""`doctor`: what this machine has, and whether it is good enough."""

import sys

import click

from atoll.cli import findings, output
from atoll.cli.command import Command
from atoll.cli.failure import EXIT_FAILED


@click.command(cls=Command, examples="  atoll doctor\n")
def doctor() -> None:
    """Look for etcd, Docker, Python and free ports. Exit code 1 when something that is needed is missing."""
    found = findings.look()
    words = {True: "good", False: "BAD", None: "note"}
    rows = [[words[finding.good], finding.name, finding.found, finding.advice] for finding in found]
    output.write(output.table(["", "WHAT", "FOUND", "SO"], rows))
    if any(finding.good is False for finding in found):
        sys.exit(EXIT_FAILED)
