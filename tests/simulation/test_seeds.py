"""A handful of seeds on every change, those that once failed among them; and what a failing seed says."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from simulation.__main__ import FAILED, main
from simulation.faults import NO_FAULTS
from simulation.features import NO_FEATURES
from simulation.history import run
from simulation.world import Shape, World
from tests.simulation.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
REGRESSIONS = tomllib.loads((Path(__file__).parent / "regressions.toml").read_text())["seed"]


@pytest.mark.parametrize("seed", range(1001, 1009))
def test_every_rule_holds(seed: int) -> None:
    outcome = run(seed, 3_000)
    assert not outcome.failure, f"{outcome.failure}\nreplay: python -m simulation replay {seed} --events 3000"
    assert outcome.bindings


@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda regression: regression["seed"])
def test_what_once_failed_holds(regression: dict[str, Any]) -> None:
    features = NO_FEATURES if regression.get("plain") else None
    assert not run(regression["seed"], regression["events"], features=features).failure
    path, name = regression["test"].split("::")
    assert f"def {name}(" in (ROOT / path).read_text(), "the bug has a test of its own"


def test_a_failing_seed_prints_the_one_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (bug,) = [mutant for mutant in MUTANTS if mutant.name == "attempts_are_numbered_anew"]
    bug.patch(monkeypatch)
    done = CliRunner().invoke(main, ["run", "--seeds", "1", "--first", "5", "--events", "2000", "--workers", "1"])
    assert done.exit_code == FAILED
    command = "python -m simulation replay 5 --events 2000"
    assert f"replay: {command}" in done.stderr.splitlines()
    again = CliRunner().invoke(main, command.split()[3:])
    assert again.exit_code == FAILED
    assert json.loads(again.stdout)["failure"].splitlines()[0] == done.stderr.splitlines()[0].removeprefix("seed 5: ")


def test_every_revision_is_checked() -> None:
    world = World(1, NO_FAULTS, Shape())
    world.begin()
    world.kernel.run(events=1_000)
    assert world.checkers.revisions == world.global_state.revision - 1 > 50
