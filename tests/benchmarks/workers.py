"""What scheduler workers gain: a turn's worth of different classes evaluated by one process and by several.

`python -m tests.benchmarks.workers --classes 64 --workers 2 --pairs 9 --json out.json`

Before each evaluation all nodes, or a tenth of them, have changed. Each pair evaluates the same classes for the same
table twice, inline and by the crew, in an order that alternates; rows are compared. Wall times and their ratio are true
where the machine has that many idle cores. `overhead_ms` is true on a busy one too: the CPU time of the deciding thread
beside the classes that it evaluates itself; `speedup_possible` is what follows from it, inline / (overhead + inline /
workers). All are medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import REGISTRY

from atoll.model.resources import Vector
from regional.core.class_row import ClassRow
from regional.core.class_rows import Due
from regional.core.filters import Request
from regional.core.node_table import NodeTable
from regional.core.typical import Shape, typical
from regional.workers.crew import Crew
from tests.support.crews import crew_of

ZONES = 3
MODELS = ("T4", "A100")
CASES = (  # nodes, part of them that changed, strategy
    (1_000, 1.0, "bin-pack"),
    (10_000, 0.1, "bin-pack"),
    (10_000, 1.0, "bin-pack"),
    (50_000, 0.1, "bin-pack"),
    (50_000, 1.0, "bin-pack"),
    (10_000, 1.0, "fgd"),
)


def _table(nodes: int, gpus: bool) -> NodeTable:
    table, draw = NodeTable(), np.random.default_rng(1)
    devices = {number: MODELS[number % 2] for number in range(4)} if gpus else {}
    for number in range(nodes):
        row = table.add(f"n{number:05d}")
        labels = {"zone": f"z{number % ZONES}", "disk": "ssd" if number % 2 else "hdd"}
        table.describe(row, (64_000, 262_144, 1_000_000, 1_000 * len(devices)), labels, (), False, devices)
        table.set_ready(row, True)
        table.charge(row, (int(draw.integers(60_000)), int(draw.integers(250_000)), 0, 0))
    if gpus:
        table.expect(typical({Shape(4_000, 500): 10, Shape(8_000, 1_000): 20, Shape(2_000, 300): 10}))
    return table


def _requests(classes: int, strategy: str) -> list[Request]:
    gpu_milli = 500 if strategy == "fgd" else 0
    return [
        Request(
            Vector(250 * (1 + number % 16), 256 * (1 + number // 16), 0, gpu_milli),
            selector=(("zone", f"z{number % ZONES}"),) if number % 4 == 1 else (),
            strategy=strategy,
        )
        for number in range(classes)
    ]


def _change(table: NodeTable, part: float) -> None:
    rows = np.arange(0, table.size, round(1 / part))
    table.version += 1
    table.changed[rows] = table.version


def _inline(due: Sequence[Due]) -> None:
    for row, copies in due:
        row.refresh(copies)


def _timed(run: Any, due: Sequence[Due]) -> tuple[float, float]:
    began_s, began_cpu_s = time.perf_counter(), time.thread_time()
    run(due)
    return time.perf_counter() - began_s, time.thread_time() - began_cpu_s


def measure(crew: Crew, classes: int, pairs: int, nodes: int, part: float, strategy: str) -> dict[str, Any]:
    table = _table(nodes, strategy == "fgd")
    requests = _requests(classes, strategy)
    own, others = ([Due(ClassRow(table, request), {}) for request in requests] for _ in range(2))
    found: list[tuple[float, float, float, float]] = []  # wall inline and by the crew, CPU inline, overhead
    for pair in range(pairs + 1):
        _change(table, part)
        if pair % 2:
            (inline_s, inline_cpu_s), (crew_s, crew_cpu_s, mine) = _timed(_inline, own), _by_crew(crew, others)
        else:
            (crew_s, crew_cpu_s, mine), (inline_s, inline_cpu_s) = _by_crew(crew, others), _timed(_inline, own)
        for one, other in zip(own, others, strict=True):
            assert np.array_equal(one.row.rank, other.row.rank)
        found.append((inline_s, crew_s, inline_cpu_s, crew_cpu_s - inline_cpu_s * mine / classes))
    found = found[1:]  # the first warms up
    inline_s, crew_s, inline_cpu_s, overhead_s = map(statistics.median, zip(*found, strict=True))
    return {
        "nodes": nodes,
        "changed": part,
        "strategy": strategy,
        "inline_ms": round(1e3 * inline_s, 1),
        "workers_ms": round(1e3 * crew_s, 1),
        "speedup": round(statistics.median(one[0] / one[1] for one in found), 2),
        "inline_cpu_ms": round(1e3 * inline_cpu_s, 1),
        "overhead_ms": round(1e3 * overhead_s, 1),
        "speedup_possible": round(inline_cpu_s / (overhead_s + inline_cpu_s / (1 + len(crew.pids))), 2),
    }


def _by_crew(crew: Crew, due: Sequence[Due]) -> tuple[float, float, float]:
    """Wall and CPU time, and how many of the classes this process evaluated."""
    before = _own()
    wall_s, cpu_s = _timed(crew.evaluate, due)
    return wall_s, cpu_s, _own() - before


def _own() -> float:
    return REGISTRY.get_sample_value("atoll_region_classes_ahead_total", {"by": "region"}) or 0.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.workers", description=__doc__)
    parser.add_argument("--classes", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="processes, this one among them")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the result here too")
    arguments = parser.parse_args()
    with crew_of(arguments.workers) as crew:
        cases = [measure(crew, arguments.classes, arguments.pairs, *case) for case in CASES]
    text = json.dumps({"classes": arguments.classes, "workers": arguments.workers, "cases": cases}, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
