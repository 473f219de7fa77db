"""What the global plane is told of a region: numbers that are remembered are as if counted anew."""

import gc

from atoll.model.resources import Vector
from regional.core import events, reports
from regional.core.queue import SchedulingClass
from tests.support.regional_world import RegionalWorld, task

LARGE, SMALL = Vector(10_000, 10_240), Vector(4_000, 4_096)


def told(world: RegionalWorld) -> tuple[int, int, int, int, int, int, int]:
    """Ready nodes, capacity, use, what is free, the largest node (CPU), and replicas that are bound and that wait."""
    summary = reports.summary(world.state)
    amounts = (summary.capacity, summary.used, summary.free, summary.largest_node)
    cpus = [amount.cpu_milli for amount in amounts]
    return (summary.nodes_ready, *cpus, summary.slots_bound, summary.slots_waiting)


def test_a_summary_follows_the_nodes_and_their_use() -> None:
    world = RegionalWorld()
    world.win()
    world.uplink()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    large = world.join("large", capacity=LARGE)
    assert told(world) == (1, 10_000, 0, 10_000, 10_000, 0, 0)
    world.join("small", capacity=SMALL)
    assert told(world) == (2, 14_000, 0, 14_000, 10_000, 0, 0)
    world.share("web", task(replicas=3, cpu=4_000))
    assert told(world) == (2, 14_000, 12_000, 2_000, 10_000, 3, 0)
    world.share("more", task(replicas=2, cpu=4_000))
    assert told(world) == (2, 14_000, 12_000, 2_000, 10_000, 3, 2)
    world.tell(events.NodeSessionEnded(large))
    assert told(world) == (1, 14_000, 12_000, 0, 10_000, 3, 2)
    world.check()


def test_a_summary_is_sent_with_the_revision_up_to_which_it_is_true() -> None:
    world = RegionalWorld()
    world.win()
    world.uplink()
    world.join("n1", capacity=LARGE)
    world.advance(2_000)
    sent = [m.summary for m in world.up if m.HasField("summary")]
    assert sent
    assert (sent[-1].nodes_ready, sent[-1].revision > 0) == (1, True)


def test_a_summary_says_how_many_gpus_of_each_model_one_node_has() -> None:
    world = RegionalWorld()
    world.win()
    world.uplink()

    def models() -> list[tuple[str, int]]:
        return [(held.model, held.most) for held in reports.summary(world.state).gpu_models]

    world.join("n1", capacity=LARGE)
    assert models() == []
    world.join("n2", capacity=LARGE, gpus=("T4", "A100", "T4"))
    world.grant("acme", Vector(1_000_000, 1_000_000, gpu_milli=8_000), seq=1)
    world.share("web", task(gpu=2_000, gpu_models=["T4"]))
    third = world.join("n3", capacity=LARGE, gpus=("T4", "H100"))
    assert models() == [("A100", 1), ("H100", 1), ("T4", 2)], "in use or not"
    world.tell(events.NodeSessionEnded(third))
    assert ("H100", 1) in models(), "it is silent, and may come back"
    world.join("n3", capacity=LARGE, incarnation=2, gpus=("T4", "T4", "T4"))
    assert models() == [("A100", 1), ("T4", 3)]
    world.join("n4", capacity=LARGE, gpus=tuple(f"M{number}" for number in range(64)))
    assert models() == [], "more than are told: then none are"


def _told_of(world: RegionalWorld, name: str) -> list[tuple[str, int, str]]:
    return [(reason.code, reason.nodes, reason.message) for reason in world.reports(name)[-1].pending]


def test_amounts_of_what_waits_are_told_anew_when_they_change() -> None:
    """Nothing is tried again: what became free is too little."""
    world = RegionalWorld(refreshed_reasons=2)
    world.win()
    world.uplink()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    session = world.join("n1", capacity=SMALL)
    world.share("small", task(replicas=3, cpu=1_000))
    for name in ("a", "b", "c", "d"):
        world.share(name, task(cpu=4_000))
    world.advance(3_000, beating=[session])
    lacks = "without enough free CPU; it lacks "
    assert [_told_of(world, name) for name in "abcd"] == [[("InsufficientCpu", 1, lacks + "3")]] * 4
    decided, sent = len(world.decisions()), len(world.up)
    world.advance(5_000, beating=[session])
    assert not any(m.HasField("workload") for m in world.up[sent:]), "nothing changes, nothing is told"
    world.share("small", task(replicas=2, cpu=1_000), generation=2)
    world.close(session, next(slot for slot in world.slots() if slot.id.workload == "small" and slot.id.index == 2))
    assert [_told_of(world, name) for name in "abcd"] == [[("InsufficientCpu", 1, lacks + "3")]] * 4
    world.advance(3_000, beating=[session])
    assert [_told_of(world, name) for name in "abcd"] == [[("InsufficientCpu", 1, lacks + "2")]] * 4
    assert len(world.decisions()) == decided, "and nobody was tried again for it"
    world.check()


def test_who_is_to_be_looked_at_again_goes_with_the_reign() -> None:
    world = RegionalWorld(refreshed_reasons=1)
    world.win()
    world.uplink()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    session = world.join("n1", capacity=SMALL)
    for number in range(4):
        world.share(f"of-this-reign{number}", task(cpu=8_000))
    world.advance(2_000, beating=[session])
    world.tell(events.LeadershipLost("lease"))
    gc.collect()
    known = (thing for thing in gc.get_objects() if isinstance(thing, SchedulingClass))
    assert not [cls for cls in known if cls.workload.startswith("of-this-reign")]


def test_many_workloads_are_reported_in_parts_and_all_of_them() -> None:
    world = RegionalWorld(report_batch=10)
    world.win()
    for index in range(25):
        world.share(f"w{index}", task())
    world.uplink()
    first = [m.workload.workload for m in world.up if m.HasField("workload")]
    assert len(first) == 10
    for _ in range(2):
        world.advance(world.settings.report_more_ms)
    told = [m.workload.workload for m in world.up if m.HasField("workload")]
    assert sorted(set(told)) == sorted(f"w{index}" for index in range(25))
    world.check()
