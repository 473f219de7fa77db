"""Each strategy takes the node that its name says."""

import numpy as np
import pytest

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.model import strategies
from atoll.model.costs import COST_LABEL
from atoll.model.resources import Vector
from regional.core import events, node_changes, scores
from regional.core.filters import Request
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


def say_images(world: RegionalWorld, session: int, *names: str) -> None:
    report = agent_pb2.StatusReport(images=agent_pb2.Images(names=names))
    world.tell(events.NodeStatus(session, report))


def test_of_nodes_about_as_full_the_one_that_has_the_image_is_taken(world: RegionalWorld) -> None:
    for name in ("n1", "n2"):
        session = world.join(name)
    say_images(world, session, "acme/web:2")
    world.share("web", task(cpu=100, image="docker.io/acme/web:2"))
    assert placed(world, "web") == ["n2"]
    say_images(world, session)
    world.share("api", task(cpu=100, image="acme/web:2", strategy=strategies.WARM_IMAGE))
    assert placed(world, "api") == ["n2"], "the fuller one: no node has the image any more"


def test_an_image_is_worth_a_sixteenth_of_a_node_unless_it_is_asked_for(world: RegionalWorld) -> None:
    world.join("fuller")
    world.share("sums", task(cpu=400, memory=400))
    say_images(world, world.join("warm"), "acme/web:2")
    web = {"cpu": 100, "memory": 1, "image": "acme/web:2"}
    world.share("web", task(**web))
    world.share("api", task(**web, strategy=strategies.WARM_IMAGE))
    assert (placed(world, "web"), placed(world, "api")) == (["fuller"], ["warm"])


def test_the_cheapest_node_is_where_the_replicas_part_costs_least(world: RegionalWorld) -> None:
    """Half of a node for 0.50 costs less than a whole one for 0.30; what nobody prices comes last."""
    for name, size, price in (("unpriced", LARGE, ""), ("whole", MEDIUM, "0.30"), ("half", LARGE, "0.50")):
        world.join(name, capacity=size, labels={COST_LABEL: price} if price else {})
    world.share("web", task(replicas=4, cpu=4_000, memory=4_096, strategy=strategies.COST))
    assert placed(world, "web") == ["half", "half", "whole", "unpriced"]


def test_of_nodes_that_cost_the_same_the_fuller_one_is_taken(world: RegionalWorld) -> None:
    world.join("empty", labels={COST_LABEL: "0.3"})
    world.join("busy", labels={COST_LABEL: "0.3", "pool": "busy"})
    world.share("sums", task(cpu=400, node_selector=[objects_pb2.Label(key="pool", value="busy")]))
    world.share("web", task(strategy=strategies.COST))
    assert placed(world, "web") == ["busy"]


def test_a_node_whose_cost_is_no_number_is_told_so(world: RegionalWorld) -> None:
    world.join("n1", labels={COST_LABEL: "cheap"})
    assert "NodeRefused" in world.kinds("node/n1")
    mistakes = node_changes.mistakes(
        regional_pb2.UpdateNodeRequest(name="n1", set_labels=[objects_pb2.Label(key=COST_LABEL, value="-1")])
    )
    assert "set_labels[0]" in [mistake.path for mistake in mistakes]


def test_a_node_that_takes_a_row_over_has_no_images_of_the_one_before(world: RegionalWorld) -> None:
    world.join("n1")
    session = world.join("n2")
    say_images(world, session, "acme/web:2")
    world.tell(events.NodeSessionEnded(session))
    world.remove_node("n2")
    world.join("n3")
    world.share("web", task(image="acme/web:2", strategy=strategies.WARM_IMAGE))
    assert placed(world, "web") == ["n1"]


def test_a_balanced_node_is_where_the_other_dimension_is_in_use(world: RegionalWorld) -> None:
    world.join("idle")
    world.join("busy", labels={"pool": "busy"})
    pinned = [objects_pb2.Label(key="pool", value="busy")]
    world.share("sums", task(cpu=2_000, memory=1, node_selector=pinned))
    world.share("cache", task(cpu=1, memory=4_096, strategy=strategies.BALANCED))
    assert placed(world, "cache") == ["busy"]
    world.share("more", task(cpu=2_000, memory=1, strategy=strategies.BALANCED))
    assert placed(world, "more") == ["idle"]


@pytest.mark.parametrize(
    ("weights", "nodes"),
    [
        ({"emptiness": 1.0}, ["large", "large", "medium"]),
        ({"fullness": 1.0, "warm": 0.0625}, ["small", "small", "medium"]),
        ({"fullness": 1.0, "apart": 8.0}, ["small", "medium", "large"]),
        ({"warm": 1.0}, ["large", "large", "large"]),  # no image: all are alike
        ({"known to newer versions only": 1.0}, ["large", "large", "large"]),
    ],
)
@pytest.mark.parametrize("named", [strategies.BIN_PACK, "mine", ""])
def test_the_policy_of_a_share_says_what_its_strategy_weighs(
    world: RegionalWorld, named: str, weights: dict[str, float], nodes: list[str]
) -> None:
    for name, capacity in (("large", LARGE), ("medium", MEDIUM), ("small", SMALL)):
        world.join(name, capacity=capacity)
    share = world.share("web", task(replicas=3, cpu=1_000, memory=1_024, strategy=named), tell=False)
    share.policy_revision, share.default_strategy = 7, "" if named else "mine"
    parts = [objects_pb2.ScoreWeight(score=score, weight=weight) for score, weight in sorted(weights.items())]
    share.strategies.add(name=named or "mine", weights=parts)
    world.tell_share(share)
    assert placed(world, "web") == nodes
    assert {decision.policy_revision for decision in world.decisions()} == {7}


def test_the_weights_of_a_built_in_strategy_decide_as_it_does(world: RegionalWorld) -> None:
    table = world.state.table
    for name, capacity in (("large", LARGE), ("medium", MEDIUM), ("small", SMALL)):
        world.join(name, capacity=capacity)
    rows, copies = np.arange(3), np.array([0, 1, 2], np.int32)
    for name, weights in strategies.WEIGHTS.items():
        builtin = Request(Vector(1_000, 1_024), strategy=name)
        policy = Request(Vector(1_000, 1_024), strategy="mine", weights=weights)
        used = table.used[rows] + np.array(builtin.vector.amounts())
        one, other = (scores.total(table, request, rows, used, copies) for request in (builtin, policy))
        assert one.tobytes() == other.tobytes()
        assert scores.counts_copies(builtin) == scores.counts_copies(policy)
        assert scores.cost(builtin) == scores.cost(policy)
