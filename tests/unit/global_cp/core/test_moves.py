"""The way from one plan to the next: nothing ready is given up before its successor is ready."""

from collections.abc import Mapping
from dataclasses import replace

from global_cp.core.moves import Standing, step, unpaid_step

Counts = Mapping[str, int]


def _now(
    told: Counts, ready: Counts | None = None, waiting: Counts | None = None, planned: Counts | None = None
) -> Standing:
    return Standing(told, told if ready is None else ready, waiting or {}, told if planned is None else planned)


def test_without_a_move_the_plan_is_told_at_once() -> None:
    assert step(_now({}), {"a": 3, "b": 2}, 0, 1) == {"a": 3, "b": 2}
    assert step(_now({"a": 3, "b": 2}, ready={}), {"a": 1, "b": 2}, 0, 1) == {"a": 1, "b": 2}, "a scale-down"
    assert step(_now({"a": 3}), {"a": 3, "b": 2}, 0, 1) == {"a": 3, "b": 2}, "a scale-up needs no spare quota"


def test_a_move_makes_before_it_breaks() -> None:
    plan = {"a": 0, "b": 4}
    first = step(_now({"a": 4}), plan, 9, 1)
    assert first == {"a": 4, "b": 4}
    assert step(_now(first, ready={"a": 4}, planned=plan), plan, 0, 1) == {"a": 4, "b": 4}
    assert step(_now(first, ready={"a": 4, "b": 3}, planned=plan), plan, 0, 1) == {"a": 1, "b": 4}
    assert step(_now({"a": 1, "b": 4}, planned=plan), plan, 0, 1) == plan


def test_the_surge_is_bounded_by_what_is_spare() -> None:
    plan = {"a": 0, "b": 4}
    assert step(_now({"a": 4}), plan, 1, 1) == {"a": 4, "b": 1}
    assert step(_now({"a": 4, "b": 1}, planned=plan), plan, 0, 1) == {"a": 3, "b": 1}
    assert step(_now({"a": 3, "b": 1}, planned=plan), plan, 1, 1) == {"a": 3, "b": 2}


def test_without_any_to_spare_a_few_are_given_up_first() -> None:
    plan = {"a": 0, "b": 8}
    assert step(_now({"a": 8}), plan, 0, 2) == {"a": 6, "b": 2}
    waiting = _now({"a": 6, "b": 2}, ready={"a": 6, "b": 1}, planned=plan)
    assert step(waiting, plan, 0, 2) == {"a": 6, "b": 2}, "the next ones when these are ready"
    assert step(_now({"a": 6, "b": 2}, planned=plan), plan, 0, 2) == {"a": 4, "b": 4}


def test_what_waits_is_given_up_at_once() -> None:
    stuck = _now({"a": 5}, ready={"a": 3}, waiting={"a": 2})
    assert step(stuck, {"a": 3, "b": 2}, 0, 1) == {"a": 3, "b": 2}


def test_a_scale_down_in_the_middle_of_a_move_waits_for_nobody() -> None:
    now = _now({"a": 4, "b": 4}, ready={"a": 4}, planned={"a": 0, "b": 4})
    assert step(now, {"a": 0, "b": 2}, 0, 1) == {"a": 2, "b": 2}


def test_a_region_that_may_have_none_any_more_is_no_scale_down_of_the_others() -> None:
    now = _now({"a": 3, "b": 3, "c": 3}, ready={"a": 3, "b": 3}, planned={"a": 3, "b": 0, "c": 3})
    assert step(now, {"b": 0, "c": 3}, 9, 1) == {"b": 3, "c": 3}, "b's replicas serve until those of c are ready"


def test_a_region_that_says_nothing_is_taken_to_run_all_it_has_and_to_have_started_nothing() -> None:
    silent = Standing({"a": 2, "b": 2}, {}, {}, {"a": 0, "b": 2})
    assert step(silent, {"a": 0, "b": 2}, 9, 1) == {"a": 2, "b": 2}


def test_a_move_that_waits_for_its_own_quota_alone_gives_up_a_stride() -> None:
    plan = {"a": 0, "b": 5}
    now = _now({"a": 3, "b": 2}, ready={"a": 3}, waiting={"b": 2}, planned=plan)
    assert step(now, plan, 0, 1) == {"a": 3, "b": 2}
    assert unpaid_step(replace(now, unpaid={"b": 2}), plan, 1) == {"a": 2, "b": 3}
    assert unpaid_step(replace(now, unpaid={"b": 1}), plan, 1) == {"a": 3, "b": 2}, "one of them may be ready soon"
    all_told = _now({"a": 3, "b": 5}, ready={"a": 3}, waiting={"b": 5}, planned=plan)
    assert unpaid_step(replace(all_told, unpaid={"b": 5}), plan, 2) == {"a": 1, "b": 5}
