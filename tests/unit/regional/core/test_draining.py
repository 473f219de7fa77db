"""Moving work off a node: within the budget, never into the void, and in the end whatever it costs."""

from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.core import events
from regional.core.draining import MADE
from regional.core.node_changes import CORDON, DRAIN
from tests.support.obedient import Agents
from tests.support.regional_world import RegionalWorld, task

NO_EXECUTE = objects_pb2.TAINT_EFFECT_NO_EXECUTE
JOB, EXCLUSIVE = objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.RUN_CLASS_EXCLUSIVE


def drain(world: RegionalWorld, name: str, **fields: Any) -> None:
    assert world.change_node(name, duty=DRAIN, reason="kernel", **fields).answer


def progress(world: RegionalWorld, name: str) -> str:
    reply = world.change_node(name, set_labels=[objects_pb2.Label(key="seen", value="yes")])
    answer: Any = reply.answer
    return str(answer.node.drain.progress)


def test_a_drain_moves_one_replica_after_the_other(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("web", task(replicas=3, cpu=100))
    agents.run()
    for name in ("n2", "n3"):
        agents.sessions[name] = world.join(name)
    drain(world, "n1")
    moved = 0
    while agents.on("n1"):
        agents.pass_time(5_000)
        assert len(world.slots()) == 4, "its successor is there, and not ready yet"
        assert len(agents.asked("n1")) == moved
        agents.run()
        agents.pass_time(1_000)
        assert len(agents.asked("n1")) == moved + 1
        moved += agents.obey("n1")
    assert moved == len(world.slots()) == 3
    agents.pass_time(1_000)
    assert world.kinds("node/n1")[-2:] == ["NodeDraining", "NodeDrained"]
    assert world.kinds("workload/acme/web").count("Moved") == 3
    assert progress(world, "n1") == "drained"


def test_the_budget_is_a_tenth_of_the_task(world: RegionalWorld) -> None:
    agents = Agents(world, "n1", capacity=Vector(40_000, 80_000))
    world.share("web", task(replicas=30, cpu=100, memory=10))
    agents.run()
    agents.sessions["n2"] = world.join("n2", capacity=Vector(40_000, 80_000))
    drain(world, "n1")
    agents.pass_time(5_000)
    assert len(agents.on("n2")) == 3
    assert progress(world, "n1") == "27 held back: enough of its task are on their way; 3 " + MADE
    agents.run()
    agents.pass_time(1_000)
    assert len(agents.asked("n1")) == 3
    agents.pass_time(5_000)
    assert len(agents.asked("n1")) == 3 and len(agents.on("n2")) == 6


def test_nothing_is_stopped_that_no_other_node_could_run(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("web", task(cpu=3_000))
    world.share("api", task(cpu=1_000))
    agents.run()
    agents.sessions["n2"] = world.join("n2", capacity=Vector(3_500, 8_192))
    drain(world, "n1")
    agents.pass_time(5_000)
    assert len(agents.on("n2")) == 1, "n2 has room for one of the two, and is promised to one only"
    assert "no other node has room" in progress(world, "n1")
    agents.sessions["n3"] = world.join("n3")
    agents.settle("n1")
    assert not agents.on("n1")


def test_after_the_deadline_everything_goes(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("web", task(replicas=3, cpu=1_000))
    world.share("job", task(cpu=500), type=JOB)
    agents.run()
    drain(world, "n1", deadline_s=60)
    agents.pass_time(59_000)
    assert not agents.asked("n1")
    assert progress(world, "n1") == "3 held back: no other node has room; 1 of a job: until its end"
    agents.pass_time(2_000)
    assert len(agents.asked("n1")) == 4
    agents.obey("n1")
    assert len(world.slots(objects_pb2.SLOT_STATE_WAITING)) == 4


def test_a_jobs_replica_runs_to_its_end(world: RegionalWorld) -> None:
    agents = Agents(world, "n1", "n2")
    world.share("job", task(cpu=500), type=JOB)
    agents.run()
    (slot,) = world.slots()
    drain(world, slot.node)
    agents.pass_time(30_000)
    assert not agents.asked(slot.node)
    world.close(agents.sessions[slot.node], slot, reason="Completed")
    agents.pass_time(1_000)
    assert world.kinds(f"node/{slot.node}")[-1] == "NodeDrained"
    assert not world.slots()


def test_exclusive_work_moves_with_its_certificate_only(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("db", task(), run_class=EXCLUSIVE)
    agents.run()
    agents.sessions["n2"] = world.join("n2")
    drain(world, "n1", deadline_s=1)
    agents.pass_time(60_000)
    assert [slot.node for slot in world.slots()] == ["n1"]
    agents.obey("n1")
    assert [slot.node for slot in world.slots()] == ["n2"]


def test_an_end_of_the_drain_stops_it_where_it_is(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("web", task(replicas=3, cpu=100))
    agents.run()
    agents.sessions["n2"] = world.join("n2")
    drain(world, "n1")
    agents.pass_time(1_000)
    agents.obey("n1")
    agents.run()
    world.change_node("n1", duty=CORDON)
    asked = len(agents.asked("n1"))
    agents.pass_time(10_000)
    assert len(agents.asked("n1")) == asked
    assert not world.node("n1").HasField("drain")


def test_a_new_leader_goes_on_with_a_drain_when_it_has_heard_of_the_replicas(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("web", task(replicas=3, cpu=100))
    agents.run()
    drain(world, "n1", deadline_s=600)
    world.take_over()
    for name in ("n1", "n2"):
        agents.sessions[name] = world.join(name)
    agents.pass_time(5_000)
    assert not agents.asked("n1"), "nobody knows yet what serves"
    agents.run()
    agents.pass_time(1_000)
    assert len(agents.on("n2")) == 1
    assert world.node("n1").drain.reason == "kernel"


def test_no_execute_taints_evict_what_does_not_tolerate_them(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    tolerant = task(cpu=100, tolerations=[objects_pb2.Toleration(key="broken")])
    world.share("web", task(cpu=100))
    world.share("monitor", tolerant)
    agents.run()
    agents.sessions["n2"] = world.join("n2")
    world.change_node("n1", set_taints=[objects_pb2.Taint(key="broken", value="disk", effect=NO_EXECUTE)])
    agents.settle("n1")
    assert {(slot.id.workload, slot.node) for slot in world.slots()} == {("web", "n2"), ("monitor", "n1")}


def test_a_node_that_cannot_be_told_is_drained_when_it_is_back(world: RegionalWorld) -> None:
    agents = Agents(world, "n1")
    world.share("web", task(cpu=100))
    agents.run()
    agents.sessions["n2"] = world.join("n2")
    world.tell(events.NodeSessionEnded(agents.sessions["n1"]))
    drain(world, "n1")
    world.advance(2_000, beating=[agents.sessions["n2"]])
    agents.sessions["n1"] = world.join("n1")
    agents.settle("n1")
    assert [slot.node for slot in world.slots()] == ["n2"]
