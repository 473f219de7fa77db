"""Whatever is planned and however late it is heard: no more of a task are bound than its parallelism, over all regions.

The production steps of both sides, with a network that delays: regions bind within the part of the share they have
admitted, go on with what is bound, and speak of the share they have. Shares and words arrive late, or never.
"""

from dataclasses import dataclass, field
from random import Random

import hypothesis.strategies as st
from hypothesis import given

from atoll.api.v1 import objects_pb2
from global_cp.core.parallelism import Part, standing, step, stored

REGIONS = "abc"


@dataclass
class Region:
    stored: objects_pb2.Share = field(default_factory=objects_pb2.Share)  # at the global plane
    admitted: objects_pb2.Share = field(default_factory=objects_pb2.Share)
    said: dict[int, int] = field(default_factory=dict)  # by revision of the share: the last surplus that was heard
    bound: list[int] = field(default_factory=list)  # the generation by which each was bound

    @property
    def part(self) -> int:
        return next((part.replicas for part in self.admitted.parallel), 0)

    def surplus(self) -> int:
        return max(0, len(self.bound) - self.part)


@given(st.integers(0, 1 << 32))
def test_over_all_regions_no_more_are_bound_than_the_parallelism(seed: int) -> None:
    random = Random(seed)
    parallelisms = [random.randint(1, 3) for _ in range(4)]  # by generation
    regions = {name: Region() for name in REGIONS}
    generation = 0
    for revision in range(1, 200):
        region = random.choice(list(regions.values()))
        match random.choice(["plan", "admit", "admit", "bind", "bind", "end", "say", "say"]):
            case "plan":
                generation = min(generation + (random.random() < 0.1), len(parallelisms) - 1)
                _plan(regions, parallelisms[generation], random, revision, generation)
            case "admit":
                region.admitted = region.stored
            case "bind" if len(region.bound) < region.part:
                region.bound.append(region.admitted.metadata.generation)
            case "end":
                del region.bound[:1]
            case "say":
                region.said = {region.admitted.global_revision: region.surplus()}
        bound = [each for one in regions.values() for each in one.bound]
        assert not bound or len(bound) <= max(parallelisms[min(bound) : generation + 1])


def _plan(regions: dict[str, Region], parallelism: int, random: Random, revision: int, generation: int) -> None:
    """The parts are wanted anew, over two of the regions. What changes is told, in another generation all."""
    first, second = random.sample(REGIONS, 2)
    wanted = {first: random.randint(0, parallelism)}
    wanted[second] = parallelism - wanted[first]
    now = {n: standing(r.stored, "main", r.said.get(r.stored.global_revision)) for n, r in regions.items()}
    for name, part in {**dict.fromkeys(REGIONS, Part()), **step(parallelism, wanted, now)}.items():
        share = objects_pb2.Share(parallel=stored({"main": part}), global_revision=revision)
        share.metadata.generation = generation
        before = regions[name].stored
        if list(before.parallel) != list(share.parallel) or before.metadata.generation != generation:
            regions[name].stored = share
