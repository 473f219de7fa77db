"""Traces of batch jobs in virtual time: the production queue and placement beside one thread that takes first come,
first fit.

`python -m tests.benchmarks.traces --data FOLDER --trace surf --json out.json --plot FOLDER`

surf: a month of jobs with deadlines (`surf_month.tasks.csv.gz`, github.com/atlarge-research/opendc); the capacity is
the largest with which first come, first fit misses 4 % of them. A job that runs longer than the trace gives it has no
deadline here, for either: nobody could meet it. Such jobs are 1 % of all and nearly two thirds of the work. Estimates
are the real durations. Two configurations: one tenant and `ageing_ms` of 6 h; and what an operator does for whom
deadlines matter most: the jobs without are a tenant of their own, with a quota of 60 % of the nodes and a tenth of the
weight, and work ages after four days.
lcg: eleven days of the LHC grid (`LCG.swf.gz`, Parallel Workloads Archive); its sites are laid onto regions by their
number, its users are tenants, and every region has just the processors its jobs need in the mean. How fair a policy is:
Jain's index over the tenants of 1 / mean bounded slowdown, and slowdowns themselves.
"""

import argparse
import csv
import gzip
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from atoll.model.resources import Vector
from regional.config import CoreSettings
from simulation.replay import Job, Ran, Tenant, first_come, jain, missed_percent, replay, sized
from tests.benchmarks import plots

REGIONS, SITE, USER = 4, 15, 11  # fields of the Standard Workload Format
SHORT_MS = 60_000  # slowdowns are bounded: a job counts as that long at least
HOUR_MS = 3_600_000
LONG, LONG_PERCENT = "without-deadline", 60


def surf(folder: Path) -> tuple[list[Job], Vector]:
    node = Vector(16_000, 100_000)
    with gzip.open(folder / "surf_month.tasks.csv.gz", "rt") as lines:
        jobs = [_surf_job(row, node) for row in csv.DictReader(lines)]
    return sorted(jobs, key=lambda job: job.arrival_ms), node


def _surf_job(row: dict[str, str], request: Vector) -> Job:
    arrival_ms, run_ms, deadline_ms = (int(row[name]) for name in ("submission_time", "duration", "deadline"))
    possible = arrival_ms + run_ms <= deadline_ms
    return Job(row["id"], "surf", arrival_ms, run_ms, request, deadline_ms if possible else 0, run_ms)


def lcg(folder: Path) -> list[list[Job]]:
    """By region."""
    regions: list[list[Job]] = [[] for _ in range(REGIONS)]
    with gzip.open(folder / "LCG.swf.gz", "rt") as lines:
        for line in lines:
            fields = line.split()
            if fields and not line.startswith(";") and int(fields[3]) > 0:
                arrival_ms, run_ms = int(fields[1]) * 1000, int(fields[3]) * 1000
                job = Job(fields[0], f"user-{fields[USER]}", arrival_ms, run_ms, Vector(1_000, 1_024))
                regions[int(fields[SITE]) % REGIONS].append(job)
    return regions


def run_surf(folder: Path) -> tuple[dict[str, Any], list[plots.Panel]]:
    jobs, node = surf(folder)
    count = sized(jobs, node, 4.0)
    nodes = [node] * count
    apart = [job if job.deadline_ms else replace(job, tenant=LONG) for job in jobs]
    most = Vector(*(LONG_PERCENT * count // 100 * amount for amount in node.amounts()))
    tenants = {"surf": Tenant(weight=10), LONG: Tenant(quota=most)}
    ran = {
        "first come, first fit": first_come(jobs, nodes),
        "one tenant": replay(jobs, nodes, CoreSettings(ageing_ms=6 * HOUR_MS)),
        "two tenants": replay(apart, nodes, CoreSettings(ageing_ms=96 * HOUR_MS), tenants=tenants),
    }
    found: dict[str, Any] = {
        "jobs": len(jobs),
        "without_possible_deadline": sum(not job.deadline_ms for job in jobs),
        "nodes": count,
    }
    for name, ones in ran.items():
        waits_h = [one.waited_ms / HOUR_MS for one in ones if not one.job.deadline_ms]
        found[name] = {
            "in_time_percent": round(100 - missed_percent(ones), 3),
            "missed": sum(not one.in_time for one in ones if one.job.deadline_ms),
            "mean_wait_without_deadline_h": round(sum(waits_h) / len(waits_h), 1),
            "longest_wait_without_deadline_h": round(max(waits_h), 1),
        }
    lines = {name: _missed_by_day(ones) for name, ones in ran.items()}
    return found, [plots.Panel("SURF month", "day", "deadlines missed so far", lines)]


def _missed_by_day(ran: Sequence[Ran]) -> list[tuple[float, float]]:
    missed = sorted(one.job.deadline_ms for one in ran if one.job.deadline_ms and not one.in_time)
    first, last = min(one.job.arrival_ms for one in ran), max(one.job.deadline_ms for one in ran)
    ends = [(0.0, 0.0), *((_days(ms - first), number) for number, ms in enumerate(missed, 1))]
    return [*ends, (_days(last - first), len(missed))]


def _days(ms: int) -> float:
    return ms / (24 * HOUR_MS)


def run_lcg(folder: Path) -> tuple[dict[str, Any], list[plots.Panel]]:
    found: dict[str, Any] = {}
    lines = {}
    policies = {"first come, first fit": first_come, "queue and placement": replay}
    regions = lcg(folder)
    for name, policy in policies.items():
        slowdowns: defaultdict[str, list[float]] = defaultdict(list)
        for jobs in regions:
            span_ms = max(job.arrival_ms for job in jobs) - min(job.arrival_ms for job in jobs)
            processors = sum(job.run_ms for job in jobs) // span_ms + 1
            nodes = [Vector(16_000, 65_536)] * (-(-processors // 16))
            for one in policy(jobs, nodes):
                long_ms = max(one.job.run_ms, SHORT_MS)
                slowdowns[one.job.tenant].append(max(1.0, (one.waited_ms + one.job.run_ms) / long_ms))
        means = sorted(sum(values) / len(values) for values in slowdowns.values())
        found[name] = {
            "tenants": len(means),
            "jain_of_tenants": round(jain([1 / mean for mean in means]), 3),
            "median_of_mean_slowdowns": round(means[len(means) // 2], 1),
            "p90_of_mean_slowdowns": round(means[int(len(means) * 0.9)], 1),
            "worst_mean_slowdown": round(means[-1], 1),
        }
        lines[name] = [(100 * number / len(means), mean) for number, mean in enumerate(means, 1)]
    return found, [plots.Panel("LCG: tenants", "% of tenants", "mean bounded slowdown", lines, "log")]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.traces", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the trace")
    parser.add_argument("--trace", choices=("surf", "lcg"), required=True)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--plot", type=Path, help="folder for a PNG and a page")
    arguments = parser.parse_args()
    found, panels = (run_surf if arguments.trace == "surf" else run_lcg)(arguments.data)
    text = json.dumps(found, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if arguments.plot:
        policies = {name: figures for name, figures in found.items() if isinstance(figures, dict)}
        header = ("", *next(iter(policies.values())))
        rows = [(name, *figures.values()) for name, figures in policies.items()]
        facts = [(name, value) for name, value in found.items() if name not in policies]
        tables = [plots.Table("Figures", header, rows), *([plots.Table("Trace", ("", ""), facts)] if facts else [])]
        plots.write(arguments.plot, arguments.trace, f"Trace {arguments.trace}", "In virtual time.", panels, tables)


if __name__ == "__main__":
    main()
