"""From messages to text: the same names and units that the reader takes. What is printed reads back as the same."""

import json
from typing import Any

import yaml
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from atoll.manifest import scalars, schema
from atoll.manifest.schema import Field, Kind
from atoll.model import resources

API_VERSION = "atoll/v1"


def tree(message: Message, kind: str = "") -> dict[str, Any]:
    """Plain dicts, lists and scalars, in the order of the fields; absent fields are left out.
    With `kind`: a whole document, headed by apiVersion and kind."""
    result: dict[str, Any] = {"apiVersion": API_VERSION, "kind": kind} if kind else {}
    always = schema.DEFAULTS.get(message.DESCRIPTOR.name, {})
    for name, field in schema.fields(message.DESCRIPTOR).items():
        value = getattr(message, field.proto)
        if field.kind is Kind.LABELS:
            if value:
                result[name] = {label.key: label.value for label in value}
        elif field.repeated:
            if value:
                result[name] = [_written(item, field) for item in value]
        elif field.kind is Kind.MESSAGE:
            if message.HasField(field.proto):
                result[name] = tree(value)
        elif value or field.proto in always or _chosen(message, field):
            result[name] = _written(value, field)
    return result


def to_yaml(documents: list[dict[str, Any]]) -> str:
    """Documents separated by `---`, in ASCII like JSON; besides, YAML folds some line breaks of Unicode."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=False, width=120)


def to_json(document: Any, *, indent: int | None = 2) -> str:
    """JSON in ASCII: names from strangers cannot move the cursor or hide."""
    return json.dumps(document, indent=indent)


class _Dumper(yaml.SafeDumper):
    """Repeats values instead of naming them with anchors, and indents lists below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _chosen(message: Message, field: Field) -> bool:
    group = field.descriptor.containing_oneof
    return group is not None and message.WhichOneof(group.name) == field.proto


def _written(value: Any, field: Field) -> Any:
    match field.kind:
        case Kind.MESSAGE:
            return tree(value)
        case Kind.QUANTITY:
            return resources.format_quantity(value, field.proto)
        case Kind.DURATION:
            return scalars.format_duration(value, field.proto)
        case Kind.INSTANT:
            return scalars.format_instant(value)
        case Kind.ENUM:
            assert field.descriptor.enum_type is not None
            return scalars.format_enum(value, field.descriptor.enum_type)
        case Kind.NUMBER:
            return round(value, 12 if field.descriptor.type == FieldDescriptor.TYPE_DOUBLE else 6)
    return value
