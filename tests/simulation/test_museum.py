"""The checkers bite: every seeded bug is noticed within a few seeds."""

import pytest

from simulation.history import run
from tests.simulation.mutants import Mutant
from tests.simulation.reservation_mutants import MUTANTS

SEEDS = range(1, 41)  # tried until one bites: most do at once


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant.patch(monkeypatch)
    outcomes = (run(seed, mutant.events, regions=mutant.regions, jobs=mutant.jobs, **mutant.faults) for seed in SEEDS)
    failure = next((outcome.failure for outcome in outcomes if outcome.failure), "")
    assert failure, f"no checker noticed {mutant.name} in {len(SEEDS)} seeds"
    said = failure.splitlines()[0]
    assert any(rule in said for rule in mutant.rules), said
