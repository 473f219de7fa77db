"""Which bound replicas give their room to one of a higher priority: values in, values out.

Victims are of lower classes only, on one node. The best choice disrupts the fewest workloads, then stops the fewest
replicas, then loses the least work. Exact among the few most useful candidates of a node; where those do not make
enough room, greedy over all of them.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from atoll.model.resources import NOTHING, Vector, total

EXACT = 8  # candidates of a node that are tried in every combination


class Candidate(NamedTuple):
    """A replica that may be stopped."""

    key: bytes
    workload: tuple[str, str]
    vector: Vector
    lost_ms: int  # work that is done again


class Cost(NamedTuple):
    """The order of choices: less is better."""

    workloads: int
    victims: int
    lost_ms: int


def cost(victims: Sequence[Candidate]) -> Cost:
    return Cost(len({v.workload for v in victims}), len(victims), sum(v.lost_ms for v in victims))


def choose(candidates: Iterable[Candidate], missing: Vector) -> tuple[Candidate, ...]:
    """Victims that free at least `missing`; empty when all of them would not."""
    useful = sorted(candidates, key=lambda c: (-_part(c.vector, missing), c.lost_ms, c.key))
    if not missing.fits(total([c.vector for c in useful])):
        return ()
    few = useful[:EXACT]
    found = [
        some
        for size in range(1, len(few) + 1)
        for some in combinations(few, size)
        if missing.fits(total([c.vector for c in some]))
    ]
    if found:
        return min(found, key=cost)
    return _greedy(useful, missing)


def _part(amount: Vector, missing: Vector) -> float:
    """How much of what is missing an amount makes up, summed over dimensions."""
    return sum(min(a, m) / m for a, m in zip(amount.amounts(), missing.amounts(), strict=True) if m > 0)


def _greedy(useful: Sequence[Candidate], missing: Vector) -> tuple[Candidate, ...]:
    """Workload by workload, those first that make up most; then without whom it does as well."""
    sums: dict[tuple[str, str], Vector] = {}
    for one in useful:
        sums[one.workload] = sums.get(one.workload, NOTHING) + one.vector
    order = sorted(sums, key=lambda workload: (-_part(sums[workload], missing), workload))
    chosen: list[Candidate] = []
    for one in sorted(useful, key=lambda c: order.index(c.workload)):
        if missing.fits(total([c.vector for c in chosen])):
            break
        chosen.append(one)
    for one in reversed(chosen[:]):
        if missing.fits(total([c.vector for c in chosen if c is not one])):
            chosen.remove(one)
    return tuple(chosen)
