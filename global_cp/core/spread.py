"""Where the replicas of one task should run: the plan, not the way to it (moves.py).

Decides counts per region from the policy, what each region may take, and the plan before. Invariants: only regions in
`places` get anything, so residency is never broken; the sum is exact unless no region takes more; the same input gives
the same plan; a plan is changed only by a new policy, a new count, a region that opens or closes, or replicas that a
region has said for a while it has no room for. Numbers of room alone move nothing that has a place.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from atoll.api.v1 import objects_pb2
from atoll.model.costs import COST_LABEL, cost_per_hour
from atoll.model.selectors import matches

Counts = Mapping[str, int]  # by region
ACTIVE = objects_pb2.REGION_STATE_ACTIVE
EVEN, FIXED = objects_pb2.SPREAD_STRATEGY_EVEN, objects_pb2.SPREAD_STRATEGY_FIXED
CHEAPEST = objects_pb2.SPREAD_STRATEGY_CHEAPEST


@dataclass(frozen=True, slots=True)
class Place:
    """A region as one workload sees it. `takes`: may get more; `keeps`: what it has need not leave."""

    region: str
    takes: bool
    keeps: bool


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked for. `anew`: the policy changed, so the plan before binds nothing."""

    replicas: int
    strategy: int
    fixed: Counts = field(default_factory=dict)
    anew: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known of the regions, in replicas of the task. `room`: for how many more (absent: not known, as good as
    none while another has room); `stuck`: how many of the plan wait there, for long, because no node takes them;
    `full`: where some did not long ago, whatever the numbers say."""

    room: Counts = field(default_factory=dict)
    stuck: Counts = field(default_factory=dict)
    full: frozenset[str] = frozenset()

    def room_of(self, region: str) -> int:
        return 0 if region in self.full else max(0, self.room.get(region, 0))


def places(
    spec: objects_pb2.WorkloadSpec, regions: Mapping[str, objects_pb2.Region], current: Sequence[str]
) -> list[Place]:
    """The regions that may have replicas, in order of preference; `current` are those that have. Any region will do:
    where it is already comes first; where the cheapest is asked for, that does, and preference decides between equals.
    A region outside the preferences, and one that drains, keeps nothing but jobs, which run to their end where they
    are; one that residency forbids is no place at all."""
    fixed = [count.region for count in spec.spread.fixed]
    wanted = list(spec.regions) or fixed or sorted(regions, key=lambda name: (name not in current, name))
    if spec.spread.strategy == CHEAPEST:
        wanted.sort(key=lambda name: _cost(regions.get(name)))
    resident = {name for name, region in regions.items() if meets(spec.spread.residency, region)}
    job = spec.type == objects_pb2.WORKLOAD_TYPE_JOB
    found = []
    for name in dict.fromkeys((*wanted, *current)):
        if name not in resident:
            continue
        region, asked_for = regions[name], name in wanted
        closed = region.cordoned or region.draining or region.state != ACTIVE
        takes = asked_for and not closed
        found.append(Place(name, takes, job or (asked_for and not region.draining)))
    return found


def _cost(region: objects_pb2.Region | None) -> float:
    """What the region's label says; the dearest where none does."""
    said = [cost_per_hour(label.value) for label in region.metadata.labels if label.key == COST_LABEL] if region else []
    return said[0] if said and said[0] is not None else math.inf


def meets(residency: Sequence[objects_pb2.LabelRequirement], region: objects_pb2.Region) -> bool:
    if not residency:
        return True
    labels = {label.key: label.value for label in region.metadata.labels}
    return all(matches(requirement, labels) for requirement in residency)


def plan(task: Task, at: Sequence[Place], before: Counts, outlook: Outlook) -> dict[str, int]:
    """Region → replicas, for every place. `before` is the last plan."""
    before = {place.region: before.get(place.region, 0) for place in at}
    if task.strategy == FIXED:
        counts = _fixed(task, at, before)
    elif task.strategy == EVEN:
        counts = _even(task, at, before, outlook)
    elif task.anew:
        counts = _by_preference(task, at, before, outlook)
    else:
        counts = _preferred(task, at, before, outlook)
    return counts if task.strategy == FIXED else _rest(task, at, before, counts)


def _fixed(task: Task, at: Sequence[Place], before: Counts) -> dict[str, int]:
    """As said; a region that takes no more keeps what it has, for its replicas have no other place."""
    wanted = {place.region: task.fixed.get(place.region, 0) for place in at}
    return {p.region: wanted[p.region] if p.takes else min(wanted[p.region], before[p.region]) for p in at}


def _by_preference(task: Task, at: Sequence[Place], before: Counts, outlook: Outlook) -> dict[str, int]:
    """From the beginning: what a region runs already counts as room there."""
    counts, left = {}, task.replicas
    for place in at:
        here = before[place.region] - outlook.stuck.get(place.region, 0)
        most = here + outlook.room_of(place.region) if place.takes else here if place.keeps else 0
        counts[place.region] = min(left, max(0, most))
        left -= counts[place.region]
    return counts


def _preferred(task: Task, at: Sequence[Place], before: Counts, outlook: Outlook) -> dict[str, int]:
    """What has a place stays. Too many: first those that wait for room, then from the least preferred region. Too few:
    in order of preference, as far as there is room. Those that are stuck go where there is room."""
    counts = {place.region: before[place.region] if place.keeps else 0 for place in at}
    stuck = {place.region: min(outlook.stuck.get(place.region, 0), counts[place.region]) for place in at}
    surplus = max(0, sum(counts.values()) - task.replicas)
    for limits in (stuck, counts):
        for place in reversed(at):
            cut = min(surplus, limits[place.region])
            surplus -= cut
            counts[place.region] -= cut
            if limits is stuck:
                stuck[place.region] -= cut
    missing = max(0, task.replicas - sum(counts.values()))
    room = {place.region: outlook.room_of(place.region) for place in at if place.takes}
    missing -= _pour(missing, counts, room)
    for place in reversed(at):  # the least preferred is relieved first, into the most preferred
        counts[place.region] -= _pour(stuck[place.region], counts, room)
    return counts


def _pour(amount: int, counts: dict[str, int], room: dict[str, int]) -> int:
    """Adds up to `amount` to `counts` where there is room, in order; how many."""
    left = amount
    for region in room:
        taken = min(left, room[region])
        counts[region] += taken
        room[region] -= taken
        left -= taken
    return amount - left


def _even(task: Task, at: Sequence[Place], before: Counts, outlook: Outlook) -> dict[str, int]:
    """The level at which all stand alike, but for those that can have no more. The odd ones stay where they are. Where
    all are full what has a place stays there, and what waits evens them out."""
    placed = {p.region: max(0, before[p.region] - outlook.stuck.get(p.region, 0)) if p.keeps else 0 for p in at}
    takers = {place.region for place in at if place.takes}
    some_wait = bool(takers) and takers <= outlook.full and sum(placed.values()) < task.replicas
    open_ = takers if some_wait else takers - outlook.full
    least = placed if some_wait else dict.fromkeys(placed, 0)
    most = {region: task.replicas if region in open_ else count for region, count in placed.items()}

    def up_to(level: int) -> dict[str, int]:
        return {region: max(least[region], min(level, most[region])) for region in placed}

    levels = range(task.replicas + 1)
    level = bisect_right(levels, task.replicas, key=lambda level: sum(up_to(level).values())) - 1
    counts, higher = up_to(level), up_to(level + 1)
    odd = task.replicas - sum(counts.values())
    rank = {place.region: index for index, place in enumerate(at)}
    for region in sorted(counts, key=lambda region: (-before[region], rank[region])):
        if odd and higher[region] > counts[region]:
            counts[region] += 1
            odd -= 1
    return counts


def _rest(task: Task, at: Sequence[Place], before: Counts, counts: dict[str, int]) -> dict[str, int]:
    """What found no room waits in the first region that takes any; when none does it stays where it was, or is
    nowhere."""
    left = task.replicas - sum(counts.values())
    if left <= 0:
        return counts
    if takers := [place.region for place in at if place.takes]:
        counts[takers[0]] += left
        return counts
    for place in at:
        stays = min(left, before[place.region] - counts[place.region])
        counts[place.region] += stays
        left -= stays
    return counts
