"""New work leaves a part of the region free, what is lost or fails may use it; and pools that promise more."""

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model import explain
from atoll.model.resources import Vector
from regional.core import reports, views
from tests.support.regional_world import RegionalWorld, task

TEN = Vector(10_000, 10_240)


def kept(**settings: object) -> RegionalWorld:
    world = RegionalWorld(**settings)
    world.win()
    world.uplink()
    world.grant("acme", Vector(1_000_000, 1_000_000, 0, 100_000), seq=1)
    return world


def codes(world: RegionalWorld) -> set[str]:
    return {reason.code for cls in world.state.queue.parked.values() for reason in cls.reasons}


def test_new_work_stops_where_the_headroom_begins_and_says_what_is_missing() -> None:
    world = kept(headroom_percent=20)
    world.join("n1", capacity=TEN)
    world.join("n2", capacity=TEN)
    world.share("web", task(replicas=20))
    assert len(world.slots()) == 16
    asked = regional_pb2.WhyRequest(tenant="acme", workload="web", index=19)
    (why,) = views.why(world.state, asked, world.now_ms).slots
    assert [(r.code, r.message.partition(": ")[2]) for r in why.reasons] == [
        (explain.HEADROOM, "cpu 1 missing, 20 % are kept free")
    ]
    assert reports.summary(world.state).free.cpu_milli == 0
    world.join("n3", capacity=TEN)
    assert len(world.slots()) == 20
    world.check()


def test_what_is_lost_comes_back_into_the_headroom_and_new_work_waits_on() -> None:
    world = kept(headroom_percent=20)
    sessions = {name: world.join(name, capacity=TEN) for name in ("n1", "n2", "n3", "n4", "n5")}
    world.share("web", task(replicas=50))
    assert len(world.slots()) == 40
    moved = [slot for slot in world.slots() if slot.node == "n1"][:3]
    world.close(sessions["n1"], *moved, reason="Failed", code=1)
    world.advance(5_000, beating=sessions.values())
    assert {slot.id.index for slot in moved} <= {slot.id.index for slot in world.slots()}
    assert len(world.slots()) == 43, "new work took what was free below the headroom, and no more"
    assert codes(world) == {explain.HEADROOM}
    world.check()


def test_work_that_ends_lets_new_work_in() -> None:
    world = kept(headroom_percent=50)
    session = world.join("n1", capacity=TEN)
    world.share("old", task(replicas=5))
    world.share("new", task(replicas=1))
    assert codes(world) == {explain.HEADROOM}
    world.share("old", removed=True, generation=2)
    world.close(session, *world.slots())
    assert [slot.id.workload for slot in world.slots()] == ["new"]
    world.check()


def test_a_full_region_is_told_as_full() -> None:
    world = kept(headroom_percent=15)
    world.join("n1", capacity=TEN)
    world.share("web", task(cpu=11_000))
    assert codes(world) == {explain.INSUFFICIENT["cpu_milli"]}


def test_headroom_keeps_whole_gpus_and_of_few_none() -> None:
    world = kept(headroom_percent=15)
    for number in range(7):
        world.join(f"n{number}", capacity=TEN, gpus=("T4",))
    assert reports.summary(world.state).free.gpu_milli == 6_000
    few = kept(headroom_percent=15)
    few.join("n1", capacity=TEN, gpus=("T4",))
    assert reports.summary(few.state).free.gpu_milli == 1_000


def test_an_over_committed_pool_promises_more_than_it_has_and_never_more_to_one() -> None:
    world = kept(headroom_percent=0, overcommit_cpu_percent={"pool": 150}, overcommit_memory_percent={"other": 300})
    world.join("n1", capacity=TEN)
    world.share("web", task(replicas=20, cpu=1_000, memory=64))
    assert len(world.slots()) == 15
    summary = reports.summary(world.state)
    assert (summary.capacity.cpu_milli, summary.largest_node.cpu_milli) == (15_000, 10_000)
    world.join("n2", capacity=TEN)
    world.share("large", task(cpu=12_000, memory=64))
    assert explain.INSUFFICIENT["cpu_milli"] in codes(world)
    assert {slot.id.workload for slot in world.slots()} == {"web"}
    world.check()


def test_every_node_has_the_label_of_its_pool() -> None:
    world = kept(headroom_percent=0)
    world.join("n1", capacity=TEN)
    world.share("web", task(node_selector=[objects_pb2.Label(key="pool", value="pool")]))
    assert len(world.slots()) == 1


def test_urgent_work_may_use_it() -> None:
    world = kept(headroom_percent=20)
    world.join("n1", capacity=TEN)
    world.share("web", task(replicas=10))
    world.share("alarm", task(), priority=objects_pb2.PRIORITY_HIGH)
    assert sum(slot.id.workload == "alarm" for slot in world.slots()) == 1
    assert len(world.slots()) == 9
