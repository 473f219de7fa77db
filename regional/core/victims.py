"""Which bound replicas give their room to one of a higher priority: values in, values out.

Victims are on one node. The best choice disrupts the fewest workloads that the hard account pays for, then the fewest
workloads, then stops the fewest
replicas, then loses the least work, in whole minutes, then has the least left to run by its estimates. Exact among the
few most useful candidates of a node; where those do not make enough room, greedy over all of them. GPUs are looked at
one by one: whole ones must become idle, a part needs enough of one and the same device.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from atoll.model.resources import NOTHING, Vector, total
from regional.core.gpus import WHOLE_MILLI, asks_whole

_MINUTE_MS = 60_000
EXACT = 8  # candidates of a node that are tried in every combination


class Candidate(NamedTuple):
    """A replica that may be stopped."""

    key: bytes
    workload: tuple[str, str]
    vector: Vector
    lost_ms: int  # work that is done again
    gpus: tuple[int, ...] = ()  # the devices it holds, each with an equal part of the vector's `gpu_milli`
    left_ms: int = 0  # that it has still to run, by its estimate
    burst: bool = False  # charged to a burst account: such room is reclaimed first


class Cost(NamedTuple):
    """The order of choices: less is better."""

    hard_workloads: int
    workloads: int
    victims: int
    lost_min: int
    left_ms: int


class Lacking(NamedTuple):
    """What a node lacks for one more replica."""

    amount: Vector  # of what is not counted by device
    gpu_milli: int = 0  # that the replica asks for on devices; 0 where it has them
    left: tuple[tuple[int, int], ...] = ()  # of each device it may have: number and milli

    def met_by(self, victims: Sequence[Candidate]) -> bool:
        if not self.amount.fits(total([v.vector for v in victims])):
            return False
        if not self.gpu_milli:
            return True
        freed = freed_gpus(victims)
        left = [milli + freed[number] for number, milli in self.left]
        if asks_whole(self.gpu_milli):
            return sum(milli >= WHOLE_MILLI for milli in left) * WHOLE_MILLI >= self.gpu_milli
        return max(left, default=0) >= self.gpu_milli


def freed_gpus(victims: Iterable[Candidate]) -> Counter[int]:
    """Milli by device."""
    freed: Counter[int] = Counter()
    for one in victims:
        for number in one.gpus:
            freed[number] += one.vector.gpu_milli // len(one.gpus)
    return freed


def cost(victims: Sequence[Candidate]) -> Cost:
    lost_min = sum(v.lost_ms for v in victims) // _MINUTE_MS
    hard = len({v.workload for v in victims if not v.burst})
    return Cost(hard, len({v.workload for v in victims}), len(victims), lost_min, sum(v.left_ms for v in victims))


def choose(candidates: Iterable[Candidate], lacking: Lacking) -> tuple[Candidate, ...]:
    """Victims that free at least what is lacking; empty when all of them would not."""
    found = list(candidates)
    ranks = _ranks(found, lacking)
    useful = sorted(
        found, key=lambda c: (not c.burst, ranks.get(c.key, 0), -_part(c.vector, lacking.amount), *cost((c,)), c.key)
    )
    if not lacking.met_by(useful):
        return ()
    few = useful[:EXACT]
    enough = [some for size in range(1, len(few) + 1) for some in combinations(few, size) if lacking.met_by(some)]
    if enough:
        return min(enough, key=cost)
    return _greedy(useful, lacking)


def _ranks(candidates: Sequence[Candidate], lacking: Lacking) -> dict[bytes, int]:
    """Where devices are lacking: of each candidate, the place of its best device. Best are those that few hold."""
    if not lacking.gpu_milli:
        return {}
    holders: Counter[int] = Counter(number for one in candidates for number in one.gpus)
    freed = freed_gpus(candidates)
    asked = min(lacking.gpu_milli, WHOLE_MILLI)
    possible = {number for number, milli in lacking.left if milli + freed[number] >= asked}
    order = sorted(possible, key=lambda number: (holders[number], number))
    return {one.key: min([order.index(n) for n in one.gpus if n in possible], default=len(order)) for one in candidates}


def _part(amount: Vector, missing: Vector) -> float:
    """How much of what is missing an amount makes up, summed over dimensions."""
    return sum(min(a, m) / m for a, m in zip(amount.amounts(), missing.amounts(), strict=True) if m > 0)


def _greedy(useful: Sequence[Candidate], lacking: Lacking) -> tuple[Candidate, ...]:
    """Workload by workload, those first that make up most; where devices are lacking in the order of their devices.
    Then without whom it does as well."""
    order = useful if lacking.gpu_milli else _by_workload(useful, lacking.amount)
    chosen: list[Candidate] = []
    for one in order:
        if lacking.met_by(chosen):
            break
        chosen.append(one)
    for one in reversed(chosen[:]):
        if lacking.met_by([c for c in chosen if c is not one]):
            chosen.remove(one)
    return tuple(chosen)


def _by_workload(useful: Sequence[Candidate], missing: Vector) -> list[Candidate]:
    sums: dict[tuple[str, str], Vector] = {}
    for one in useful:
        sums[one.workload] = sums.get(one.workload, NOTHING) + one.vector
    order = sorted(sums, key=lambda workload: (-_part(sums[workload], missing), workload))
    return sorted(useful, key=lambda c: (not c.burst, order.index(c.workload)))
