"""What label requirements and tolerations mean."""

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model.selectors import matches, mistake_in_requirement, tolerates, whole_number

IN, NOT_IN, EXISTS, ABSENT, GT, LT = range(1, 7)


def requirement(operator: int, *values: str, key: str = "zone") -> objects_pb2.LabelRequirement:
    return objects_pb2.LabelRequirement(
        key=key, operator=objects_pb2.SelectorOperator.ValueType(operator), values=values
    )


@pytest.mark.parametrize(
    ("asked", "labels", "expected"),
    [
        (requirement(IN, "a", "b"), {"zone": "b"}, True),
        (requirement(IN, "a"), {}, False),
        (requirement(NOT_IN, "a"), {"zone": "b"}, True),
        (requirement(NOT_IN, "a"), {}, True),
        (requirement(NOT_IN, "a"), {"zone": "a"}, False),
        (requirement(EXISTS), {"zone": ""}, True),
        (requirement(EXISTS), {}, False),
        (requirement(ABSENT), {}, True),
        (requirement(ABSENT), {"zone": "a"}, False),
        (requirement(GT, "7"), {"zone": "12"}, True),
        (requirement(GT, "7"), {"zone": "7"}, False),
        (requirement(GT, "7"), {"zone": "many"}, False),
        (requirement(GT, "-3"), {"zone": "0"}, True),
        (requirement(LT, "7"), {"zone": "-1"}, True),
        (requirement(LT, "7"), {}, False),
        (requirement(0, "a"), {"zone": "a"}, False),
    ],
)
def test_matches(asked: objects_pb2.LabelRequirement, labels: dict[str, str], expected: bool) -> None:
    assert matches(asked, labels) is expected


@pytest.mark.parametrize(
    ("asked", "mistake"),
    [
        (requirement(IN, "a"), None),
        (requirement(EXISTS), None),
        (requirement(GT, "12"), None),
        (requirement(IN), "1 to 64 values"),
        (requirement(EXISTS, "a"), "no value"),
        (requirement(GT, "a"), "not a whole number"),
        (requirement(GT, "1", "2"), "takes 1 value"),
        (requirement(0, "a"), "operator is missing"),
        (requirement(IN, "a", key="../x"), "key"),
        (requirement(IN, "no spaces"), "value"),
    ],
)
def test_mistakes_are_named(asked: objects_pb2.LabelRequirement, mistake: str | None) -> None:
    found = mistake_in_requirement(asked)
    assert (found is None) if mistake is None else (found is not None and mistake in found)


@pytest.mark.parametrize("text", ["", "-", "1.5", "٣", "1" * 16, "--1", "1-"])
def test_what_is_no_whole_number(text: str) -> None:
    assert whole_number(text) is None


def test_empty_parts_of_a_toleration_cover_everything() -> None:
    everything = objects_pb2.Toleration()
    only = objects_pb2.Toleration(key="gpu", value="yes", effect=objects_pb2.TAINT_EFFECT_NO_SCHEDULE)
    assert tolerates(everything, "gpu", "yes", objects_pb2.TAINT_EFFECT_NO_EXECUTE)
    assert tolerates(only, "gpu", "yes", objects_pb2.TAINT_EFFECT_NO_SCHEDULE)
    assert not tolerates(only, "gpu", "yes", objects_pb2.TAINT_EFFECT_NO_EXECUTE)
    assert not tolerates(only, "gpu", "no", objects_pb2.TAINT_EFFECT_NO_SCHEDULE)
