"""Reasons read as sentences."""

from atoll.model import explain
from atoll.model.resources import DIMENSIONS


def test_a_reason_says_how_much_the_best_node_lacks() -> None:
    found = explain.reason(explain.INSUFFICIENT["memory_mib"], nodes=3, missing=512)
    assert (found.code, found.nodes) == ("InsufficientMemory", 3)
    assert found.message == "without enough free memory; the best of them lacks 512Mi"


def test_a_summary_is_one_line() -> None:
    reasons = [explain.reason(explain.NODE_CORDONED, 1), explain.reason(explain.INSUFFICIENT["cpu_milli"], 2, 500)]
    assert explain.summary(reasons) == (
        "1 node cordoned or draining, 2 nodes without enough free CPU; the best of them lacks 500m"
    )
    assert explain.summary([]) == "no reason is known"


def test_every_dimension_has_its_code() -> None:
    assert set(explain.INSUFFICIENT) == set(DIMENSIONS)
    assert set(explain.INSUFFICIENT.values()) <= set(explain.SENTENCES)
