"""From text to YAML nodes that know their line and column, within bounds, never crashing on any input.

PyYAML composes; it does not construct: values are read by the reader, which knows what each field wants. Size, depth
and the number of nodes visited are bounded, so nesting and aliases cannot exhaust the reader.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from atoll import errors

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 100_000
MERGE = "tag:yaml.org,2002:merge"
NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A mistake at a place: lines and columns count from 1; 0 where there is no place."""

    source: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        """`file:line:column: path: message`."""
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ManifestError(errors.Invalid):
    """Everything that is wrong in the text, in the order of the text."""

    def __init__(self, marks: list[Mark]) -> None:
        self.marks = tuple(sorted(set(marks)))
        count = "1 mistake" if len(self.marks) == 1 else f"{len(self.marks)} mistakes"
        super().__init__(
            f"{count} in {self.marks[0].source}",
            mistakes=tuple(errors.Mistake(mark.path, mark.message) for mark in self.marks),
        )

    def __str__(self) -> str:
        return "\n".join(map(str, self.marks))


class _Loader(yaml.SafeLoader):
    """Composes with bounded depth: PyYAML's composer recurses."""

    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self.depth += 1
        try:
            if self.depth > MAX_DEPTH:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.composer.ComposerError(None, None, f"more than {MAX_DEPTH} levels deep", mark)
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


def compose(text: str | bytes, source: str) -> tuple[list[Node], list[Mark]]:
    """The documents that could be read (empty ones left out), and what is wrong with the text itself."""
    nodes: list[Node] = []
    if len(text) > MAX_BYTES:
        return [], [Mark(source, 0, 0, "", f"is larger than {MAX_BYTES // 1024} KiB")]
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        loader = _Loader(text)
        try:
            while loader.check_node():
                node = loader.get_node()
                if node is not None and node.tag != NULL:
                    nodes.append(node)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        return nodes, [Mark(source, 0, 0, "", f"is not UTF-8 text (byte {error.start})")]
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        line, column = (at.line + 1, at.column + 1) if at else (0, 0)
        return nodes, [Mark(source, line, column, "", f"not YAML: {error.problem or error.context}")]
    except yaml.reader.ReaderError as error:
        return nodes, [Mark(source, 0, 0, "", f"not YAML: character {error.character!r} is not allowed in a text")]
    except (ValueError, OverflowError):
        return nodes, [Mark(source, 0, 0, "", "not YAML: an escaped character that does not exist")]
    return nodes, []


def pairs(node: MappingNode, depth: int = 0) -> Iterator[tuple[Node, Node, bool]]:
    """Keys and values; those of a merge (`<<: *defaults`) come last and are marked, for they give way."""
    merged: list[Node] = []
    for key, value in node.value:
        if key.tag == MERGE:
            merged.extend(value.value if isinstance(value, SequenceNode) else [value])
        else:
            yield key, value, False
    for value in merged:
        if isinstance(value, MappingNode) and depth < MAX_DEPTH:
            for key, item, _ in pairs(value, depth + 1):
                yield key, item, True


def described(node: Node) -> str:
    """What the user wrote, for an error."""
    if isinstance(node, MappingNode):
        return "a map"
    if isinstance(node, SequenceNode):
        return "a list"
    if node.tag == NULL:
        return "nothing"
    value = str(node.value)
    return repr(value if len(value) <= 40 else value[:40] + "…")


def text_of(node: ScalarNode) -> str:
    """The scalar as written. JSON's surrogate pairs become one character; half a pair is no text (ValueError)."""
    value = str(node.value)
    return value.encode("utf-16", "surrogatepass").decode("utf-16")
