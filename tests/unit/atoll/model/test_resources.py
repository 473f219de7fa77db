"""What is said of quantities that are none."""

import pytest

from atoll.model.resources import QuantityError, parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("99999999999999999999Ti", "memory_mib", "larger than any cluster"),
        ("-1", "cpu_milli", "is not a quantity"),
        ("٣", "cpu_milli", "is not a quantity"),  # an Arabic digit three
        ("x" * 10_240, "cpu_milli", "is not a quantity"),
        ("1" + "x" * 10_240, "memory_mib", "unknown unit"),
    ],
)
def test_a_mistake_says_what_and_stays_short(text: str, unit: str, said: str) -> None:
    with pytest.raises(QuantityError, match=said) as caught:
        parse_quantity(text, unit)
    assert len(str(caught.value)) < 200
