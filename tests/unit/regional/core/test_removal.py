"""Nodes that go: only empty ones, for good, and nothing of them stays behind."""

from atoll.api.v1 import objects_pb2
from atoll.errors import Conflict, NotFound
from atoll.model.resources import Vector
from atoll.store import keys
from regional.core import commands, events
from regional.core.node_changes import CORDON, DRAIN
from tests.support.regional_world import ROOT, START_MS, RegionalWorld, task

LOST = objects_pb2.NODE_STATE_LOST
LOST_AFTER_MS = 16_000
DAY_MS = 86_400_000


def removed(world: RegionalWorld, name: str = "n1") -> objects_pb2.RemovedNode | None:
    item = world.store.get(keys.removed_node(ROOT, name))
    return objects_pb2.RemovedNode.FromString(item.value) if item else None


def is_stored(world: RegionalWorld, name: str = "n1") -> bool:
    return world.store.get(keys.node(ROOT, name)) is not None


def lose_with_a_zombie(world: RegionalWorld) -> int:
    """n1 is lost, its replica runs on n2; the session of n2."""
    world.join("n1")
    world.share("web", task())
    other = world.join("n2")
    world.advance(LOST_AFTER_MS, beating=[other])
    assert world.zombies()
    return other


def test_a_cordoned_empty_node_is_removed_and_cut_off_at_once(world: RegionalWorld) -> None:
    session = world.join("n1", expires_ms=START_MS + DAY_MS)
    world.change_node("n1", duty=CORDON)
    reply = world.remove_node("n1", reason="sold")
    assert reply.answer is not None
    assert not is_stored(world)
    assert commands.CloseSession(session, "the node was removed") in world.issued
    assert world.kinds("node/n1")[-1] == "NodeRemoved"
    assert not world.state.nodes
    again = world.join("n1", expires_ms=START_MS + DAY_MS)
    assert isinstance(world.issued[-1], commands.Announce)
    assert again not in world.sent
    assert not world.state.nodes


def test_a_removed_node_comes_back_with_a_certificate_of_later(world: RegionalWorld) -> None:
    world.join("n1")
    world.change_node("n1", duty=CORDON)
    world.remove_node("n1")
    record = removed(world)
    assert record is not None
    session = world.join("n1", expires_ms=record.until_ms + 1_000)
    assert world.messages(session, "welcome")
    assert not world.node("n1").cordoned


def test_the_refusal_outlasts_the_leader_and_ends_with_the_last_certificate(world: RegionalWorld) -> None:
    for name in ("n1", "n2"):
        world.join(name)
        world.change_node(name, duty=CORDON)
    world.remove_node("n1")
    world.take_over()
    assert world.join("n1", expires_ms=world.now_ms) not in world.sent
    world.now_ms += 2 * DAY_MS
    world.remove_node("n2")
    assert removed(world, "n1") is None
    assert removed(world, "n2") is not None
    assert list(world.state.removed) == ["n2"]


def test_a_node_that_may_get_work_or_has_some_is_not_removed(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    for duty, said in ((0, "may get work"), (CORDON, "has 1 replica")):
        world.change_node("n1", duty=duty)
        refusal = world.remove_node("n1").refusal
        assert isinstance(refusal, Conflict)
        assert said in refusal.message
    assert isinstance(world.remove_node("n9").refusal, NotFound)
    assert is_stored(world)


def test_a_bind_under_way_holds_a_removal_up() -> None:
    """It was sent before the cordon, and its answer has not come: it may have been applied."""
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(100_000, 100_000), seq=1)
    world.uplink()
    world.join("n1")
    world.hold = True
    world.share("web", task())
    world.settle(world.held.pop(0))
    (bind,) = [c for c in world.held if c.plan.operation == "BIND"]
    bound = world.apply(bind)
    world.held.clear()
    world.hold = False
    world.change_node("n1", duty=CORDON)
    assert isinstance(world.remove_node("n1").refusal, Conflict)
    world.tell(events.PlanSettled(bind.plan_id, bound, world.now_ms))
    assert len(world.slots()) == 1
    assert isinstance(world.remove_node("n1").refusal, Conflict)
    world.check()


def test_what_may_still_run_on_a_lost_machine_needs_somebody_who_vouches(world: RegionalWorld) -> None:
    other = lose_with_a_zombie(world)
    refusal = world.remove_node("n1").refusal
    assert isinstance(refusal, Conflict)
    assert "--destroyed" in refusal.hint
    reply = world.remove_node("n1", reason="burnt", destroyed=True, request_id="d")
    assert reply.answer is not None
    world.advance(2_000, beating=[other])
    assert not world.zombies()
    assert not is_stored(world)
    record = removed(world)
    assert record is not None
    assert record.reason == "destroyed"


def test_a_destroyed_machine_is_refused_before_its_record_is_gone(world: RegionalWorld) -> None:
    other = lose_with_a_zombie(world)
    world.remove_node("n1", reason="burnt", destroyed=True)
    back = world.join("n1", expires_ms=world.now_ms + DAY_MS)
    assert back not in world.sent
    world.take_over()
    other = world.join("n2")
    world.advance(2_000, beating=[other])
    assert not is_stored(world)


def test_only_a_lost_machine_can_be_destroyed(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    assert isinstance(world.remove_node("n1", reason="burnt", destroyed=True).refusal, Conflict)
    assert not world.node("n1").destroyed


def test_a_removal_is_done_once_by_its_request(world: RegionalWorld) -> None:
    world.join("n1")
    world.change_node("n1", duty=CORDON)
    world.remove_node("n1", request_id="a")
    assert world.remove_node("n1", request_id="a").answer is not None
    back = world.join("n1", expires_ms=world.now_ms + 2 * DAY_MS)
    world.change_node("n1", duty=DRAIN, reason="x", request_id="b")
    assert isinstance(world.remove_node("n1", request_id="a", reason="other").refusal, Conflict)
    assert world.remove_node("n1", request_id="a").answer is not None
    assert is_stored(world), "the removal of then is not done to the node of now"
    assert world.messages(back, "welcome")


def test_nodes_that_were_lost_long_ago_go_by_themselves() -> None:
    world = RegionalWorld(forget_lost_after_s=600)
    world.win()
    world.join("n1")
    other = world.join("n2")
    world.advance(LOST_AFTER_MS, beating=[other])
    assert world.node("n1").state == LOST
    world.advance(world.settings.forget_lost_after_s * 1_000 - LOST_AFTER_MS, beating=[other], step_ms=7_000)
    assert is_stored(world)
    world.advance(30_000, beating=[other], step_ms=2_000)
    assert not is_stored(world)
    assert is_stored(world, "n2")


def test_the_row_of_a_removed_node_serves_the_next_one(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    world.join("n2")
    world.change_node("n2", duty=CORDON)
    world.remove_node("n2")
    session = world.join("n3")
    assert world.state.nodes["n3"].row == 1
    world.share("web", task(replicas=5), generation=2)
    assert {slot.node for slot in world.slots()} == {"n1", "n3"}
    world.advance(LOST_AFTER_MS, beating=[session])
    assert world.node("n3").state == objects_pb2.NODE_STATE_READY
