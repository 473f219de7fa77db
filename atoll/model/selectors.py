"""Label requirements, taints and tolerations: what they mean, in plain Python.

The definition that the vectorized filters of the scheduler are compared with, and what checks user input. Units: none.
"""

from collections.abc import Mapping

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


def matches(requirement: objects_pb2.LabelRequirement, labels: Mapping[str, str]) -> bool:
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


def tolerates(toleration: objects_pb2.Toleration, key: str, value: str, effect: int) -> bool:
    """Whether one toleration covers a taint; an empty part of a toleration covers everything."""
    return (
        toleration.key in ("", key)
        and toleration.value in ("", value)
        and toleration.effect in (objects_pb2.TAINT_EFFECT_UNSPECIFIED, effect)
    )
