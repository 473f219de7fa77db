"""What may be said of gangs: every mistake with its path.

Decides whether a gang can ever be placed at once, in one region: its spread, its order among the tasks of a job, and
that it is not larger than every region it may use. Too little quota or room now is no mistake: the gang waits.
"""

from collections.abc import Iterator, Mapping, Sequence

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model.resources import Vector, total, vector

SPLITTING = (objects_pb2.SPREAD_STRATEGY_EVEN, objects_pb2.SPREAD_STRATEGY_FIXED)


def mistakes_in_gang(
    spec: objects_pb2.WorkloadSpec,
    regions: Sequence[str],
    summaries: Mapping[str, objects_pb2.RegionSummary],
    accepted: Sequence[objects_pb2.Task] = (),
) -> Iterator[Mistake]:
    """`regions`: those that it may use; `accepted`: its tasks as they are, where these may run in no other regions: a
    gang that asks for no more may be applied again though nodes are gone."""
    members = [(f"spec.tasks[{index}]", task) for index, task in enumerate(spec.tasks) if task.gang]
    if not members:
        return
    if spec.spread.strategy in SPLITTING:
        yield Mistake("spec.spread.strategy", "a gang runs in one region: only preferred is possible")
    first_path, first = members[0]
    for path, task in members:
        if task.parallelism and task.parallelism < task.replicas:
            yield Mistake(f"{path}.parallelism", "the replicas of a gang run all at once: leave it out")
        if sorted(task.depends_on) != sorted(first.depends_on):
            yield Mistake(f"{path}.dependsOn", f"differs from that of {first_path}: tasks of one gang start together")
    asked = _asked([task for _, task in members])
    if asked.fits(_asked(accepted)):
        return
    known = [summaries[region] for region in regions if region in summaries]
    rooms = [vector(summary.capacity) for summary in known]
    if rooms and all(rooms) and len(rooms) == len(regions) and not any(asked.fits(room) for room in rooms):
        most = rooms[0]
        for room in rooms[1:]:
            most = most.at_least(room)
        yield Mistake(f"{first_path}.gang", f"it asks for {asked} at once; the most that a region has in all is {most}")


def _asked(tasks: Sequence[objects_pb2.Task]) -> Vector:
    return total([vector(task.resources.requests) * max(0, task.replicas) for task in tasks if task.gang])
