"""`completion`: what makes a shell complete commands and options."""

from typing import Any

import click
from click.shell_completion import get_completion_class

from atoll.cli import output
from atoll.cli.command import Command


@click.command(
    cls=Command,
    examples="""\
  source <(atoll completion bash)
  atoll completion zsh > "${fpath[1]}/_atoll"
  atoll completion fish > ~/.config/fish/completions/atoll.fish
""",
)
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes the shell complete commands and options."""
    kind: Any = get_completion_class(shell)
    root: Any = context.find_root().command
    script = kind(root, {}, "atoll", "_ATOLL_COMPLETE")
    output.write(script.source_template % script.source_vars())
