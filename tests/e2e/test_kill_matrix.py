"""A representative part of the kill matrix, on three regions and a three-member etcd; `make matrix` plays the whole.

Each cell strikes while at least 50 replicas a second are bound, run and ended, and holds what docs/failure-model.md
promises: see tests/matrix/cells.py.
"""

from pathlib import Path

import pytest

from tests.matrix.cells import (
    AGENT,
    ETCD_LEADER,
    EVERYTHING,
    GLOBAL_LEADER,
    KILL,
    PAUSE,
    REGION_LEADER,
    Cell,
    Matrix,
)

pytestmark = [pytest.mark.etcd, pytest.mark.slow, pytest.mark.timeout(600)]
CELLS = [
    Cell(3, REGION_LEADER, KILL),
    Cell(3, REGION_LEADER, PAUSE),
    Cell(3, GLOBAL_LEADER, KILL),
    Cell(3, ETCD_LEADER, KILL),
    Cell(3, AGENT, PAUSE),
    Cell(3, EVERYTHING, KILL),
]


async def test_nothing_is_lost_and_nothing_runs_twice(tmp_path: Path) -> None:
    async with Matrix.on(tmp_path, 3) as stage:
        for cell in CELLS:
            try:
                outcome = await stage.play(cell)
            except (AssertionError, TimeoutError) as broken:
                raise AssertionError(f"{cell}: {broken}") from broken
            print(outcome)
