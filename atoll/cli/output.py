"""What goes to standard output: tables for people, and the API's messages as JSON or YAML for programs.

Names may come from strangers: nothing that moves a cursor reaches a terminal unescaped.
"""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click
from click.decorators import FC
from google.protobuf.message import Message

from atoll import manifest

FORMATS = ("table", "wide", "json", "yaml", "name", "jsonl")
RESULTS = ("name", "json", "yaml")
Item = TypeVar("Item", bound=Message)


@dataclass(frozen=True, slots=True)
class View(Generic[Item]):
    """How one kind is shown. `columns` for every table, `more` for wide ones."""

    kind: str
    name: Callable[[Item], str]
    columns: dict[str, Callable[[Item], str]]
    more: dict[str, Callable[[Item], str]]


def shown_as(default: str = "table") -> Callable[[FC], FC]:
    """The option of every command that shows something."""
    return click.option(
        "-o",
        "--output",
        "style",
        type=click.Choice(FORMATS),
        default=default,
        show_default=True,
        help="How to show it.",
    )


def result(verb: FC) -> FC:
    """The option of every command whose change has a result."""
    text = "What to print of the result."
    return click.option("-o", "--output", "style", type=click.Choice(RESULTS), default="name", help=text)(verb)


def is_table(style: str) -> bool:
    return style in ("table", "wide")


def visible(text: str, *, keep_lines: bool = False) -> str:
    """`text` with every character that is not printable written as an escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or (keep_lines and c == "\n") else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode() if ord(character) > 31 else f"\\x{ord(character):02x}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, with_headers: bool = True) -> str:
    """Columns aligned with spaces, two apart; an empty cell is a dash."""
    cells = [[visible(cell) or "-" for cell in row] for row in rows]
    lines = [list(headers), *cells] if with_headers else cells
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(len(headers))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )


def render(view: View[Item], items: Sequence[Item], style: str, *, single: bool = False, headers: bool = True) -> str:
    """The items in one of FORMATS. `single`: one was asked for by name, so JSON is not a list."""
    if style == "name":
        return "".join(f"{view.kind.lower()}/{visible(view.name(item))}\n" for item in items)
    if style in ("json", "yaml", "jsonl"):
        documents = [manifest.tree(item, view.kind) for item in items]
        if style == "yaml":
            return manifest.to_yaml(documents)
        if style == "jsonl":
            return "".join(manifest.to_json(document, indent=None) + "\n" for document in documents)
        whole: dict[str, Any] = {"apiVersion": "atoll/v1", "kind": "List", "items": documents}
        return manifest.to_json(documents[0] if single and documents else whole) + "\n"
    columns = {**view.columns, **view.more} if style == "wide" else view.columns
    rows = [[cell(item) for cell in columns.values()] for item in items]
    return table(list(columns), rows, with_headers=headers)


def shown(view: View[Item], items: Sequence[Item], style: str) -> None:
    """All the items, to standard output; that there are none is told beside it."""
    if items or not is_table(style):
        write(render(view, items, style))
    else:
        tell("no " + "".join(f" {c.lower()}" if c.isupper() else c for c in view.kind).strip() + "s")


def documents(found: Sequence[dict[str, Any]], style: str, *, names: Iterable[str], single: bool = False) -> str:
    """What is no document of the API, in one of FORMATS that are no tables. `names`: of what it is about, as kind/name.
    `single`: one thing, so JSON is no list."""
    if style == "name":
        return "".join(f"{visible(name)}\n" for name in names)
    if style == "yaml":
        return manifest.to_yaml(list(found))
    if style == "jsonl":
        return "".join(manifest.to_json(one, indent=None) + "\n" for one in found)
    return manifest.to_json(found[0] if single else {"items": list(found)}) + "\n"


def write(text: str) -> None:
    """Data, to standard output, at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def tell(text: str) -> None:
    """Everything else, to standard error."""
    click.echo(text, err=True)


def tell_unreachable(regions: Iterable[str]) -> None:
    """What is missing in a list of every region."""
    for region in regions:
        tell(f"region {visible(region)} cannot be asked: what it has is not shown")


def age(since_ms: int) -> str:
    """`42s`, `3m`, `5h`, `9d` since a wall-clock time; empty for none."""
    return span(max(0, round(time.time() * 1000) - since_ms)) if since_ms else ""


def span(milliseconds: int) -> str:
    seconds = milliseconds // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s" if seconds >= 10 else f"{milliseconds // 100 / 10:.1f}s"
