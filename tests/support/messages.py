"""Hypothesis strategies for messages, driven by their descriptors: what no hand-written example thinks of."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from atoll.api.v1 import objects_pb2
from atoll.manifest import schema
from atoll.manifest.schema import Field, Kind

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
AMOUNT = st.one_of(st.integers(0, 4096), st.integers(0, 2**53))


@st.composite
def messages(draw: st.DrawFn, kind: type[Message], skip: tuple[str, ...] = ()) -> Any:
    """Any message of this type in the normal form: labels sorted by key, each once."""
    message = kind()
    names = [name for name in schema.fields(message.DESCRIPTOR) if name not in skip]
    groups: set[str] = set()
    for name in draw(st.sets(st.sampled_from(names))) if names else ():
        field = schema.fields(message.DESCRIPTOR)[name]
        group = field.descriptor.containing_oneof
        if group is not None and group.name in groups:
            continue
        groups.add(group.name if group is not None else "")
        _fill(draw, message, field)
    return message


def _fill(draw: st.DrawFn, message: Message, field: Field) -> None:
    target = getattr(message, field.proto)
    if field.kind is Kind.LABELS:
        for key, value in sorted(draw(st.dictionaries(TEXT, TEXT, max_size=3)).items()):
            target.add(key=key, value=value)
    elif field.repeated:
        target.extend(draw(st.lists(values(field), max_size=3)))
    elif field.kind is Kind.MESSAGE:
        target.SetInParent()
        target.CopyFrom(draw(values(field)))
    else:
        setattr(message, field.proto, draw(values(field)))


def values(field: Field) -> st.SearchStrategy[Any]:
    """Values one field may hold."""
    if field.kind is Kind.MESSAGE:
        assert field.descriptor.message_type is not None
        return messages(getattr(objects_pb2, field.descriptor.message_type.name))
    if field.kind is Kind.ENUM:
        assert field.descriptor.enum_type is not None
        numbers = [value.number for value in field.descriptor.enum_type.values]
        return st.sampled_from([number for number in numbers if number or not field.repeated])  # no list says nothing
    if field.kind is Kind.TEXT:
        return TEXT
    if field.kind is Kind.SWITCH:
        return st.booleans()
    if field.kind in (Kind.QUANTITY, Kind.DURATION, Kind.INSTANT):
        return AMOUNT if field.kind is Kind.QUANTITY else st.integers(0, 10**9)
    largest = 2**31 if field.descriptor.cpp_type == FieldDescriptor.CPPTYPE_INT32 else 2**63
    return st.integers(-largest, largest - 1)
