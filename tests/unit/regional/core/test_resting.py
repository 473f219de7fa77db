"""Nodes that fail what is tried with them are left alone for a while; one broken workload never does that to them."""

from atoll.api.v1 import agent_pb2
from regional.core.resting import START_FAILED, missed
from regional.core.state import Turn
from tests.support.regional_world import RegionalWorld, status, task

FIRST_MS = 30_000


def resting(world: RegionalWorld) -> set[str]:
    return set(world.state.resting)


def two_nodes(world: RegionalWorld, *workloads: str) -> tuple[int, int]:
    """n1 has one replica of each workload; n2 is another node."""
    first = world.join("n1")
    for name in workloads:
        world.share(name, task(cpu=100))
    return first, world.join("n2")


def fail_all_on(world: RegionalWorld, session: int, node: str) -> None:
    slots = [slot for slot in world.slots() if slot.node == node]
    for slot in slots:
        world.close(session, slot, reason=START_FAILED, code=-1)


def test_a_node_where_starts_of_several_workloads_fail_rests_and_comes_back(world: RegionalWorld) -> None:
    first, second = two_nodes(world, "a", "b", "c")
    fail_all_on(world, first, "n1")
    assert resting(world) == {"n1"}
    assert world.kinds("node/n1")[-1] == "NodeResting"
    world.share("d", task(replicas=3, cpu=100))
    assert {slot.node for slot in world.slots() if slot.id.workload == "d"} == {"n2"}
    world.advance(FIRST_MS + 1_000, beating=[first, second])
    assert not resting(world)


def test_one_broken_workload_takes_no_node_out_of_use(world: RegionalWorld) -> None:
    first, second = two_nodes(world)
    world.share("broken", task(replicas=6, cpu=100))
    for session, node in ((first, "n1"), (second, "n2")):
        fail_all_on(world, session, node)
    assert not resting(world)


def test_a_start_that_succeeds_ends_the_row(world: RegionalWorld) -> None:
    first, _ = two_nodes(world, "a", "b", "c")
    a, b, c = world.slots()
    world.close(first, a, reason=START_FAILED)
    world.close(first, b, reason=START_FAILED)
    other = world.join("n1", inventory=[status(c, agent_pb2.ATTEMPT_PHASE_RUNNING, ready=True)])
    world.share("d", task(cpu=100, node_selector=[]))
    world.close(other, c, reason=START_FAILED)
    assert not resting(world)


def test_the_last_node_that_takes_work_never_rests(world: RegionalWorld) -> None:
    session = world.join("n1")
    for name in ("a", "b", "c", "d"):
        world.share(name, task(cpu=100))
    fail_all_on(world, session, "n1")
    assert not resting(world)


def test_at_most_a_fifth_rests(world: RegionalWorld) -> None:
    sessions = {name: world.join(name) for name in ("n1", "n2", "n3")}
    for name in ("a", "b", "c", "d", "e", "f", "g", "h", "i"):
        world.share(name, task(cpu=1_000))
    for name, session in sessions.items():
        fail_all_on(world, session, name)
    assert len(resting(world)) == 1


def test_three_plans_refused_because_of_a_node_let_it_rest(world: RegionalWorld) -> None:
    two_nodes(world)
    turn = Turn(world.now_ms)
    for expected in (set(), set(), {"n1"}):
        missed(world.state, world.state.nodes["n1"], turn)
        assert resting(world) == expected
