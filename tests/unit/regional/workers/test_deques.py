"""Who takes what: from the head of one's own deque, from the tail of another's, and each class once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from regional.workers import arena
from regional.workers.deques import Deques, Stuck, shares
from tests.support.taker import CLASSES, deques_of


@contextmanager
def taker(memory: int, locks: int, place: int, places: int, round_: int) -> Iterator[subprocess.Popen[str]]:
    """A process of its own, once it has begun."""
    arguments = [str(one) for one in (memory, locks, place, places, round_)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.taker", *arguments],
        pass_fds=(memory, locks),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def made(places: int, lock_within_s: float | None = None) -> tuple[int, int, Deques]:
    memory, locks = arena.made(), arena.made()
    return memory, locks, deques_of(memory, locks, places, lock_within_s)


def test_classes_are_dealt_evenly_to_those_who_are_there() -> None:
    assert shares(7, [0, 2], 3) == [range(3), range(0), range(3, 7)]
    assert shares(1, [0, 1], 2) == [range(0), range(1)]


def test_one_takes_from_the_head_of_its_own_and_from_the_tail_of_others() -> None:
    _, _, deques = made(3)
    deques.deal(5, [range(3), range(3, 6), range(6, 8)])
    assert [deques.take(0, 5, 3) for _ in range(4)] == [0, 1, 2, 5]
    assert [deques.take(2, 5, 3) for _ in range(3)] == [6, 7, 4]
    assert deques.take(1, 5, 3) == 3
    assert deques.take(0, 5, 3) is None
    assert [deques.claimed(number) for number in range(8)] == [0, 0, 0, 1, 2, 0, 2, 2]


def test_who_comes_late_to_a_round_finds_nothing() -> None:
    _, _, deques = made(2)
    deques.deal(5, [range(2), range(2, 4)])
    deques.deal(6, [range(2), range(2, 4)])
    assert deques.take(1, 5, 2) is None
    assert deques.take(1, 6, 2) == 2


def test_several_processes_take_each_class_once() -> None:
    places = 3
    memory, locks, deques = made(places)
    deques.deal(1, [range(CLASSES), range(0), range(0)])  # so that the others live on what they steal
    with taker(memory, locks, 1, places, 1) as one, taker(memory, locks, 2, places, 1) as other:
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        taken = []
        while (number := deques.take(0, 1, places)) is not None:
            taken.append(number)
        stolen = [[int(line) for line in process.communicate()[0].split()] for process in (one, other)]
    assert sorted([*taken, *stolen[0], *stolen[1]]) == list(range(CLASSES))
    for place, numbers in enumerate((taken, *stolen)):
        assert {deques.claimed(number) for number in numbers} <= {place}


def test_a_lock_that_is_kept_is_told_and_one_of_the_dead_is_free() -> None:
    memory, locks, deques = made(2, lock_within_s=0.01)
    deques.deal(1, [range(0), range(2)])
    with taker(memory, locks, -1, 2, 1), pytest.raises(Stuck):
        deques.take(0, 1, 2)
    assert deques.take(0, 1, 2) == 1
