"""Each strategy takes the node that its name says."""

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model import strategies
from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld, task

LARGE, MEDIUM, SMALL = Vector(8_000, 8_192), Vector(4_000, 4_096), Vector(2_000, 8_192)


def placed(world: RegionalWorld, name: str) -> list[str]:
    """The nodes of a workload's replicas, by index."""
    entries = world.state.workloads["acme", name].tasks["main"].entries
    return [entries[index].record.node for index in sorted(entries)]


@pytest.mark.parametrize(
    ("strategy", "nodes"),
    [
        (strategies.BIN_PACK, ["small", "small", "medium"]),
        (strategies.BEST_FIT, ["small", "small", "medium"]),
        (strategies.LEAST_LOADED, ["large", "large", "medium"]),
        (strategies.WORST_FIT, ["large", "large", "large"]),
        (strategies.SPREAD, ["large", "medium", "small"]),
        (strategies.ROUND_ROBIN, ["large", "medium", "small"]),
        (strategies.FIRST_FIT, ["large", "large", "large"]),
        (strategies.BALANCED, ["large", "large", "large"]),
    ],
)
def test_a_strategy_takes_the_node_it_is_named_for(world: RegionalWorld, strategy: str, nodes: list[str]) -> None:
    world.join("large", capacity=LARGE)
    world.join("medium", capacity=MEDIUM)
    world.join("small", capacity=SMALL)
    world.share("web", task(replicas=3, cpu=1_000, memory=1_024, strategy=strategy))
    assert placed(world, "web") == nodes


def test_a_balanced_node_is_where_the_other_dimension_is_in_use(world: RegionalWorld) -> None:
    world.join("idle")
    world.join("busy", labels={"pool": "busy"})
    pinned = [objects_pb2.Label(key="pool", value="busy")]
    world.share("sums", task(cpu=2_000, memory=1, node_selector=pinned))
    world.share("cache", task(cpu=1, memory=4_096, strategy=strategies.BALANCED))
    assert placed(world, "cache") == ["busy"]
    world.share("more", task(cpu=2_000, memory=1, strategy=strategies.BALANCED))
    assert placed(world, "more") == ["idle"]
