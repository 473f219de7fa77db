"""Runs the history of one seed: faults for most of its events, then peace, in which everything must converge."""

import gc
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

from simulation.convergence import converged, regions_converged
from simulation.faults import Faults, draw
from simulation.features import Features
from simulation.features import draw as draw_features
from simulation.world import Shape, World

CONVERGE_WITHIN_MS = 600_000  # virtual; back-off of failing starts reaches 300 s
CONVERGE_WITHIN_EVENTS = 50_000  # what runs in circles does not converge either
STEP_MS = 2_000
SHORT_VALIDITY_MS = 240_000  # of slices, in some histories: they freeze when the global plane is long away
WITH_JOBS = 0.5  # of the histories have jobs
EVENING_OUT = 0.4  # of the histories have regions that move replicas to even out their nodes
TURNS = 3  # of regions in peace, that open or close all their nodes, where verdicts follow from rooms
ALONE = 0.3  # of the histories have their regions converge once while the global plane is away


@dataclass(frozen=True, slots=True)
class Outcome:
    """`failure` is empty when every rule held and everything converged."""

    seed: int
    events: int
    digest: int
    revisions: int
    bindings: int
    unknowns: int
    virtual_s: int
    faults: Faults
    features: Features
    seen: tuple[tuple[str, int], ...]  # what happened, and how often
    failure: str


def run(
    seed: int,
    events: int,
    *,
    regions: int = 0,
    jobs: bool | None = None,
    features: Features | None = None,
    **faults_of: float,
) -> Outcome:
    """The whole history of `seed`: at least `events` events with faults, then until it converges. `regions`, `jobs`,
    `features` and `faults_of` replace what the seed has drawn."""
    rng = random.Random(seed ^ 0x5EED)
    faults = replace(draw(rng), **faults_of)  # type: ignore[arg-type]
    shape = _shape(rng)
    alone = rng.random() < ALONE
    with_jobs = rng.random() < WITH_JOBS if jobs is None else jobs
    evens_out = random.Random(seed ^ 0xE7E4).random() < EVENING_OUT
    features = draw_features(seed) if features is None else features
    shape = replace(shape, regions=regions or shape.regions, jobs=with_jobs, evens_out=evens_out, features=features)
    world = World(seed, faults, shape)
    gc.disable()  # a history is short, and most of what it makes stays until its end
    try:
        world.begin()
        world.kernel.run(events=events)
        failure = _peace(world, alone)
    except AssertionError as error:
        failure = f"{error}\n{traceback.format_exc(limit=-6)}"
    finally:
        gc.enable()
    kernel = world.kernel
    return Outcome(
        seed=seed,
        events=kernel.delivered,
        digest=kernel.digest,
        revisions=world.checkers.revisions,
        bindings=world.checkers.bindings,
        unknowns=sum(candidate.store.unknowns for candidate in (*world.planes, *world.candidates)),
        virtual_s=kernel.elapsed_ms // 1000,
        faults=faults,
        features=features,
        seen=tuple(sorted((what, count) for what, count in world.checkers.seen.items() if count)),
        failure=failure,
    )


def _peace(world: World, alone: bool) -> str:
    """Faults stop; `alone`: for the regions first. What is missing then, or nothing."""
    if alone:
        world.heal(with_global=False)
        if failure := converge(world, regions_converged, "without the global plane"):
            return failure
    world.heal()
    failure = converge(world, converged, "after the last fault")
    for _ in range(TURNS if world.shape.features.recovery else 0):
        if not failure:
            world.operators.turn_a_region()  # rooms change, and nothing else does
            failure = converge(world, converged, "after a region has opened or closed its nodes")
    return failure


def _shape(rng: random.Random) -> Shape:
    regions = rng.choice([1, 2, 3])
    nodes = rng.randint(3, 8) if regions == 1 else rng.randint(2, 4)
    lanes, apart, short = rng.choice([1, 1, 4]), rng.random() < 0.3, rng.random() < 0.4
    validity_ms = SHORT_VALIDITY_MS if short else Shape().slice_validity_ms
    return Shape(regions, nodes, lanes, apart, validity_ms, headroom_percent=rng.choice([0, 0, 15]))


def converge(world: World, look: Callable[[World], str], when: str) -> str:
    """Until nothing is missing, twice in a row; else what still is after the time allowed."""
    kernel = world.kernel
    end_ms, last = kernel.now_ms + CONVERGE_WITHIN_MS, kernel.delivered + CONVERGE_WITHIN_EVENTS
    calm = 0
    missing = ""
    while kernel.now_ms < end_ms and kernel.delivered < last:
        kernel.run(until_ms=kernel.now_ms + STEP_MS)
        missing = look(world)
        calm = 0 if missing else calm + 1
        if calm == 2:
            return ""
    return f"not converged in {(kernel.now_ms - end_ms + CONVERGE_WITHIN_MS) // 1000} s {when}: {missing}"
