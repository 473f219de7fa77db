"""The checkers bite: every seeded bug is noticed within a few seeds."""

import pytest

from simulation.history import run
from tests.simulation.feature_mutants import MUTANTS
from tests.simulation.mutants import Mutant

SEEDS = range(1, 41)  # tried until one bites: most do at once


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.patch(monkeypatch)
    outcomes = (run(seed, mutant.events, **mutant.given) for seed in SEEDS)
    failure = next((outcome.failure for outcome in outcomes if outcome.failure), "")
    assert failure, f"no checker noticed {mutant.name} in {len(SEEDS)} seeds"
    said = failure.splitlines()[0]
    assert any(rule in said for rule in mutant.rules), said
