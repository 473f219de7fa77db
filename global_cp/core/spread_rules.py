"""What may be said of regions and spread: every mistake with its path.

Decides whether a spread can ever be kept: regions that exist, residency that one of them meets, fixed counts that add
up. A region that takes no work just now is no mistake: the workload waits and says so.
"""

from collections.abc import Iterator, Mapping

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model.names import mistake_in_name
from atoll.model.selectors import mistake_in_requirement
from global_cp.core.spread import meets

MOST_REGIONS = 60  # one transaction writes the shares of all
_AT = "spec.spread"

Mistakes = Iterator[Mistake]
Regions = Mapping[str, objects_pb2.Region]


def mistakes_in_spread(spec: objects_pb2.WorkloadSpec, regions: Regions) -> Mistakes:
    seen: set[str] = set()
    for index, region in enumerate(spec.regions):
        path = f"spec.regions[{index}]"
        if region in seen:
            yield Mistake(path, f"{region[:63]!r} is there twice")
        seen.add(region)
        yield from _known(region, regions, path)
    for path, entries in (("spec.regions", spec.regions), (f"{_AT}.fixed", spec.spread.fixed)):
        if len(entries) > MOST_REGIONS:
            yield Mistake(path, f"has {len(entries)} entries; at most {MOST_REGIONS} are allowed")
    yield from _fixed(spec, regions)
    yield from _residency(spec, regions)


def allowed(spec: objects_pb2.WorkloadSpec, regions: Regions) -> list[str]:
    """The known regions that the workload may use, whether they take work now or not."""
    named = list(spec.regions) or [count.region for count in spec.spread.fixed] or list(regions)
    return [name for name in named if name in regions and meets(spec.spread.residency, regions[name])]


def _fixed(spec: objects_pb2.WorkloadSpec, regions: Regions) -> Mistakes:
    counts = spec.spread.fixed
    if spec.spread.strategy != objects_pb2.SPREAD_STRATEGY_FIXED:
        if counts:
            yield Mistake(f"{_AT}.fixed", "counts are for the strategy fixed only")
        return
    if not counts:
        yield Mistake(f"{_AT}.fixed", "is missing: the strategy fixed needs the replicas of each region")
        return
    seen: set[str] = set()
    for index, count in enumerate(counts):
        path = f"{_AT}.fixed[{index}]"
        yield from _known(count.region, regions, f"{path}.region")
        if count.region in seen:
            yield Mistake(f"{path}.region", f"{count.region[:63]!r} is there twice")
        seen.add(count.region)
        if count.replicas < 0:
            yield Mistake(f"{path}.replicas", f"{count.replicas} is not allowed: 0 or more")
        if spec.regions and count.region not in spec.regions:
            yield Mistake(f"{path}.region", f"{count.region[:63]!r} is not among spec.regions")
    total = sum(count.replicas for count in counts)
    for index, task in enumerate(spec.tasks):
        if task.replicas != total:
            message = f"{task.replicas} is not the sum of spread.fixed, {total}; leave it out, or make them agree"
            yield Mistake(f"spec.tasks[{index}].replicas", message)


def _residency(spec: objects_pb2.WorkloadSpec, regions: Regions) -> Mistakes:
    wrong = False
    for index, requirement in enumerate(spec.spread.residency):
        if mistake := mistake_in_requirement(requirement):
            wrong = True
            yield Mistake(f"{_AT}.residency[{index}]", mistake)
    if wrong or not spec.spread.residency:
        return
    named = [name for name in spec.regions if name in regions]
    if not allowed(spec, regions) and (named or not spec.regions):
        among = "none of spec.regions" if spec.regions else "no region"
        yield Mistake(f"{_AT}.residency", f"{among} has labels that meet it")
    for index, count in enumerate(spec.spread.fixed):
        region = regions.get(count.region)
        if region is not None and not meets(spec.spread.residency, region):
            yield Mistake(f"{_AT}.fixed[{index}].region", f"{count.region[:63]!r} does not meet the residency")


def _known(region: str, regions: Regions, path: str) -> Mistakes:
    if mistake := mistake_in_name(region):
        yield Mistake(path, mistake)
    elif region not in regions:
        yield Mistake(path, f"region {region!r} is not known; known are: {', '.join(regions) or 'none'}")
