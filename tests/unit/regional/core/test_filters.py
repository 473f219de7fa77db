"""A refusal names the demand that was not met."""

import pytest

from atoll.api.v1 import objects_pb2
from atoll.manifest.selectors import parse_requirement
from atoll.model import explain
from tests.support.regional_world import RegionalWorld, task


def why(world: RegionalWorld) -> dict[str, str]:
    (cls,) = world.state.queue.parked.values()
    return {reason.code: reason.message for reason in cls.reasons}


def test_a_selector_names_the_label_that_is_missing(world: RegionalWorld) -> None:
    world.join("n1", labels={"disk": "ssd"})
    world.share(
        "web", task(node_selector=[objects_pb2.Label(key=k, value=v) for k, v in (("disk", "ssd"), ("gpu", "a"))])
    )
    assert why(world) == {explain.NODE_SELECTOR: "without the labels of nodeSelector: gpu=a"}


@pytest.mark.parametrize(
    "text", ["zone=b", "zone!=a", "zone in (b,c)", "zone notin (a,c)", "gpu", "!zone", "cores>8", "cores<8"]
)
def test_a_requirement_is_named_as_people_write_it(world: RegionalWorld, text: str) -> None:
    world.join("n1", labels={"zone": "a", "cores": "8"})
    world.share("web", task(requires=[parse_requirement(text), parse_requirement("cores=8")]))
    assert why(world) == {explain.NODE_REQUIREMENT: f"not satisfying `requires`: {text}"}


def test_several_culprits_are_counted_the_most_frequent_first(world: RegionalWorld) -> None:
    world.join("n1", labels={"zone": "b"})
    world.join("n2", labels={"zone": "a"})
    world.join("n3")
    requires = [parse_requirement("zone=a"), parse_requirement("gpu")]
    world.share("web", task(requires=requires))
    assert why(world) == {explain.NODE_REQUIREMENT: "not satisfying `requires`: gpu (3 nodes), zone=a (2 nodes)"}


def test_a_taint_is_named(world: RegionalWorld) -> None:
    world.join("n1")
    taints = [
        objects_pb2.Taint(key="gpu", value="a100", effect=objects_pb2.TAINT_EFFECT_NO_SCHEDULE),
        objects_pb2.Taint(key="quiet", effect=objects_pb2.TAINT_EFFECT_NO_SCHEDULE),
    ]
    world.change_node("n1", set_taints=taints)
    world.share("web", task(tolerations=[objects_pb2.Toleration(key="quiet")]))
    assert why(world) == {explain.TAINT: "with a taint that is not tolerated: gpu=a100"}
