"""Commands and groups whose help opens with examples, and a word for one that was misspelt."""

from collections.abc import Callable
from typing import Any

import click
from click.decorators import FC


class Command(click.Command):
    """`examples` stands above everything else in the help."""

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(self.examples, formatter)
        super().format_help(ctx, formatter)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Under their titles, those without one first."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            if isinstance(param, click.Option) and (record := param.get_help_record(ctx)):
                sections.setdefault(getattr(param, "section", "Options"), []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def section(title: str, options: Callable[[FC], FC]) -> Callable[[FC], FC]:
    """These options stand under a title of their own in the help."""

    def decorate(verb: FC) -> FC:
        before = len(getattr(verb, "__click_params__", ()))
        verb = options(verb)
        for param in getattr(verb, "__click_params__", ())[before:]:
            param.section = title
        return verb

    return decorate


class Group(click.Group):
    """A noun; its verbs are Commands."""

    command_class = Command
    group_class = type  # groups within a group are of the same kind

    def __init__(self, *args: Any, examples: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_examples(self.examples, formatter)
        super().format_help(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            import difflib

            close = difflib.get_close_matches(args[0], known, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; {ctx.command_path} --help lists them"
            ctx.fail(f"no such command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


def _write_examples(examples: str, formatter: click.HelpFormatter) -> None:
    if examples:
        formatter.write("Examples:\n" + examples.rstrip("\n") + "\n\n")
