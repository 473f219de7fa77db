"""A node whose agent can start nothing new gets no new work until it says otherwise; what runs there stays."""

from atoll.api.v1 import agent_pb2, objects_pb2
from regional.core import events
from tests.support.regional_world import RegionalWorld, task

FULL = "StorageFailed: the disk is full"


def say(world: RegionalWorld, session: int, unfit: str) -> None:
    world.tell(events.NodeStatus(session, agent_pb2.StatusReport(unfit=unfit)))


def shown(world: RegionalWorld, name: str) -> objects_pb2.Node:
    answer = world.change_node(name, set_labels=[objects_pb2.Label(key="seen", value="yes")]).answer
    return answer.node  # type: ignore[union-attr]


def test_it_gets_no_new_work_until_it_is_cured(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("before", task())
    say(world, session, FULL)
    world.share("web", task())
    assert [slot.id.workload for slot in world.slots()] == ["before"]
    (cls,) = world.state.queue.parked.values()
    assert [(r.code, r.message) for r in cls.reasons] == [
        ("NodeUnfit", f"whose agent can start nothing new: {FULL}"),
    ]
    assert shown(world, "n1").unfit == FULL
    say(world, session, FULL)
    say(world, session, "")
    assert [slot.id.workload for slot in world.slots()] == ["before", "web"]
    assert not shown(world, "n1").unfit
    assert [kind for kind in world.kinds("node/n1") if "it" in kind] == ["NodeUnfit", "NodeFit"]


def test_a_hello_says_it_too_also_to_a_new_leader(world: RegionalWorld) -> None:
    world.tell(events.NodeHello(9, "n1", "pool", (), hello(FULL)))
    world.share("web", task())
    assert not world.slots()
    world.take_over()
    world.tell(events.NodeHello(10, "n1", "pool", (), hello(FULL)))
    assert not world.slots()
    world.tell(events.NodeHello(11, "n1", "pool", (), hello("")))
    assert [slot.node for slot in world.slots()] == ["n1"]


def hello(unfit: str) -> agent_pb2.Hello:
    room = objects_pb2.Resources(cpu_milli=4_000, memory_mib=4_096)
    return agent_pb2.Hello(node="n1", incarnation=1, capacity=room, unfit=unfit)


def test_others_take_what_it_cannot(world: RegionalWorld) -> None:
    session = world.join("n1")
    say(world, session, "x" * 10_000)
    world.join("n2")
    world.share("web", task(replicas=2))
    assert {slot.node for slot in world.slots()} == {"n2"}
    assert len(shown(world, "n1").unfit) == 300
    assert world.state.table.unfit[world.state.nodes["n1"].row]
    world.tell(events.NodeSessionEnded(session))
    world.remove_node("n1")
    assert world.join("n3")
    world.share("api", task(strategy="spread"))
    assert "n3" in {slot.node for slot in world.slots()}, "its row is another node's"
