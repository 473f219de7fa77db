"""From YAML nodes to messages: collects every mistake and remembers where each value stood.

Decides what text a field takes; the descriptors (schema.py) say which fields there are. Never raises for bad input:
`mistakes` holds what is wrong, and the message is then of no use.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from atoll.manifest import forms, scalars, schema, selectors
from atoll.manifest.schema import Field, Kind
from atoll.manifest.source import MAX_NODES, NULL, Mark, described, pairs, text_of
from atoll.model import resources

_INTEGER = re.compile(r"[-+]?[0-9]{1,19}")
_NUMBER = re.compile(r"[-+]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:e[-+]?[0-9]{1,3})?")
_STRING = "tag:yaml.org,2002:str"
_BOOL = "tag:yaml.org,2002:bool"
_LIMITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class Path:
    """Where we are: `written` as the user spelled it, `full` in the full shape, which servers use in their errors."""

    written: str = ""
    full: str = ""

    def field(self, name: str, written: str | None = None) -> "Path":
        spelled = name if written is None else written
        return Path(_joined(self.written, spelled), _joined(self.full, name))

    def item(self, index: int, *, spelled: bool = True) -> "Path":
        mark = f"[{index}]"
        return Path(self.written + mark if spelled else self.written, self.full + mark)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


class Reader:
    """Reads nodes of one text. `places` maps full paths to (line, column)."""

    def __init__(self, source: str, now_ms: int) -> None:
        self.mistakes: list[Mark] = []
        self.places: dict[str, tuple[int, int]] = {}  # of the document being read
        self.source = source
        self._now_ms = now_ms
        self._nodes = 0

    def wrong(self, node: Node, path: Path, message: str) -> None:
        """Notes a mistake."""
        mark = node.start_mark
        self.mistakes.append(Mark(self.source, mark.line + 1, mark.column + 1, path.written, message))

    def entries(self, node: MappingNode, path: Path) -> list[forms.Entry]:
        """The entries of a map, each name once; a merged one gives way to one that is written out."""
        found: dict[str, forms.Entry] = {}
        for key, value, merged in pairs(node):
            if self._exhausted(key, path):
                break
            if not isinstance(key, ScalarNode) or key.tag == NULL:
                self.wrong(key, path, f"a name is expected here, not {described(key)}")
                continue
            name = self._literal(key, path)
            if name is None:
                continue
            if name not in found:
                found[name] = forms.Entry(name, key, value, merged)
            elif not merged:
                first = found[name].key.start_mark.line + 1
                self.wrong(key, path.field(name), f"given twice, first in line {first}")
        return list(found.values())

    def message(self, node: Node, message: Message, path: Path) -> None:
        """Fills `message` from a map, or from a short form of it."""
        self._note(node, path)
        name = message.DESCRIPTOR.name
        message.SetInParent()
        if isinstance(node, ScalarNode) and name in forms.TEXT and node.tag != NULL:
            self._short(node, str(node.value), message, path)
        elif isinstance(node, SequenceNode) and name in forms.LISTS:
            field = schema.fields(message.DESCRIPTOR)[forms.LISTS[name]]
            self._field(node, field, message, path.field(field.name, ""))
        elif isinstance(node, MappingNode):
            self._map(node, message, path)
        else:
            self.wrong(node, path, f"must be a map, not {described(node)}")

    def _map(self, node: MappingNode, message: Message, path: Path) -> None:
        try:
            entries = forms.rewrite(message.DESCRIPTOR.name, self.entries(node, path))
        except forms.FormError as error:
            self.wrong(error.at.key, path.field(error.at.name), str(error))
            return
        seen: dict[str, forms.Entry] = {}
        for entry in entries:
            written = path.field(entry.name, entry.written if entry.written or entry.name != entry.key.value else None)
            field, factor = self._look_up(entry, message, written)
            if field is None or self._exhausted(entry.value, path):
                continue
            if field.proto in seen:
                self.wrong(entry.key, written, f"says the same as {seen[field.proto].name!r}; keep one of them")
                continue
            seen[field.proto] = entry
            at = Path(written.written, path.field(field.name).full)
            if factor:
                self._seconds(entry.value, field, factor, message, at)
            else:
                self._field(entry.value, field, message, at)
        for proto, default in schema.DEFAULTS.get(message.DESCRIPTOR.name, {}).items():
            if proto not in seen:
                setattr(message, proto, default)

    def _look_up(self, entry: forms.Entry, message: Message, path: Path) -> tuple[Field | None, int]:
        known, others = schema.fields(message.DESCRIPTOR), schema.ALIASES.get(message.DESCRIPTOR.name, {})
        if entry.name in known:
            return known[entry.name], 0
        if entry.name in others:
            alias = others[entry.name]
            return schema.fields_by_proto(message.DESCRIPTOR)[alias.proto], alias.factor
        names = [*known, *others, *(("task", *forms.BESIDE_TASK) if message.DESCRIPTOR.name == "WorkloadSpec" else ())]
        self.wrong(entry.key, path, f"unknown field{did_you_mean(entry.name, names)}")
        return None, 0

    def _field(self, node: Node, field: Field, message: Message, path: Path) -> None:
        self._note(node, path)
        if field.kind is Kind.LABELS:
            self._labels(node, getattr(message, field.proto), path)
        elif field.repeated:
            self._list(node, field, getattr(message, field.proto), path)
        elif field.kind is Kind.MESSAGE:
            self._submessage(node, field, message, path)
        else:
            value = self._scalar(node, field, path)
            if value is not None:
                setattr(message, field.proto, value)

    def _submessage(self, node: Node, field: Field, message: Message, path: Path) -> None:
        group = field.descriptor.containing_oneof
        other = message.WhichOneof(group.name) if group is not None else None
        if other is not None:
            self.wrong(node, path, f"{other!r} is given too; only one of them is possible")
            return
        self.message(node, getattr(message, field.proto), path)

    def _list(self, node: Node, field: Field, target: Any, path: Path) -> None:
        element = field.descriptor.message_type
        if isinstance(node, ScalarNode) and element is not None and element.name in forms.TEXT_LISTS:
            for text in selectors.split(str(node.value)):
                self._short(node, text, target.add(), path)
            return
        if not isinstance(node, SequenceNode):
            hint = f"; write [{described(node)}]" if isinstance(node, ScalarNode) and node.tag != NULL else ""
            self.wrong(node, path, f"must be a list, not {described(node)}{hint}")
            return
        for index, item in enumerate(node.value):
            at = path.item(index, spelled=bool(node.tag))
            if self._exhausted(item, path):
                return
            if element is not None:
                self.message(item, target.add(), at)
            else:
                self._note(item, at)
                value = self._scalar(item, field, at)
                if value is not None:
                    target.append(value)

    def _short(self, node: Node, text: str, message: Message, path: Path) -> None:
        try:
            message.CopyFrom(forms.TEXT[message.DESCRIPTOR.name](text))
        except ValueError as error:
            self.wrong(node, path, str(error))

    def _labels(self, node: Node, target: Any, path: Path) -> None:
        """A map of names and values, or Kubernetes' list of {name, value}. Sorted by name in the message."""
        if isinstance(node, SequenceNode):
            found = self._named_values(node.value, path)
        elif isinstance(node, MappingNode):
            found = [(e.name, e.key, e.value, path.field(e.name)) for e in self.entries(node, path)]
        else:
            self.wrong(node, path, f"must be a map of names and values, not {described(node)}")
            return
        values: dict[str, str] = {}
        for name, key, value, at in found:
            self._note(value, at)
            text = self._literal(value, at)
            if name in values:
                self.wrong(key, at, "given twice")
            elif text is not None:
                values[name] = text
        for name in sorted(values):
            target.add(key=name, value=values[name])

    def _named_values(self, items: Sequence[Node], path: Path) -> list[tuple[str, Node, Node, Path]]:
        found = []
        for index, item in enumerate(items):
            at = path.item(index)
            if self._exhausted(item, path):
                break
            entries = {e.name: e for e in self.entries(item, at)} if isinstance(item, MappingNode) else {}
            if set(entries) != {"name", "value"}:
                self.wrong(item, at, "must be a map of 'name' and 'value'")
                continue
            name = self._literal(entries["name"].value, at.field("name"))
            if name is not None:
                found.append((name, entries["name"].key, entries["value"].value, path.field(name)))
        return found

    def _scalar(self, node: Node, field: Field, path: Path) -> Any:
        """The value of a field that is no message; None when it is wrong (and said so)."""
        if field.kind is Kind.TEXT:
            return self._literal(node, path) if field.repeated else self._text(node, path)
        if not isinstance(node, ScalarNode) or node.tag == NULL:
            self.wrong(node, path, f"must be {field.kind.value}, not {described(node)}")
            return None
        text = str(node.value)
        try:
            return _value(text, node.tag, field, self._now_ms)
        except ValueError as error:
            self.wrong(node, path, str(error))
            return None

    def _text(self, node: Node, path: Path) -> str | None:
        if isinstance(node, ScalarNode) and node.tag not in (_STRING, NULL):
            self.wrong(node, path, f'must be text, and {node.value[:40]} is not; write "{node.value[:40]}"')
            return None
        return self._literal(node, path)

    def _literal(self, node: Node, path: Path) -> str | None:
        """A scalar as it was written: `1.10` stays 1.10 and `yes` stays yes."""
        if not isinstance(node, ScalarNode) or node.tag == NULL:
            self.wrong(node, path, f"must be text, not {described(node)}")
            return None
        try:
            return text_of(node)
        except ValueError:
            self.wrong(node, path, "has half of a surrogate pair")
            return None

    def _seconds(self, node: Node, field: Field, factor: int, message: Message, path: Path) -> None:
        """A bare number of seconds, under the name that says so."""
        text = str(node.value) if isinstance(node, ScalarNode) else ""
        if not text.isascii() or not text.isdecimal() or len(text) > 9:
            self.wrong(node, path, f"must be a whole number of seconds, not {described(node)}")
            return
        setattr(message, field.proto, int(text) * factor)

    def _note(self, node: Node, path: Path) -> None:
        self.places[path.full] = (node.start_mark.line + 1, node.start_mark.column + 1)

    def _exhausted(self, node: Node, path: Path) -> bool:
        """Counts nodes as they are visited, through aliases too."""
        self._nodes += 1
        if self._nodes == MAX_NODES + 1:
            self.wrong(node, path, f"more than {MAX_NODES:,} values, counting aliases")
        return self._nodes > MAX_NODES


def _value(text: str, tag: str, field: Field, now_ms: int) -> Any:
    """Raises ValueError with what is wrong."""
    match field.kind:
        case Kind.QUANTITY:
            return resources.parse_quantity(text, field.proto)
        case Kind.DURATION:
            return scalars.parse_duration(text, field.proto)
        case Kind.INSTANT:
            return scalars.parse_instant(text, now_ms)
        case Kind.ENUM:
            assert field.descriptor.enum_type is not None
            return scalars.parse_enum(text, field.descriptor.enum_type)
        case Kind.SWITCH:
            if tag != _BOOL:
                raise ValueError(f"must be true or false, not {text[:40]!r}")
            return text.lower() in ("true", "yes", "on")
        case Kind.NUMBER:
            if not _NUMBER.fullmatch(text):
                raise ValueError(f"must be a number, not {text[:40]!r}")
            return float(text)
    if tag == _STRING or not _INTEGER.fullmatch(text):
        raise ValueError(f"must be a whole number, not {text[:40]!r}")
    smallest, largest = _LIMITS[field.descriptor.cpp_type]
    if not smallest <= int(text) <= largest:
        raise ValueError(f"{text} is out of range")
    return int(text)


def did_you_mean(word: str, known: list[str]) -> str:
    """`, did you mean "replicas"?` or nothing."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word[:64].lower(), list(folded), n=1, cutoff=0.6)
    return f', did you mean "{folded[close[0]]}"?' if close else ""
