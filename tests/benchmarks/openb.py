"""How full GPUs get: the openb experiment of *Beware of Fragmentation* (Weng et al., USENIX ATC 2023), with the
production filters and scores.

`python -m tests.benchmarks.openb --data FOLDER --seeds 42-51 --json out.json`

FOLDER holds `openb_node_list_gpu_node.csv` and `openb_pod_list_*.csv` of Alibaba's cluster-trace-gpu-v2023
(github.com/alibaba/clusterdata), and, if there, `fgd_expected_summary.csv`: the published figures of the paper's
simulator (github.com/hkust-adsl/kubernetes-scheduler-simulator), to be shown beside ours.

The recipe: the pods sorted by name and shuffled with the seed; copies of random ones behind them until 130 % of the
GPUs are asked for; no departures; each pod is tried once, on the nodes that the filters leave, and goes where the
strategy's score is highest, equals by the nodes' order, which is shuffled once for each seed. The figure: GPU milli
allocated, in percent, when 130 % have arrived. What is typical is taken from the pod list, as there. Decisions per
second are of CPU time, filters and scores of each pod against all nodes, without queue and commit.
"""

import argparse
import csv
import json
import random
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from atoll.model import strategies
from atoll.model.resources import Vector
from regional.core import gpu_scores, gpus
from regional.core.class_row import ClassRow
from regional.core.filters import Request
from regional.core.node_table import NodeTable
from regional.core.typical import Shape, typical
from tests.benchmarks import plots

NODES = "openb_node_list_gpu_node.csv"
PODS = "openb_pod_list_{}.csv"
PUBLISHED = "fgd_expected_summary.csv"
LISTS = ("default", "cpu100", "gpuspec33", "multigpu20")
RANDOM = "random"  # no strategy of the scheduler: any of the nodes that the filters leave
POLICIES = {  # ours: the published name
    RANDOM: "01-Random",
    strategies.DOT_PRODUCT: "02-DotProd",
    strategies.GPU_CLUSTERING: "03-GpuClustering",
    strategies.GPU_PACKING: "04-GpuPacking",
    strategies.GPU_BEST_FIT: "05-BestFit",
    strategies.FGD: "06-FGD",
    strategies.EXPECTED_FILL: "",
}
FULL, ARRIVED = 1.3, 130


class Pod(NamedTuple):
    name: str
    vector: Vector
    gpu_models: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        return Shape(self.vector.cpu_milli, self.vector.gpu_milli, self.gpu_models)


class Node(NamedTuple):
    name: str
    capacity: Vector
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    nodes: list[Node]
    pods: list[Pod]

    @property
    def gpu_milli(self) -> int:
        return sum(node.capacity.gpu_milli for node in self.nodes)


def read(folder: Path, pod_list: str) -> Trace:
    with (folder / NODES).open() as lines:
        nodes = [_node(row) for row in csv.DictReader(lines)]
    with (folder / PODS.format(pod_list)).open() as lines:
        pods = [_pod(row) for row in csv.DictReader(lines)]
    return Trace(nodes, sorted(pods))


def _node(row: dict[str, str]) -> Node:
    count = int(row["gpu"])
    capacity = Vector(int(row["cpu_milli"]), int(row["memory_mib"]), 0, count * gpus.WHOLE_MILLI)
    return Node(row["sn"], capacity, (row["model"],) * count)


def _pod(row: dict[str, str]) -> Pod:
    gpu_milli = int(row["num_gpu"]) * int(row["gpu_milli"])
    models = tuple(filter(None, (row.get("gpu_spec") or "").split("|")))
    return Pod(row["name"], Vector(int(row["cpu_milli"]), int(row["memory_mib"]), 0, gpu_milli), models)


def arrivals(trace: Trace, dice: random.Random) -> list[Pod]:
    queue = list(trace.pods)
    dice.shuffle(queue)
    asked, wanted = sum(pod.vector.gpu_milli for pod in queue), FULL * trace.gpu_milli
    while asked + (pod := dice.choice(trace.pods)).vector.gpu_milli <= wanted:
        queue.append(pod)
        asked += pod.vector.gpu_milli
    return queue


def table_of(nodes: Iterable[Node]) -> NodeTable:
    table = NodeTable()
    for node in nodes:
        row = table.add(node.name)
        table.describe(row, node.capacity, {}, (), False, dict(enumerate(node.models)))
        table.set_ready(row, True)
    return table


def run(folder: Path, pod_list: str, policy: str, seed: int) -> dict[str, Any]:
    trace, dice = read(folder, pod_list), random.Random(seed)
    queue, nodes, whole = arrivals(trace, dice), list(trace.nodes), trace.gpu_milli
    dice.shuffle(nodes)
    table = table_of(nodes)
    counts: dict[Shape, int] = {}
    for pod in trace.pods:
        counts[pod.shape] = counts.get(pod.shape, 0) + 1
    table.expect(typical(counts))
    rows: dict[tuple[Vector, tuple[str, ...]], ClassRow] = {}
    curve: dict[int, list[int]] = {}
    arrived = allocated = failed = 0
    began = time.process_time()
    for pod in queue:
        row = rows.get(pod[1:])
        if row is None:
            request = Request(pod.vector, strategy=policy, gpu_models=pod.gpu_models)
            row = rows[pod[1:]] = ClassRow(table, request)
        row.refresh({})
        arrived += pod.vector.gpu_milli
        if not row.feasible_count:
            failed += 1
        else:
            _place(table, row, policy, dice)
            allocated += pod.vector.gpu_milli
        curve.setdefault(round(100 * arrived / whole), []).append(allocated)
    shares = {percent: 100 * sum(many) / len(many) / whole for percent, many in curve.items()}
    cpu_s = time.process_time() - began
    return {"seed": seed, "curve": shares, "failed": failed, "decisions_per_s": round(len(queue) / cpu_s)}


def _place(table: NodeTable, row: ClassRow, policy: str, dice: random.Random) -> None:
    request = row.request
    if policy == RANDOM:
        at = int(dice.choice(row.feasible()))
        table.charge(at, request.vector)
        if request.vector.gpu_milli:
            left = gpus.usable(table, request, np.array([at]))[0]
            fitting = np.flatnonzero(left >= min(request.vector.gpu_milli, gpus.WHOLE_MILLI)).tolist()
            numbers = dice.sample(fitting, max(1, request.vector.gpu_milli // gpus.WHOLE_MILLI))
            table.charge_gpus(at, numbers, request.vector.gpu_milli)
        return
    at = int(row.best(row.rank, 1)[0])
    table.charge(at, request.vector)
    gpu_scores.take(table, request, at)


def published(folder: Path, pod_list: str, policy: str) -> dict[str, float]:
    name, path = POLICIES[policy], folder / PUBLISHED
    if not name or not path.exists():
        return {}
    with path.open() as lines:
        (row,) = [row for row in csv.DictReader(lines) if row["trace"] == pod_list]
    return {part: float(row[f"{name}_{part}"]) for part in ("mean", "min", "max")}


def summary(folder: Path, pod_list: str, policy: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    at_end = [one["curve"][ARRIVED] for one in runs]
    percents = sorted(set.intersection(*(set(one["curve"]) for one in runs)))
    return {
        "mean": round(sum(at_end) / len(at_end), 2),
        "min": round(min(at_end), 2),
        "max": round(max(at_end), 2),
        "at_100": round(sum(one["curve"][100] for one in runs) / len(runs), 2),
        "published": published(folder, pod_list, policy),
        "decisions_per_s": round(sum(one["decisions_per_s"] for one in runs) / len(runs)),
        "curve": [[p, round(sum(one["curve"][p] for one in runs) / len(runs), 3)] for p in percents],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.openb", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the trace")
    parser.add_argument("--seeds", default="42-51", help="FIRST-LAST")
    parser.add_argument("--lists", default=",".join(LISTS))
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--plot", type=Path, help="folder for openb.png and openb.html")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    found: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor(arguments.workers) as pool:
        for pod_list in arguments.lists.split(","):
            for policy in arguments.policies.split(","):
                runs = list(pool.map(partial(run, arguments.data, pod_list, policy), seeds))
                one = found.setdefault(pod_list, {})[policy] = summary(arguments.data, pod_list, policy, runs)
                shown = {name: value for name, value in one.items() if name != "curve"}
                print(pod_list, policy, json.dumps(shown), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"seeds": arguments.seeds, "lists": found}, indent=2) + "\n")
    if arguments.plot:
        _plot(arguments.plot, arguments.seeds, found)


def _plot(folder: Path, seeds: str, found: dict[str, dict[str, Any]]) -> None:
    panels, tables = [], []
    for pod_list, by_policy in found.items():
        lines = {name: [point for point in one["curve"] if point[0] >= 70] for name, one in by_policy.items()}
        panels.append(plots.Panel(pod_list, "arrived, % of GPUs", "allocated, % of GPUs", lines))
        rows = []
        for name, one in by_policy.items():
            theirs = one["published"]
            known = (theirs["mean"], f"{theirs['min']} to {theirs['max']}") if theirs else ("", "")
            rows.append((name, one["mean"], f"{one['min']} to {one['max']}", *known, one["at_100"]))
        header = ("strategy", "mean at 130 %", "range", "published mean", "published range", "mean at 100 %")
        tables.append(plots.Table(f"Pod list {pod_list}", header, rows))
    plots.write(folder, "openb", "openb: how full GPUs get", f"GPU milli allocated; seeds {seeds}.", panels, tables)


if __name__ == "__main__":
    main()
