"""`doctor`: what this machine has, and whether it is good enough."""

import sys
from dataclasses import asdict

import click

from atoll.cli import findings, output
from atoll.cli.command import Command
from atoll.cli.failure import EXIT_FAILED


@click.command(
    cls=Command,
    examples="""\
  atoll doctor
  atoll doctor -o json
  atoll doctor && atoll dev
""",
)
@click.option("-o", "--output", "style", type=click.Choice(("table", "json", "jsonl", "yaml")), default="table")
def doctor(style: str) -> None:
    """Look at Python, etcd, Docker, cgroup, file descriptors, clock and ports, and say why they are good enough or not.
    Exit code 1 when something that is needed is missing."""
    found = findings.look()
    words = {True: "good", False: "BAD", None: "note"}
    if style == "table":
        rows = [[words[finding.good], finding.name, finding.found, finding.advice] for finding in found]
        output.write(output.table(["", "WHAT", "FOUND", "SO"], rows))
    else:
        output.write(output.documents([{**asdict(it), "good": words[it.good].lower()} for it in found], style))
    if any(finding.good is False for finding in found):
        output.tell("something that is needed is missing: see the rows that say BAD")
        sys.exit(EXIT_FAILED)
    output.tell("this machine is good enough\nTry   atoll dev")
