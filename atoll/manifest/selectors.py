"""Label requirements as text: `zone=us-east`, `gpu!=old`, `zone in (a,b)`, `zone notin (a)`, `gpu`, `!gpu`, `n>8`."""

import re

from atoll.api.v1 import objects_pb2

_KEY = r"[A-Za-z0-9][-A-Za-z0-9_./]*"
_VALUE = r"[-A-Za-z0-9_.]*"
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_COMPARISON = re.compile(rf"({_KEY})\s*(==|=|!=|>|<)\s*({_VALUE})")
_PRESENCE = re.compile(rf"(!?)\s*({_KEY})")
_OPERATORS = {
    "=": objects_pb2.SELECTOR_OPERATOR_IN,
    "==": objects_pb2.SELECTOR_OPERATOR_IN,
    "!=": objects_pb2.SELECTOR_OPERATOR_NOT_IN,
    ">": objects_pb2.SELECTOR_OPERATOR_GT,
    "<": objects_pb2.SELECTOR_OPERATOR_LT,
    "in": objects_pb2.SELECTOR_OPERATOR_IN,
    "notin": objects_pb2.SELECTOR_OPERATOR_NOT_IN,
}


class SelectorError(ValueError):
    """The text is no label requirement. The message says what would be."""


def parse_requirement(text: str) -> objects_pb2.LabelRequirement:
    """One requirement. Raises SelectorError."""
    text = text.strip()
    if match := _SET.fullmatch(text):
        values = [value.strip() for value in match[3].split(",")]
        return objects_pb2.LabelRequirement(key=match[1], operator=_OPERATORS[match[2]], values=values)
    if match := _COMPARISON.fullmatch(text):
        return objects_pb2.LabelRequirement(key=match[1], operator=_OPERATORS[match[2]], values=[match[3]])
    if match := _PRESENCE.fullmatch(text):
        exists = objects_pb2.SELECTOR_OPERATOR_EXISTS
        missing = objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST
        return objects_pb2.LabelRequirement(key=match[2], operator=missing if match[1] else exists)
    raise SelectorError(f"{text!r} is no label requirement, write for example zone=us-east, gpu, !gpu or zone in (a,b)")


def parse_selector(text: str) -> list[objects_pb2.LabelRequirement]:
    """Requirements separated by commas; all must hold. Raises SelectorError."""
    return [parse_requirement(part) for part in split(text)]


def split(text: str) -> list[str]:
    """Splits at the commas that are not inside parentheses."""
    return re.split(r",(?![^()]*\))", text)
