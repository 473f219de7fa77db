"""Label requirements, taints and tolerations: what they mean, in plain Python.

The definition that the vectorized filters of the scheduler are compared with, and what checks user input. Units: none.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from atoll.api.v1 import objects_pb2
from atoll.model.names import mistake_in_label_key, mistake_in_label_value

_VALUES_NEEDED = {
    objects_pb2.SELECTOR_OPERATOR_IN: (1, 64),
    objects_pb2.SELECTOR_OPERATOR_NOT_IN: (1, 64),
    objects_pb2.SELECTOR_OPERATOR_EXISTS: (0, 0),
    objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST: (0, 0),
    objects_pb2.SELECTOR_OPERATOR_GT: (1, 1),
    objects_pb2.SELECTOR_OPERATOR_LT: (1, 1),
}


class Requirement(Protocol):
    """A LabelRequirement, or a value like it."""

    @property
    def key(self) -> str: ...
    @property
    def operator(self) -> int: ...
    @property
    def values(self) -> Sequence[str]: ...


def whole_number(text: str) -> int | None:
    """The integer that a label's value spells, or None. At most 15 digits, so that it is exact everywhere."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 15 else None


def mistake_in_requirement(requirement: objects_pb2.LabelRequirement) -> str | None:
    """What is wrong with a requirement, or None."""
    if mistake := mistake_in_label_key(requirement.key):
        return f"key {mistake}"
    if requirement.operator not in _VALUES_NEEDED:
        return "operator is missing: In, NotIn, Exists, DoesNotExist, Gt or Lt"
    fewest, most = _VALUES_NEEDED[requirement.operator]
    if not fewest <= len(requirement.values) <= most:
        return f"takes {fewest} to {most} values" if most > 1 else f"takes {most or 'no'} value{'s' * (not most)}"
    if requirement.operator in (objects_pb2.SELECTOR_OPERATOR_GT, objects_pb2.SELECTOR_OPERATOR_LT):
        text = requirement.values[0]
        return None if whole_number(text) is not None else f"{text!r} is not a whole number"
    return next((f"value {m}" for m in map(mistake_in_label_value, requirement.values) if m), None)


def matches(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy one requirement. NotIn holds for an absent label; Gt and Lt only for whole numbers."""
    value = labels.get(requirement.key)
    match requirement.operator:
        case objects_pb2.SELECTOR_OPERATOR_IN:
            return value is not None and value in requirement.values
        case objects_pb2.SELECTOR_OPERATOR_NOT_IN:
            return value is None or value not in requirement.values
        case objects_pb2.SELECTOR_OPERATOR_EXISTS:
            return value is not None
        case objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST:
            return value is None
        case objects_pb2.SELECTOR_OPERATOR_GT | objects_pb2.SELECTOR_OPERATOR_LT:
            found, bound = whole_number(value or ""), whole_number(requirement.values[0])
            if found is None or bound is None:
                return False
            return found > bound if requirement.operator == objects_pb2.SELECTOR_OPERATOR_GT else found < bound
    return False


def contradiction(requirements: Sequence[Requirement]) -> bool:
    """Whether no label, and no absence of it, can meet all of these legal requirements of one key."""
    operators = {r.operator for r in requirements}
    if not operators - {objects_pb2.SELECTOR_OPERATOR_NOT_IN, objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST}:
        return False  # met by its absence
    if objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST in operators:
        return True
    named = [set(r.values) for r in requirements if r.operator == objects_pb2.SELECTOR_OPERATOR_IN]
    if named:
        return not any(all(matches(r, {r.key: v}) for r in requirements) for v in set.intersection(*named))
    above = [int(r.values[0]) for r in requirements if r.operator == objects_pb2.SELECTOR_OPERATOR_GT]
    below = [int(r.values[0]) for r in requirements if r.operator == objects_pb2.SELECTOR_OPERATOR_LT]
    return bool(above and below) and max(above) + 1 >= min(below)


def spelt(requirement: Requirement) -> str:
    """As people write it in `requires`."""
    values = ",".join(requirement.values)
    match requirement.operator:
        case objects_pb2.SELECTOR_OPERATOR_IN if len(requirement.values) == 1:
            return f"{requirement.key}={values}"
        case objects_pb2.SELECTOR_OPERATOR_IN:
            return f"{requirement.key} in ({values})"
        case objects_pb2.SELECTOR_OPERATOR_NOT_IN if len(requirement.values) == 1:
            return f"{requirement.key}!={values}"
        case objects_pb2.SELECTOR_OPERATOR_NOT_IN:
            return f"{requirement.key} notin ({values})"
        case objects_pb2.SELECTOR_OPERATOR_DOES_NOT_EXIST:
            return f"!{requirement.key}"
        case objects_pb2.SELECTOR_OPERATOR_GT:
            return f"{requirement.key}>{values}"
        case objects_pb2.SELECTOR_OPERATOR_LT:
            return f"{requirement.key}<{values}"
    return requirement.key


def tolerates(toleration: objects_pb2.Toleration, key: str, value: str, effect: int) -> bool:
    """Whether one toleration covers a taint; an empty part of a toleration covers everything."""
    return (
        toleration.key in ("", key)
        and toleration.value in ("", value)
        and toleration.effect in (objects_pb2.TAINT_EFFECT_UNSPECIFIED, effect)
    )
