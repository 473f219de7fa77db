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
@output.shown_as()
def doctor(style: str) -> None:
    """Look at Python, etcd, Docker, cgroup, file descriptors, clock, cores and ports, and say why they are good enough
    or not. Exit code 1 when something that is needed is missing."""
    found = findings.look()
    words = {True: "good", False: "BAD", None: "note"}
    if output.is_table(style):
        rows = [[words[finding.good], finding.name, finding.found, finding.advice] for finding in found]
        output.write(output.table(["", "WHAT", "FOUND", "SO"], rows))
    else:
        documents = [{**asdict(it), "good": words[it.good].lower()} for it in found]
        output.write(output.documents(documents, style, names=[it.name for it in found]))
    if any(finding.good is False for finding in found):
        output.tell("something that is needed is missing: see the rows that say BAD")
        sys.exit(EXIT_FAILED)
    output.tell("this machine is good enough\nTry   atoll dev")
