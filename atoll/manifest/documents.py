"""Whole documents: apiVersion, kind, metadata and spec; several in one text."""

import re
import time
from dataclasses import dataclass, field

from google.protobuf.message import Message
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from atoll.api.v1 import objects_pb2
from atoll.manifest import schema
from atoll.manifest.forms import Entry
from atoll.manifest.reader import Path, Reader, did_you_mean
from atoll.manifest.source import ManifestError, Mark, compose, described
from atoll.manifest.writer import API_VERSION

KINDS: dict[str, type[Message]] = {
    "Workload": objects_pb2.Workload,
    "Tenant": objects_pb2.Tenant,
    "SchedulerPolicy": objects_pb2.SchedulerPolicy,
}
LIST = "List"


@dataclass(frozen=True, slots=True)
class Document:
    """One message and where each of its values stood in the text."""

    kind: str
    message: Message
    source: str
    places: dict[str, tuple[int, int]] = field(repr=False, compare=False)

    def mark(self, path: str, message: str) -> Mark:
        """A server's mistake at `path`, at its place in the text; at the nearest place above when it was left out."""
        line, column = 0, 0
        for prefix in _prefixes(path):
            if prefix in self.places:
                line, column = self.places[prefix]
                break
        return Mark(self.source, line, column, path, message)


def parse(text: str | bytes, source: str = "<stdin>", now_ms: int | None = None) -> list[Document]:
    """Every document of the text, YAML or JSON. `status` is skipped. `now_ms`: what `now+2h` counts from, else this
    machine's clock. Raises ManifestError with all mistakes."""
    nodes, broken = compose(text, source)
    reader = Reader(source, round(time.time() * 1000) if now_ms is None else now_ms)
    documents = [document for node in nodes for document in _documents(node, reader)]
    if broken or reader.mistakes:
        raise ManifestError([*broken, *reader.mistakes])
    if not documents:
        raise ManifestError([Mark(source, 0, 0, "", "holds no document")])
    return documents


def _documents(node: Node, reader: Reader, *, in_list: bool = False) -> list[Document]:
    """The document at `node`, or those of a list."""
    root = Path()
    if not isinstance(node, MappingNode):
        reader.wrong(node, root, f"a document is a map with apiVersion, kind, metadata and spec, not {described(node)}")
        return []
    entries = {entry.name: entry for entry in reader.entries(node, root)}
    _check_version(node, entries, reader)
    kind = _kind(node, entries, reader)
    if kind is None:
        return []
    if kind != LIST:
        return [_document(node, kind, entries, reader)]
    items = entries["items"].value if "items" in entries else None
    if in_list or not isinstance(items, SequenceNode):
        reader.wrong(node, root.field("items"), "a list in a list" if in_list else "is missing: the list of documents")
        return []
    return [document for item in items.value for document in _documents(item, reader, in_list=True)]


def _document(node: Node, kind: str, entries: dict[str, Entry], reader: Reader) -> Document:
    message = KINDS[kind]()
    known = schema.fields(message.DESCRIPTOR)
    places = reader.places = {}
    for name, entry in entries.items():
        path = Path().field(name)
        if name in ("metadata", "spec"):
            reader.message(entry.value, getattr(message, known[name].proto), path)
        elif name not in ("apiVersion", "kind", "status"):
            names = ["apiVersion", "kind", *known]
            reader.wrong(entry.key, path, f"unknown field{did_you_mean(name, names)}")
    for name in ("metadata", "spec"):
        if name not in entries:
            reader.wrong(node, Path().field(name), "is missing")
    metadata = entries.get("metadata")
    if metadata is not None and "metadata.name" not in places and isinstance(metadata.value, MappingNode):
        reader.wrong(metadata.value, Path().field("metadata.name"), "is missing")
    if isinstance(message, objects_pb2.Workload) and message.spec.spread.fixed:
        for index, task in enumerate(message.spec.tasks):
            if f"spec.tasks[{index}].replicas" not in places:
                task.replicas = 0  # the fixed counts say it
    return Document(kind, message, reader.source, places)


def _check_version(node: Node, entries: dict[str, Entry], reader: Reader) -> None:
    path = Path().field("apiVersion")
    entry = entries.get("apiVersion")
    if entry is None:
        reader.wrong(node, path, f"is missing; write apiVersion: {API_VERSION}")
    elif not isinstance(entry.value, ScalarNode) or entry.value.value != API_VERSION:
        reader.wrong(entry.value, path, f"must be {API_VERSION}, not {described(entry.value)}")


def _kind(node: Node, entries: dict[str, Entry], reader: Reader) -> str | None:
    path = Path().field("kind")
    entry = entries.get("kind")
    if entry is None:
        reader.wrong(node, path, f"is missing; one of {', '.join(KINDS)}")
        return None
    word = entry.value.value if isinstance(entry.value, ScalarNode) else None
    if word in KINDS or word == LIST:
        return str(word)
    hint = did_you_mean(word, list(KINDS)) if isinstance(word, str) else ""
    reader.wrong(entry.value, path, f"{described(entry.value)} is not one of {', '.join(KINDS)}{hint}")
    return None


def _prefixes(path: str) -> list[str]:
    """The path and all paths above it, longest first."""
    cuts = [match.start() for match in re.finditer(r"[.\[]", path)]
    return [path, *(path[:cut] for cut in reversed(cuts))]
