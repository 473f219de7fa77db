"""Plays the whole kill matrix and prints it as a table. `python -m tests.matrix [--only TEXT] [--json FILE]`

On the first broken promise of a cell its cluster is given up, and a fresh one plays the rest. Exit code 1 when any cell
is not good.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from pathlib import Path

from tests.matrix.cells import Cell, Matrix, Outcome, matrix

HEADERS = ("ETCD", "VICTIM", "STRIKE", "FLOW/s", "LONGEST PAUSE", "ALL WELL AFTER", "REVISION", "")
ROW = "{:<5} {:<21} {:<8} {:>6}  {:>13}  {:>14}  {:>8}  {}"


async def played(cells: list[Cell], folder: Path) -> AsyncIterator[tuple[Cell, Outcome | str]]:
    """Each cell with its outcome, or why it is not good."""
    left, clusters = list(cells), 0
    while left:
        clusters += 1
        try:
            async with Matrix.on(folder / f"{left[0].members}-{clusters}", left[0].members) as stage:
                while left:
                    outcome = await stage.play(left[0])
                    yield left.pop(0), outcome
        except (AssertionError, TimeoutError, ExceptionGroup) as broken:
            yield left.pop(0), f"{type(broken).__name__}: {broken}"


def row(cell: Cell, outcome: Outcome | str) -> str:
    if isinstance(outcome, str):
        return ROW.format(cell.members, cell.victim, cell.strike, "-", "-", "-", "-", f"BROKEN {outcome}")
    return ROW.format(
        cell.members, cell.victim, cell.strike, f"{outcome.rate_per_s:.0f}", f"{outcome.longest_pause_s:.1f} s",
        f"{outcome.settled_s:.1f} s", outcome.revision, f"clean ({outcome.processes})",
    )  # fmt: skip


async def play(cells: list[Cell], keep: Callable[[str], object]) -> bool:
    """Prints a row for each cell, and gives all results so far as JSON to `keep`. Whether all were good."""
    print(ROW.format(*HEADERS), flush=True)
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="atoll-matrix-") as home:
        for members in sorted({cell.members for cell in cells}):
            mine = [cell for cell in cells if cell.members == members]
            async for cell, outcome in played(mine, Path(home)):
                print(row(cell, outcome), flush=True)
                seen = {**asdict(cell), "broken": outcome} if isinstance(outcome, str) else asdict(outcome)
                results.append(seen)
                keep(json.dumps(results, indent=2) + "\n")
    broken = sum("broken" in result for result in results)
    print(f"{len(results) - broken} of {len(results)} cells good")
    return not broken


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("--only", default="", help="cells whose name contains this, such as `region leader, kill`")
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_args()
    chosen = [cell for members in (1, 3) for cell in matrix(members) if arguments.only in str(cell)]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended either way, it ends what it has started
    keep = arguments.json.write_text if arguments.json else lambda text: None
    sys.exit(0 if asyncio.run(play(chosen, keep)) else 1)


if __name__ == "__main__":
    main()
