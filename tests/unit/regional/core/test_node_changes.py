"""Cordon, drain, labels and taints as operators ask for them: once each, in the record, whatever else happens."""

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.errors import Conflict, NotFound
from atoll.model.resources import Vector
from regional.core import commands, events
from regional.core.node_changes import CORDON, DRAIN, SERVE, mistakes
from tests.support.regional_world import RegionalWorld, task

NO_SCHEDULE = objects_pb2.TAINT_EFFECT_NO_SCHEDULE


def label(key: str, value: str) -> objects_pb2.Label:
    return objects_pb2.Label(key=key, value=value)


def labels(world: RegionalWorld, node: str = "n1") -> dict[str, str]:
    return {one.key: one.value for one in world.node(node).metadata.labels}


def test_a_cordoned_node_gets_no_work_and_keeps_what_it_has(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task(replicas=1))
    world.change_node("n1", duty=CORDON)
    world.share("web", task(replicas=2), generation=2)
    assert len(world.slots()) == 1
    (waiting,) = world.state.queue.parked.values()
    assert [reason.code for reason in waiting.reasons] == ["NodeCordoned"]
    world.change_node("n1", duty=SERVE)
    assert len(world.slots()) == 2
    assert world.kinds("node/n1")[-2:] == ["NodeCordoned", "NodeServing"]


def test_a_bind_that_was_decided_before_a_cordon_is_refused_after_it(world: RegionalWorld) -> None:
    """Two lanes: the BIND is under way when the cordon is committed."""
    world = RegionalWorld(lanes=2)
    world.win()
    world.grant("acme", Vector(100_000, 100_000), seq=1)
    world.uplink()
    world.join("n1")
    world.hold = True
    world.share("web", task())
    world.settle(world.held.pop())  # the share; the BIND follows
    (bind,) = [c for c in world.held if c.plan.operation == "BIND"]
    world.ask_node("n1", duty=CORDON)
    (cordon,) = [c for c in world.held if c.plan.operation == "CHANGE-NODE"]
    world.held.clear()
    world.hold = False
    world.settle(cordon)
    world.settle(bind)
    assert not world.slots()
    world.check()


def test_the_same_request_again_is_answered_and_not_done_again(world: RegionalWorld) -> None:
    world.join("n1")
    first = world.change_node("n1", request_id="a", duty=CORDON)
    world.change_node("n1", request_id="b", duty=SERVE)
    again = world.change_node("n1", request_id="a", duty=CORDON)
    assert first.answer is not None
    assert again.answer is not None
    assert not world.node("n1").cordoned
    assert world.kinds("node/n1").count("NodeCordoned") == 1
    refused = world.change_node("n1", request_id="a", duty=DRAIN, reason="other")
    assert isinstance(refused.refusal, Conflict)


def test_a_request_survives_a_leader_that_could_not_answer(world: RegionalWorld) -> None:
    world.join("n1")
    world.hold = True
    world.ask_node("n1", request_id="a", duty=CORDON)
    (commit,) = world.held
    world.apply(commit)
    world.hold = False
    world.take_over()
    world.change_node("n1", request_id="b", duty=SERVE)
    assert world.change_node("n1", request_id="a", duty=CORDON).answer is not None
    assert not world.node("n1").cordoned, "it was done before, and undone since"


def test_a_change_and_a_hello_do_not_undo_each_other(world: RegionalWorld) -> None:
    world.join("n1", labels={"zone": "a"})
    world.hold = True
    world.ask_node("n1", duty=CORDON, set_labels=[label("disk", "ssd")])
    again = world.join("n1", labels={"zone": "b"})
    world.release_held()
    record = world.node("n1")
    assert record.cordoned
    assert labels(world) == {"zone": "b", "disk": "ssd"}
    assert world.messages(again, "welcome")


def test_a_loss_that_was_about_to_be_written_does_not_undo_a_cordon(world: RegionalWorld) -> None:
    world.join("n1")
    other = world.join("n2")
    world.hold = True
    world.ask_node("n1", duty=CORDON)
    world.advance(20_000, beating=[other])
    world.release_held()
    world.advance(1_000, beating=[other])
    assert world.node("n1").state == objects_pb2.NODE_STATE_LOST
    assert world.node("n1").cordoned


def test_operators_labels_win_and_what_they_hid_comes_back(world: RegionalWorld) -> None:
    world.join("n1", labels={"zone": "a"}, trusted=(("trusted/rack", "r1"),))
    world.change_node("n1", set_labels=[label("zone", "b"), label("trusted/rack", "r2")])
    assert labels(world) == {"zone": "b", "trusted/rack": "r2"}
    world.change_node("n1", remove_labels=["zone", "trusted/rack"])
    assert labels(world) == {"zone": "a", "trusted/rack": "r1"}


def test_a_label_makes_room_for_what_waits_for_it(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task(node_selector=[label("disk", "ssd")]))
    assert not world.slots()
    world.change_node("n1", set_labels=[label("disk", "ssd")])
    assert len(world.slots()) == 1


def test_taints_are_named_by_key_and_effect_and_keep_their_time(world: RegionalWorld) -> None:
    world.join("n1")
    world.change_node("n1", set_taints=[objects_pb2.Taint(key="gpu", value="a", effect=NO_SCHEDULE)])
    (before,) = world.node("n1").taints
    world.now_ms += 5_000
    world.change_node("n1", set_taints=[objects_pb2.Taint(key="gpu", value="a", effect=NO_SCHEDULE)])
    assert list(world.node("n1").taints) == [before]
    world.share("web", task())
    assert not world.slots()
    world.change_node("n1", remove_taints=[objects_pb2.Taint(key="gpu")])
    assert len(world.slots()) == 1


def test_unknown_nodes_and_standbys_say_so(world: RegionalWorld) -> None:
    assert isinstance(world.change_node("n9", duty=CORDON).refusal, NotFound)
    world.tell(events.LeadershipLost("gone"))
    assert world.change_node("n9", duty=CORDON).unsent


def test_who_asked_a_leader_that_lost_its_term_is_told_what_is_known(world: RegionalWorld) -> None:
    world.join("n1")
    world.hold = True
    flying = world.ask_node("n1", duty=CORDON)
    queued = world.ask_node("n1", duty=SERVE)
    world.tell(events.LeadershipLost("gone"))
    replies = {r.reply_to: r for r in world.issued if isinstance(r, commands.Reply)}
    assert replies[flying].unknown
    assert replies[queued].unsent


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"duty": DRAIN}, "reason"),
        ({"duty": CORDON, "reason": "x" * 257}, "reason"),
        ({"duty": DRAIN, "reason": "x", "deadline_s": -1}, "deadline_s"),
        ({"set_labels": [label("a b", "c")]}, "set_labels[0]"),
        ({"set_labels": [label("a", "c")], "remove_labels": ["a"]}, "set_labels"),
        ({"set_taints": [objects_pb2.Taint(key="gpu")]}, "set_taints[0].effect"),
        ({"set_labels": [label(f"k{i}", "v") for i in range(200)]}, ""),
        ({"name": "N 1"}, "name"),
        ({"request_id": ""}, "request_id"),
    ],
)
def test_mistakes_are_found_before_anything_is_asked(fields: dict[str, object], path: str) -> None:
    request = regional_pb2.UpdateNodeRequest(**{"name": "n1", "request_id": "r", **fields})  # type: ignore[arg-type]
    assert [mistake.path for mistake in mistakes(request)] == [path]


def test_a_record_remembers_a_bounded_number_of_requests(world: RegionalWorld) -> None:
    world.join("n1")
    for i in range(40):
        world.change_node("n1", request_id=f"r{i}", duty=CORDON)
    assert [r.id for r in world.node("n1").requests] == [f"r{i}" for i in range(24, 40)]
    world.join("n1", inventory=[agent_pb2.AttemptStatus()])
    assert len(world.node("n1").requests) == 16
