"""Replicas over zones: the skew holds, what waits is told why, and goes on when its cure comes."""

from collections import Counter

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model import explain
from atoll.model.resources import Vector
from regional.core import views
from tests.support.regional_world import RegionalWorld, task

ONE = Vector(1_000, 1_024)
LARGE = Vector(16_000, 16_384)


def within(key: str, max_skew: int = 1, weight: int = 0) -> objects_pb2.TopologySpread:
    return objects_pb2.TopologySpread(within=key, max_skew=max_skew, weight=weight)


def zones(world: RegionalWorld, label: str = "zone") -> dict[str, int]:
    """Bound replicas by the label of their node."""
    labels = {n: {x.key: x.value for x in world.node(n).metadata.labels} for n in world.state.nodes}
    return dict(Counter(labels[slot.node].get(label, "") for slot in world.slots()))


def reasons(world: RegionalWorld) -> dict[str, str]:
    (cls,) = world.state.queue.parked.values()
    return {reason.code: reason.message for reason in cls.reasons}


def join(world: RegionalWorld, **zone_of: str) -> dict[str, int]:
    return {name: world.join(name, capacity=LARGE, labels={"zone": zone}) for name, zone in zone_of.items()}


def test_replicas_are_even_over_zones_whatever_the_number_of_nodes(world: RegionalWorld) -> None:
    join(world, n1="a", n2="a", n3="a", n4="b", n5="c")
    world.share("web", task(replicas=9, topology_spread=[within("zone")]))
    assert zones(world) == {"a": 3, "b": 3, "c": 3}
    assert {len(d.placed) for d in world.decisions()} == {9}


def test_a_full_zone_holds_the_others_back_and_says_so(world: RegionalWorld) -> None:
    join(world, n1="a")
    world.join("n2", capacity=ONE, labels={"zone": "b"})
    world.share("web", task(replicas=4, topology_spread=[within("zone")]))
    assert zones(world) == {"a": 2, "b": 1}
    assert reasons(world) == {
        explain.INSUFFICIENT["cpu_milli"]: "without enough free CPU; it lacks 1",
        explain.TOPOLOGY_SPREAD: "where one more replica would break `topologySpread`: "
        "zone=a has 2 replicas, the least 1, maxSkew 1",
    }
    asked = regional_pb2.WhyRequest(tenant="acme", workload="web", index=3, node="n1")
    (why,) = views.why(world.state, asked, world.now_ms).slots
    assert why.on_node[0].code == explain.TOPOLOGY_SPREAD
    world.join("n3", capacity=LARGE, labels={"zone": "b"})
    assert zones(world) == {"a": 2, "b": 2}


@pytest.mark.parametrize("rule", [within("zone", max_skew=2), within("zone", weight=100)])
def test_of_a_zone_only_nodes_with_room_are_taken(world: RegionalWorld, rule: objects_pb2.TopologySpread) -> None:
    """Also where they are fewer than the replicas that are placed at once, and these fewer than the zone's nodes."""
    for name, zone in {"n1": "b", "n2": "a", "n3": "a", "n4": "a"}.items():  # filled in this order
        world.join(name, capacity=ONE, labels={"zone": zone})
    world.share("full", task(replicas=3))
    world.share("web", task(replicas=2, topology_spread=[rule], gang=True))
    assert len(world.slots()) == 3, "there is room for one of the two"
    world.join("n5", capacity=ONE, labels={"zone": "a"})
    assert {slot.node for slot in world.slots()} == {"n1", "n2", "n3", "n4", "n5"}


def test_a_zone_that_is_cordoned_holds_nobody_back(world: RegionalWorld) -> None:
    join(world, n1="a")
    world.join("n2", capacity=ONE, labels={"zone": "b"})
    world.share("web", task(replicas=4, topology_spread=[within("zone")]))
    world.change_node("n2", duty=regional_pb2.NODE_DUTY_CORDON)
    assert zones(world) == {"a": 3, "b": 1}


def test_a_replica_that_leaves_a_zone_lets_a_larger_one_in(world: RegionalWorld) -> None:
    sessions = join(world, n1="a", n2="a", n3="b")
    rule = [within("zone")]
    world.share("big", task(cpu=16_000, memory=1, node_selector=[objects_pb2.Label(key="zone", value="b")]))
    world.share("web", task(replicas=2, topology_spread=rule))
    assert reasons(world)[explain.TOPOLOGY_SPREAD].endswith("zone=a has 1 replicas, the least 0, maxSkew 1")
    (slot,) = [slot for slot in world.slots() if slot.id.workload == "web"]
    world.close(sessions[slot.node], slot, reason="Failed", code=1)
    world.advance(5_000, beating=sessions.values())
    assert len([slot for slot in world.slots() if slot.id.workload == "web"]) == 1


def test_a_node_without_the_label_takes_none_under_a_hard_rule(world: RegionalWorld) -> None:
    world.join("n1", capacity=LARGE)
    world.share("web", task(topology_spread=[within("zone")]))
    assert reasons(world)[explain.TOPOLOGY_SPREAD].endswith(": no label zone")
    world.share("soft", task(topology_spread=[within("zone", weight=50)]))
    assert len(world.slots()) == 1


def test_a_preferred_skew_yields_to_room(world: RegionalWorld) -> None:
    join(world, n1="a")
    world.join("n2", capacity=ONE, labels={"zone": "b"})
    world.share("web", task(replicas=5, topology_spread=[within("zone", weight=100)]))
    assert zones(world) == {"a": 4, "b": 1}
    (decision,) = world.decisions()
    assert [term.name for term in decision.scores[0].terms] == ["fullness", "spread:zone"]


def test_the_next_leader_counts_what_runs(world: RegionalWorld) -> None:
    join(world, n1="a", n2="b")
    world.share("web", task(replicas=3, topology_spread=[within("zone")]))
    assert sorted(zones(world).values()) == [1, 2]
    world.take_over()
    world.uplink()
    join(world, n1="a", n2="b")
    world.share("web", task(replicas=4, topology_spread=[within("zone")]), generation=2)
    assert zones(world) == {"a": 2, "b": 2}


def test_a_drain_moves_replicas_within_the_skew(world: RegionalWorld) -> None:
    sessions = join(world, n1="a", n2="a", n3="b")
    world.share("web", task(replicas=3, topology_spread=[within("zone")]))
    assert zones(world) == {"a": 2, "b": 1}
    world.run(sessions["n1"], [slot for slot in world.slots() if slot.node == "n1"])
    world.run(sessions["n3"], [slot for slot in world.slots() if slot.node == "n3"])
    world.change_node("n1", duty=regional_pb2.NODE_DUTY_DRAIN, reason="repair")
    world.advance(1_000, beating=sessions.values())
    for name, session in sessions.items():
        world.run(session, [slot for slot in world.slots() if slot.node == name])
    world.advance(1_000, beating=sessions.values())
    assert world.messages(sessions["n1"], "stop"), "its place in the other node of the zone is seen"
