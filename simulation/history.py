"""Runs the history of one seed: faults for most of its events, then peace, in which everything must converge."""

import gc
import random
import traceback
from dataclasses import dataclass, replace

from simulation.faults import Faults, draw
from simulation.world import World

CONVERGE_WITHIN_MS = 600_000  # virtual; back-off of failing starts reaches 300 s
CONVERGE_WITHIN_EVENTS = 50_000  # what runs in circles does not converge either
STEP_MS = 2_000


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
    failure: str


def run(seed: int, events: int, **faults_of: float) -> Outcome:
    """The whole history of `seed`: at least `events` events with faults, then until it converges. `faults_of` replaces
    some of the faults the seed has drawn."""
    rng = random.Random(seed ^ 0x5EED)
    faults = replace(draw(rng), **faults_of)  # type: ignore[arg-type]
    world = World(seed, faults, nodes=rng.randint(3, 8), lanes=rng.choice([1, 1, 4]))
    failure = ""
    gc.disable()  # a history is short, and most of what it makes stays until its end
    try:
        world.begin()
        world.kernel.run(events=events)
        world.heal()
        failure = _converge(world)
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
        unknowns=sum(candidate.store.unknowns for candidate in world.candidates),
        virtual_s=kernel.elapsed_ms // 1000,
        faults=faults,
        failure=failure,
    )


def _converge(world: World) -> str:
    """Until nothing is missing, twice in a row; else what still is after the time allowed."""
    kernel = world.kernel
    end_ms, last = kernel.now_ms + CONVERGE_WITHIN_MS, kernel.delivered + CONVERGE_WITHIN_EVENTS
    calm = 0
    missing = ""
    while kernel.now_ms < end_ms and kernel.delivered < last:
        kernel.run(until_ms=kernel.now_ms + STEP_MS)
        missing = world.checkers.converged()
        calm = 0 if missing else calm + 1
        if calm == 2:
            return ""
    return f"not converged {(kernel.now_ms - end_ms + CONVERGE_WITHIN_MS) // 1000} s after the last fault: {missing}"
