"""`python -m simulation run` tries many seeds; `replay SEED` shows one history again; `day` plays a day of passes.

A failing seed prints the one command that replays it, bit for bit, and the exit code is 8.
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

import click

from simulation.day import run as one_day
from simulation.features import NO_FEATURES
from simulation.history import Outcome, run

FAILED = 8


@click.group()
def main() -> None:
    """The production cores under virtual time, with random faults.

    \b
    Examples:
      python -m simulation run --seeds 300 --events 10000 --workers 2
      python -m simulation replay 17 --events 10000
    """


@main.command("run")
@click.option("--seeds", default=300, show_default=True, help="How many histories.")
@click.option("--first", default=1, show_default=True, help="The first seed.")
@click.option("--events", default=10_000, show_default=True, help="Events with faults in each, at least.")
@click.option("--plain", is_flag=True, help="Without features that seeds draw: GPUs, rules, schedules, removals ...")
@click.option("--workers", default=2, show_default=True, help="Processes.")
@click.option("--json", "as_json", is_flag=True, help="The summary as JSON on stdout.")
def run_many(seeds: int, first: int, events: int, plain: bool, workers: int, as_json: bool) -> None:
    """Try SEEDS histories and check every rule in each.

    \b
    Examples:
      python -m simulation run
      python -m simulation run --seeds 20000 --first 1000
      python -m simulation run --seeds 50 --plain --json
    """
    started = time.perf_counter()
    cpu_s, outcomes = 0.0, []
    with ProcessPoolExecutor(workers) as pool:
        numbers = range(first, first + seeds)
        for outcome, spent_s in pool.map(_timed, numbers, [events] * seeds, [plain] * seeds, chunksize=4):
            outcomes.append(outcome)
            cpu_s += spent_s
            if outcome.failure:
                click.echo(f"seed {outcome.seed}: {outcome.failure}", err=True)
                told = " --plain" if plain else ""
                click.echo(f"replay: python -m simulation replay {outcome.seed} --events {events}{told}", err=True)
    failed = [outcome.seed for outcome in outcomes if outcome.failure]
    seen: Counter[str] = Counter()
    for outcome in outcomes:
        seen.update(dict(outcome.seen))
    summary = {
        "seeds": seeds,
        "failed": failed,
        "events": sum(o.events for o in outcomes),
        "bindings": sum(o.bindings for o in outcomes),
        "revisions_checked": sum(o.revisions for o in outcomes),
        "unknown_outcomes": sum(o.unknowns for o in outcomes),
        "virtual_hours": round(sum(o.virtual_s for o in outcomes) / 3600, 1),
        **seen,
        "events_per_cpu_second": round(sum(o.events for o in outcomes) / cpu_s),
        "seconds": round(time.perf_counter() - started, 1),
    }
    click.echo(json.dumps(summary) if as_json else "\n".join(f"{k:>22}  {v}" for k, v in summary.items()))
    sys.exit(FAILED if failed else 0)


def _timed(seed: int, events: int, plain: bool) -> tuple[Outcome, float]:
    started = time.process_time()
    return run(seed, events, features=NO_FEATURES if plain else None), time.process_time() - started


@main.command()
@click.argument("seed", type=int)
@click.option("--events", default=10_000, show_default=True, help="As in the run that failed.")
@click.option("--plain", is_flag=True, help="As in the run that failed.")
def replay(seed: int, events: int, plain: bool) -> None:
    """Run the history of SEED again and print its outcome.

    \b
    Examples:
      python -m simulation replay 17
      python -m simulation replay 17 --events 50000
    """
    outcome = run(seed, events, features=NO_FEATURES if plain else None)
    click.echo(json.dumps(asdict(outcome), indent=2))
    sys.exit(FAILED if outcome.failure else 0)


@main.command()
@click.option("--seed", default=1, show_default=True, help="Which day.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON.")
def day(seed: int, as_json: bool) -> None:
    """A day of 1,400 satellite passes over three regions, a node and a region lost, beside first come, first fit.

    It takes about four minutes.

    \b
    Examples:
      python -m simulation day
      python -m simulation day --seed 7
      python -m simulation day --json
    """
    outcome = asdict(one_day(seed))
    click.echo(json.dumps(outcome) if as_json else "\n".join(f"{k:>22}  {v}" for k, v in outcome.items()))


if __name__ == "__main__":
    main()
