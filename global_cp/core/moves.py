"""The way from what the regions run of one task to what they should: make before break, across regions.

Decides one step: which counts may be told to the regions now. Invariants: a replica that is ready is given up only when
one that takes its place is ready, or when the user asked for fewer; `spare` bounds how many more than now the regions
are told in all, beside those that are missing. Without any to spare it goes in steps of `stride`: so many are given up
first, and the next ones only when those that replace them are ready. Those may wait for the very quota that is still to
be given up (`unpaid_step`): when that may be done is decided in shares.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Counts = Mapping[str, int]  # by region


@dataclass(frozen=True, slots=True)
class Standing:
    """`told`: what each region is told to run now; `ready` and `waiting`: how many of these are ready, or have no node,
    as far as it has said, and `unpaid`: for want of quota; `planned`: where the last plan wanted it."""

    told: Counts
    ready: Counts
    waiting: Counts
    planned: Counts
    unpaid: Counts = field(default_factory=dict)


class Stride(NamedTuple):
    """Replicas given up so that others may have their quota: how many were ready before, and when."""

    ready: int
    at_ms: int


def step(now: Standing, plan: Counts, spare: int, stride: int) -> dict[str, int]:
    """What each region is told next; equal to `plan` when the move is done. Over the same regions as `plan`."""
    told = {region: now.told.get(region, 0) for region in plan}
    counts = dict(told)
    rising = {region: plan[region] - told[region] for region in plan if plan[region] > told[region]}
    falling = {region: told[region] - plan[region] for region in plan if plan[region] < told[region]}
    before = sum(now.planned.get(region, 0) for region in plan)  # a region that must have none took its part with it
    fewer = max(0, before - sum(plan.values()))
    for region in falling:  # what waits serves nobody
        idle = min(falling[region], now.waiting.get(region, 0))
        counts[region] -= idle
        falling[region] -= idle
        fewer = max(0, fewer - idle)
    missing = sum(plan.values()) - sum(counts.values())
    grown = _add(counts, rising, max(missing, spare + sum(told.values()) - sum(counts.values()), 0))
    waits = sum(rising.values()) - grown
    unready = sum(max(0, min(counts[r], plan[r]) - now.ready.get(r, 0)) for r in plan)
    surplus = sum(falling.values())
    _take(counts, falling, max(fewer, surplus - unready - waits))
    if waits and counts == told and not unready:
        _add(counts, rising, min(stride, waits, surplus))
        _take(counts, falling, stride)
    return counts


def unpaid_step(now: Standing, plan: Counts, stride: int) -> dict[str, int]:
    """The next stride when all that a move waits for are replicas that wait for quota themselves. What is told now
    while any waits for something else."""
    counts = {region: now.told.get(region, 0) for region in plan}
    rising = {region: plan[region] - counts[region] for region in plan if plan[region] > counts[region]}
    falling = {region: counts[region] - plan[region] for region in plan if plan[region] < counts[region]}
    unready = {region: max(0, min(counts[region], plan[region]) - now.ready.get(region, 0)) for region in plan}
    if all(now.unpaid.get(region, 0) >= unready[region] for region in plan):
        _add(counts, rising, min(stride, sum(falling.values())))
        _take(counts, falling, stride)
    return counts


def _add(counts: dict[str, int], rising: Mapping[str, int], amount: int) -> int:
    """Raises the counts in order, by `amount` in all at most; by how much."""
    left = amount
    for region, wanted in rising.items():
        more = min(left, wanted)
        counts[region] += more
        left -= more
    return amount - left


def _take(counts: dict[str, int], falling: dict[str, int], amount: int) -> None:
    """Lowers the counts, of the least preferred region first, by `amount` in all at most."""
    for region in reversed(falling):
        cut = min(max(0, amount), falling[region])
        counts[region] -= cut
        falling[region] -= cut
        amount -= cut
