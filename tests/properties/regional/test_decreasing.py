"""First, best and worst fit decreasing against their definitions: the larger first, each by its rule."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.model import strategies
from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld, task

NODE = 10  # processors


def plain(strategy: str, sizes: list[int], nodes: int) -> dict[int, int]:
    """Size by size: number → node; what fits nowhere is left out."""
    left, found = [NODE] * nodes, {}
    for number in sorted(range(len(sizes)), key=lambda n: (-sizes[n], n)):
        fitting = [node for node in range(nodes) if left[node] >= sizes[number]]
        if not fitting:
            continue
        rule = {strategies.FIRST_FIT_DECREASING: 0, strategies.BEST_FIT_DECREASING: 1}.get(strategy, -1)
        node = min(fitting, key=lambda n: (rule * left[n], n))
        left[node] -= sizes[number]
        found[number] = node
    return found


@pytest.mark.parametrize("strategy", strategies.DECREASING)
@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, NODE), min_size=1, max_size=8), st.integers(1, 4))
def test_the_tasks_of_a_workload_are_placed_as_defined(strategy: str, sizes: list[int], nodes: int) -> None:
    world = RegionalWorld()
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    for number in range(nodes):
        world.join(f"n{number}", capacity=Vector(NODE * 1_000, 1_000))
    tasks = [
        task(name=f"t{number}", cpu=size * 1_000, memory=0, strategy=strategy) for number, size in enumerate(sizes)
    ]
    world.share("batch", *tasks)
    placed = {int(slot.id.task[1:]): int(slot.node[1:]) for slot in world.slots()}
    assert placed == plain(strategy, sizes, nodes)
    world.check()
