"""What a history is said to have happens in it."""

from collections import Counter
from dataclasses import fields

from simulation.features import Features, draw
from simulation.history import run

EVERYTHING = Features(*(True for _ in fields(Features)))
SEEN = {
    "strict slices",
    "gangs reserved",
    "bound beside rules",
    "bound with GPUs",
    "bound with a part of a GPU",
    "runs of schedules",
    "nodes removed",
    "tokens",
    "bound beside what is protected",
    "policies in force",
    "decided by a policy",
    "ends of jobs told",
    "told that regions may be lost",
    "told that a region may not be lost",
}


def test_what_is_drawn_happens() -> None:
    seen: Counter[str] = Counter()
    for seed in (1, 2, 3, 4, 5):
        outcome = run(seed, 5_000, features=EVERYTHING, jobs=True)
        assert not outcome.failure, outcome.failure
        seen.update(dict(outcome.seen))
    assert SEEN - seen.keys() == set()


def test_burst_is_used() -> None:
    for seed in range(1, 41):  # it is rare: one of some tens of histories must do
        outcome = run(seed, 4_000, features=Features(burst=True))
        assert not outcome.failure, outcome.failure
        if dict(outcome.seen).get("bound by burst"):
            return
    raise AssertionError("nothing was bound by burst in 40 histories")


def test_features_are_drawn_in_every_combination() -> None:
    drawn = [draw(seed) for seed in range(1, 301)]
    assert len(set(drawn)) > 100
