"""How a task's parallelism is parted over regions: no more than that are bound over all of them, at every instant.

Each region has a part, and binds nothing beyond it. What it bound by an earlier share runs on, so it counts with the
most it may have bound, `held`, until it has said of its present share that nothing runs beyond its part. A part falls
at once; it rises only into what all others leave of the parallelism. Both are in the shares, so every leader goes on
from there. A parallelism that is lowered holds as soon as what runs has ended. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from atoll.api.v1 import objects_pb2


class Part(NamedTuple):
    """Of one region. `held`: the most it may have bound, never less than `replicas`."""

    replicas: int = 0
    held: int = 0


def parts(parallelism: int, told: Mapping[str, int], over: Iterable[str]) -> dict[str, int]:
    """Each region's part of a parallelism, by how many of the replicas it was told to run. Regions where all of them
    have ended need no part any more."""
    alive = {region: count for region, count in told.items() if count and region not in over}
    found = dict.fromkeys(told, 0)
    left, weight = parallelism, sum(alive.values())
    for region, count in alive.items():  # in order of preference; the last takes what rounding leaves
        part = min(count, max(1, left * count // weight), left)
        found[region] = part
        left, weight = left - part, weight - count
    for region, count in alive.items():
        more = min(left, count - found[region])
        found[region] += more
        left -= more
    return found


def step(parallelism: int, wanted: Mapping[str, int], now: Mapping[str, Part]) -> dict[str, Part]:
    """What the regions are told next on the way to the `wanted` parts; also those that only hold something still."""
    held = sum(part.held for part in now.values())
    found = {region: Part(0, part.held) for region, part in now.items() if part.held}
    for region, part in wanted.items():
        before = now.get(region, Part())
        left = parallelism - held + before.held
        replicas = min(part, max(before.replicas, left))
        found[region] = Part(replicas, max(before.held, replicas))
        held += found[region].held - before.held
    return found


def standing(share: objects_pb2.Share, task: str, surplus: int | None) -> Part:
    """A region's part by its share. `surplus`: how many it says are bound beyond it; None: it has not said."""
    for part in share.parallel:
        if part.task == task:
            return Part(part.replicas, part.replicas if surplus == 0 else max(part.replicas, part.held))
    for spec in share.spec.tasks:
        if spec.name == task:  # it had no parallelism
            most = spec.replicas + min(spec.replicas, spec.speculation.most)
            return Part(most, most)
    return Part()


def stored(parts: Mapping[str, Part]) -> list[objects_pb2.TaskPart]:
    """As in a share, by task."""
    return [
        objects_pb2.TaskPart(task=task, replicas=part.replicas, held=part.held if part.held > part.replicas else 0)
        for task, part in sorted(parts.items())
    ]
