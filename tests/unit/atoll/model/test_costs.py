import pytest

from atoll.model.costs import COST_LABEL, cost_per_hour, mistake_in_cost


@pytest.mark.parametrize(("text", "cost"), [("0", 0.0), ("0.35", 0.35), ("12", 12.0)])
def test_a_cost_is_a_decimal_number(text: str, cost: float) -> None:
    assert cost_per_hour(text) == cost
    assert mistake_in_cost(COST_LABEL, text) is None


@pytest.mark.parametrize("text", ["", "-1", "1e3", "cheap", "1.", "٣", "nan", "1" * 10])
def test_everything_else_is_none(text: str) -> None:
    assert cost_per_hour(text) is None
    assert mistake_in_cost(COST_LABEL, text)
    assert mistake_in_cost("zone", text) is None
