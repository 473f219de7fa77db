"""`atoll`: the table of commands, and the one place where errors become exit codes.

Nothing is imported before it is needed: the table holds each command's one-line help, so `atoll --help` loads click and
no more.
"""

import importlib
import os
import sys
from typing import Any

import click

from atoll import __version__
from atoll.cli.command import Command, Group
from atoll.cli.failure import EXIT_INTERRUPTED, EXIT_USAGE, exit_code, report

# name: (module:function, one line of help)
COMMANDS: dict[str, dict[str, tuple[str, str]]] = {
    "Every day": {
        "init": ("atoll.cli.init:init", "Write a commented manifest to start from"),
        "apply": ("atoll.cli.workloads:apply", "Make it so: create or change what manifests say"),
        "run": ("atoll.cli.run:run", "Run a command without a manifest"),
        "get": ("atoll.cli.listing:get", "Show workloads, nodes, slots, tenants or regions"),
        "list": ("atoll.cli.listing:get", "The same as get"),
        "plan": ("atoll.cli.plan:plan", "What apply would change, and whether there is room"),
        "wait": ("atoll.cli.workloads:wait", "Wait until a workload is ready, serving or gone"),
        "why": ("atoll.cli.placement:why", "Why a replica is where it is, or not placed"),
        "queue": ("atoll.cli.queue:queue", "What waits, whose turn it is, and why something is not in line"),
        "logs": ("atoll.cli.logs:logs", "What a replica wrote"),
        "events": ("atoll.cli.events:events", "What happened"),
        "scale": ("atoll.cli.workloads:scale", "Change the number of replicas"),
        "delete": ("atoll.cli.workloads:delete", "Stop a workload and forget it"),
        "job": ("atoll.cli.jobs:job", "How far a job is; resume one that has failed"),
        "status": ("atoll.cli.status:status", "The cluster on one page"),
        "top": ("atoll.cli.top:top", "How full regions, nodes and tenants are"),
    },
    "Set up": {
        "demo": ("atoll.cli.demo:demo", "Atoll in about a minute, on this machine"),
        "dev": ("atoll.cli.dev:dev", "A whole cluster on this machine, for as long as you like"),
        "doctor": ("atoll.cli.doctor:doctor", "What this machine has, and whether it is good enough"),
        "context": ("atoll.cli.contexts:context", "Which cluster to talk to, and as whom"),
        "auth": ("atoll.cli.auth:auth", "Tokens for people"),
        "tenant": ("atoll.cli.tenants:tenant", "Tenants"),
        "quota": ("atoll.cli.tenants:quota", "What a tenant may use"),
        "region": ("atoll.cli.regions:region", "Regions: keep work out, move it away"),
        "policy": ("atoll.cli.policies:policy", "What the strategies of placement weigh: try, promote, roll back"),
        "node": ("atoll.cli.nodes:node", "Let nodes join, drain, mark and forget them"),
        "ca": ("atoll.cli.authority:ca", "The cluster's own certificate authority"),
        "verify": ("atoll.cli.verify:verify", "Check every invariant at every revision of the store"),
        "completion": ("atoll.cli.completion:completion", "Completion of commands for your shell"),
        "version": ("atoll.cli.version:version", "Versions of this program and what it found"),
    },
}
EXAMPLES = """\
  atoll dev                       a whole cluster here, in one command
  atoll init hello.yaml           a manifest to start from
  atoll apply -f hello.yaml       create it and wait until it serves
  atoll get workloads             what runs
  atoll why hello/0               why it is where it is
"""


class Root(Group):
    """Finds commands in the table and imports them when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for section in COMMANDS.values():
            if cmd_name in section:
                module, _, function = section[cmd_name][0].partition(":")
                command: Any = getattr(importlib.import_module(module), function)
                assert isinstance(command, Command | Group)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, (_, text) in section.items()])


@click.command(cls=Root, examples=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="atoll %(version)s")
def root() -> None:
    """Atoll runs workloads on many nodes in many regions."""


def main(arguments: list[str] | None = None) -> None:
    """The program: exits with the codes that docs/cli.md lists."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines on stderr are for its authors; read when it is imported
    try:
        root.main(arguments, prog_name="atoll", standalone_mode=False)
    except click.exceptions.Exit as end:
        sys.exit(end.exit_code)
    except click.ClickException as error:
        error.show(sys.stderr)
        sys.exit(EXIT_USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("\n")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if not report(error, sys.stderr):
            raise
        sys.exit(exit_code(error))
