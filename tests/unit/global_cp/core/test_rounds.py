"""Rounds over all that wait: everyone once in each, a few at a time; and what is due, a few at a time."""

from global_cp.core.alarms import Alarms
from global_cp.core.rounds import Rounds

PATHS = [("acme", f"w{index}") for index in range(5)]


def test_everyone_who_waits_has_one_turn_in_each_round() -> None:
    rounds, waiting = Rounds(every_ms=10, at_once=2), dict.fromkeys(PATHS)
    assert rounds.is_due(0) and rounds.turns(0, waiting) == PATHS[:2]
    waiting["acme", "new"] = waiting.pop(PATHS[4])  # who waits may change in the midst of a round
    assert rounds.goes_on and rounds.turns(1, waiting) == PATHS[2:4]
    assert rounds.turns(2, waiting) == PATHS[4:] and not rounds.goes_on
    assert not rounds.is_due(9) and rounds.next_ms == 10
    assert rounds.is_due(10) and rounds.turns(10, [PATHS[4]], waiting) == [PATHS[4], PATHS[0]]


def test_a_round_that_takes_longer_than_its_time_is_finished_first() -> None:
    rounds = Rounds(every_ms=10, at_once=3)
    assert rounds.turns(0, PATHS) == PATHS[:3]
    assert rounds.turns(15, PATHS) == PATHS[3:]
    assert rounds.is_due(15) and rounds.turns(15, PATHS) == PATHS[:3] and rounds.next_ms == 25


def test_nobody_waits() -> None:
    rounds = Rounds(every_ms=10, at_once=3)
    assert rounds.turns(0, {}) == [] and not rounds.goes_on and not rounds.is_due(5)


def test_what_is_due_beyond_the_bound_stays_due() -> None:
    alarms = Alarms()
    for at_ms, path in enumerate(PATHS):
        alarms.set(path, at_ms)
    assert alarms.due(3, most=2) == PATHS[:2] and alarms.next_ms() == 2
    assert alarms.due(3, most=9) == PATHS[2:4] and alarms.next_ms() == 4
