"""Workloads near to and apart from each other: kept at every placement, told in reasons, cured by what cures them."""

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.manifest.selectors import parse_requirement
from atoll.model import explain
from atoll.model.resources import Vector
from regional.core import views
from tests.support.regional_world import RegionalWorld, task

LARGE = Vector(16_000, 16_384)


def by(workload: str = "", labels: str = "", within: str = "node", weight: int = 0) -> objects_pb2.Colocation:
    demands = [parse_requirement(labels)] if labels else []
    return objects_pb2.Colocation(workload=workload, labels=demands, within=within, weight=weight)


def join(world: RegionalWorld, **zone_of: str) -> dict[str, int]:
    return {name: world.join(name, capacity=LARGE, labels={"zone": zone}) for name, zone in zone_of.items()}


def places(world: RegionalWorld, workload: str) -> list[str]:
    return sorted(slot.node for slot in world.slots() if slot.id.workload == workload)


def reasons(world: RegionalWorld) -> dict[str, str]:
    (cls,) = world.state.queue.parked.values()
    return {reason.code: reason.message for reason in cls.reasons}


def test_replicas_that_avoid_their_own_kind_are_one_a_node_and_the_rest_wait(world: RegionalWorld) -> None:
    sessions = join(world, n1="a", n2="a")
    world.share("db", task(replicas=3, avoid_colocating=[by("db")]))
    assert places(world, "db") == ["n1", "n2"]
    assert reasons(world) == {
        explain.KEPT_APART: "where `avoidColocating` keeps replicas apart: n1 has 1 of db",
    }
    join(world, n3="b")
    assert places(world, "db") == ["n1", "n2", "n3"]
    world.check()
    assert len(sessions) == 2


def test_it_holds_both_ways(world: RegionalWorld) -> None:
    """What runs keeps away whom it avoids, though that says nothing itself."""
    join(world, n1="a", n2="b")
    world.share("quiet", task(avoid_colocating=[by(labels="noisy", within="zone")]))
    world.share("loud", task(replicas=2), labels={"noisy": "very"})
    assert places(world, "quiet") == ["n1"]
    assert places(world, "loud") == ["n2", "n2"]
    asked = regional_pb2.WhyRequest(tenant="acme", workload="loud", index=0, node="n1")
    (why,) = views.why(world.state, asked, world.now_ms).slots
    assert why.on_node[0].code == explain.KEPT_APART
    assert why.on_node[0].message.endswith(": zone=a has 1 of what avoids noisy")
    world.grant("globex", LARGE, seq=1)
    zone_a = objects_pb2.Label(key="zone", value="a")
    world.share("other", task(node_selector=[zone_a]), tenant="globex", labels={"noisy": "very"})
    assert places(world, "other") == ["n1"], "another tenant is not asked about"


def test_one_that_asks_alike_but_keeps_apart_is_placed_by_its_own_rules(world: RegionalWorld) -> None:
    """Also in one transaction with those that it is like otherwise."""
    world.hold = True
    world.share("db", task())
    world.share("web", task(avoid_colocating=[by("db")]))
    world.share("cache", task())
    world.release_held()
    join(world, n1="a", n2="b")
    assert places(world, "db") == places(world, "cache") == ["n1"]
    assert places(world, "web") == ["n2"]


def test_a_replica_follows_the_one_it_asks_for_and_waits_until_that_comes(world: RegionalWorld) -> None:
    join(world, n1="a", n2="b", n3="b")
    world.share("web", task(replicas=2, colocate_with=[by("cache", within="zone")]))
    assert reasons(world) == {explain.NOT_COLOCATED: "away from what `colocateWith` asks for: zone=a has none of cache"}
    world.share("cache", task(node_selector=[objects_pb2.Label(key="zone", value="b")]))
    assert places(world, "web") == ["n2", "n2"]
    assert not world.state.queue.parked


def test_the_first_of_a_group_that_wants_to_be_together_may_go_anywhere(world: RegionalWorld) -> None:
    join(world, n1="a", n2="b")
    world.share("ring", task(replicas=4, cpu=4_000, strategy="spread", colocate_with=[by("ring", within="zone")]))
    assert len(places(world, "ring")) == 4
    assert len(set(places(world, "ring"))) == 1


def test_the_other_leaves_and_the_parked_one_comes(world: RegionalWorld) -> None:
    sessions = join(world, n1="a")
    world.share("db", task())
    world.share("web", task(avoid_colocating=[by("db")]))
    assert explain.KEPT_APART in reasons(world)
    world.share("db", removed=True, generation=2)
    (slot,) = world.slots()
    world.close(sessions["n1"], slot)
    assert places(world, "web") == ["n1"]
    world.check()


def test_a_spec_that_avoids_nothing_any_more_lets_the_others_in(world: RegionalWorld) -> None:
    join(world, n1="a")
    world.share("db", task(avoid_colocating=[by("web")]))
    world.share("web", task())
    assert explain.KEPT_APART in reasons(world)
    world.share("db", task(avoid_colocating=[by("db")]), generation=2)
    assert places(world, "web") == ["n1"]
    world.check()


def test_labels_that_change_count_at_once(world: RegionalWorld) -> None:
    join(world, n1="a")
    world.share("one", task(), labels={"tier": "x"})
    world.share("two", task(avoid_colocating=[by(labels="tier=x")]))
    assert explain.KEPT_APART in reasons(world)
    world.share("one", task(), labels={"tier": "y"}, generation=2)
    assert places(world, "two") == ["n1"]
    world.check()


def test_each_ring_around_a_workload_is_shown(world: RegionalWorld) -> None:
    join(world, n1="a", n2="a", n3="b")
    world.share("cache", task(cpu=14_000))
    rings = [by("cache", weight=50), by("cache", weight=50, within="zone")]
    world.share("web", task(cpu=4_000, colocate_with=rings))
    scores = world.decisions()[1].scores
    shown = {score.node: {t.name: t.value for t in score.terms if t.name.startswith("near")} for score in scores}
    assert shown == {
        "n2": {"near:cache": 0, "near:cache/zone": 1},
        "n3": {"near:cache": 0, "near:cache/zone": 0},
    }


def test_preferences_yield_to_room_and_are_shown(world: RegionalWorld) -> None:
    join(world, n1="a", n2="b")
    world.share("cache", task(cpu=12_000))
    world.share("web", task(replicas=5, colocate_with=[by("cache", weight=100)]))
    assert places(world, "web") == ["n1", "n1", "n1", "n1", "n2"]
    world.share("far", task(avoid_colocating=[by("cache", weight=100)]))
    assert places(world, "far") == ["n2"]
    assert "near:cache" in [term.name for term in world.decisions()[1].scores[0].terms]
    assert "apart:cache" in [term.name for term in world.decisions()[2].scores[0].terms]


def test_the_next_leader_counts_what_runs(world: RegionalWorld) -> None:
    join(world, n1="a", n2="b")
    world.share("db", task(avoid_colocating=[by("db"), by("web")]))
    assert places(world, "db") == ["n1"]
    world.take_over()
    world.uplink()
    join(world, n1="a", n2="b")
    world.share("web", task(replicas=2))
    assert places(world, "web") == ["n2", "n2"]
    world.check()


def test_a_refused_binding_counts_nowhere(world: RegionalWorld) -> None:
    join(world, n1="a")
    world.hold = True
    world.share("db", task())
    world.release_held()
    world.hold = True
    world.share("web", task(avoid_colocating=[by("db")]))
    world.release_held()
    world.check()
    assert places(world, "db") == ["n1"] and not places(world, "web")


def test_rings_of_nearness_add_up(world: RegionalWorld) -> None:
    """The node, then its rack, then its zone, then what is left, whichever node comes first."""
    for name, rack, zone in (("far", "r9", "b"), ("zone", "r2", "a"), ("rack", "r1", "a"), ("there", "r1", "a")):
        world.join(name, labels={"rack": rack, "zone": zone, "name": name})
    world.share("cache", task(cpu=1_000, node_selector=[objects_pb2.Label(key="name", value="there")]))
    rings = [by("cache", within=within, weight=50) for within in ("node", "rack", "zone")]
    world.share("web", task(replicas=4, cpu=3_000, colocate_with=rings))
    entries = world.state.workloads["acme", "web"].tasks["main"].entries
    assert [entries[index].record.node for index in range(4)] == ["there", "rack", "zone", "far"]
