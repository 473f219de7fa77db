"""Hello, silence, loss, fences and the brake, on virtual time."""

from typing import Any

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.resources import Vector
from atoll.store import keys
from regional.core import commands, events
from regional.core.liveness import surely_stopped_ms
from tests.support.regional_world import ROOT, RegionalWorld, status, task

READY, LOST = objects_pb2.NODE_STATE_READY, objects_pb2.NODE_STATE_LOST
LOST_AFTER_MS = 16_000  # 5 heartbeats of 3 s, and a check


def test_a_session_is_welcomed_after_its_record_is_committed(world: RegionalWorld) -> None:
    world.hold = True
    session = world.join("n1")
    assert session not in world.sent
    world.release_held()
    kinds = [m.WhichOneof("body") for m in world.sent[session]]
    assert kinds == ["welcome", "sync"]
    (welcome,) = world.messages(session, "welcome")
    assert (welcome.heartbeat_ms, welcome.fence_after_ms) == (3_000, 12_000)


def test_trusted_labels_come_from_the_certificate_only(world: RegionalWorld) -> None:
    world.join("n1", labels={"zone": "a", "trusted/pool": "mine"}, trusted=(("trusted/rack", "r1"),))
    labels = {label.key: label.value for label in world.node("n1").metadata.labels}
    assert labels == {"zone": "a", "trusted/rack": "r1"}


def test_a_second_session_of_a_node_ends_the_first(world: RegionalWorld) -> None:
    first = world.join("n1")
    second = world.join("n1")
    assert commands.CloseSession(first, "the node has opened another session") in world.issued
    world.share("web", task())
    assert world.messages(second, "assign")
    world.tell(events.NodeSessionEnded(first))
    assert world.state.nodes["n1"].session == second


def test_a_node_that_obeyed_a_newer_leader_is_sent_away(world: RegionalWorld) -> None:
    hello = agent_pb2.Hello(node="n1", incarnation=1, highest_term=10**9)
    world.tell(events.NodeHello(9, "n1", "", (), hello))
    assert isinstance(world.issued[-1], commands.CloseSession)
    assert not world.state.nodes


def test_heartbeats_are_acknowledged_only_shortly_after_proof(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.tell(events.NodeHeartbeat(session, 1))
    assert [a.seq for a in world.messages(session, "ack")] == [1]
    world.hold = True
    world.advance(4_000, beating=[session])
    answered = len(world.messages(session, "ack"))
    world.advance(4_000, beating=[session])
    assert len(world.messages(session, "ack")) == answered, "no applied transaction for more than T_l"
    world.release_held()
    world.advance(1_000, beating=[session])
    assert len(world.messages(session, "ack")) > answered


def test_keep_work_of_a_lost_node_is_replaced_and_leaves_a_zombie(world: RegionalWorld) -> None:
    world.join("n1")
    other = None
    world.share("web", task())
    (first,) = world.slots()
    other = world.join("n2")
    world.advance(LOST_AFTER_MS, beating=[other])
    assert world.node("n1").state == LOST
    (second,) = world.slots()
    assert second.node == "n2"
    assert second.attempt.n > first.attempt.n
    (zombie,) = world.zombies()
    assert (zombie.node, zombie.attempt) == ("n1", first.attempt)


def test_a_returning_node_stops_what_was_replaced_and_its_zombie_is_cleared(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    (first,) = world.slots()
    other = world.join("n2")
    world.advance(LOST_AFTER_MS, beating=[other])
    back = world.join("n1", inventory=[status(first, agent_pb2.ATTEMPT_PHASE_RUNNING)])
    (sync,) = world.messages(back, "sync")
    assert not sync.assignments
    assert [s.token.attempt for s in sync.stops] == [first.attempt]
    world.close(back, first)
    assert not world.zombies()
    assert world.node("n1").state == READY


def test_a_node_that_is_heard_again_in_time_keeps_its_work(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task())
    (first,) = world.slots()
    world.advance(10_000)
    assert not world.state.table.ready[world.state.nodes["n1"].row], "suspect: no new work"
    world.tell(events.NodeHeartbeat(session, 1))
    world.advance(60_000, beating=[session])
    assert world.slots() == [first]
    assert not world.zombies()


def test_the_leaders_own_downtime_counts_against_nobody(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task())
    world.now_ms += 120_000
    world.tell(events.Woke())
    assert world.node("n1").state == READY
    world.advance(14_000)
    assert world.node("n1").state == READY
    world.advance(2_000)
    assert world.node("n1").state == LOST
    assert session


def test_after_a_takeover_every_node_gets_a_full_grace_period(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    world.advance(14_000)
    world.take_over()
    world.advance(14_000)
    assert world.node("n1").state == READY
    world.advance(2_000)
    assert world.node("n1").state == LOST


def test_exclusive_work_moves_only_when_its_fence_has_surely_passed(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("db", task(), run_class=objects_pb2.RUN_CLASS_EXCLUSIVE)
    other = world.join("n2")
    world.tell(events.NodeHeartbeat(session, 1))
    fence_ms = surely_stopped_ms(world.settings, 12_000)
    assert fence_ms == 17_344
    world.advance(fence_ms, beating=[other])
    assert [s.node for s in world.slots()] == ["n1"]
    world.advance(1_000, beating=[other])
    assert [s.node for s in world.slots()] == ["n2"]
    assert not world.zombies()


def test_a_node_heard_after_its_fence_gets_no_lease_for_work_that_is_being_released(world: RegionalWorld) -> None:
    """Its agent may have the assignment and wait for a lease only (simulator, seed 80)."""
    sessions = {name: world.join(name) for name in ("n1", "n2", "n3")}  # all silent: the brake keeps them READY
    world.share("db", task(), run_class=objects_pb2.RUN_CLASS_EXCLUSIVE)
    session = sessions[world.slots()[0].node]
    other = world.join("n4")
    world.tell(events.NodeHeartbeat(session, 1))
    world.advance(surely_stopped_ms(world.settings, 12_000), beating=[other])
    world.hold = True
    world.advance(1_000, beating=[other])
    world.tell(events.NodeHeartbeat(session, 2))
    assert [ack.seq for ack in world.messages(session, "ack")] == [1]
    assert commands.CloseSession(session, "its fence has passed: say hello again") in world.issued
    world.release_held()
    assert [s.node for s in world.slots()] == ["n4"]


def test_bounded_work_has_its_own_longer_fence(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("db", task(), run_class=objects_pb2.RUN_CLASS_BOUNDED, bounded_s=60)
    other = world.join("n2")
    world.advance(60_000, beating=[other])
    assert [s.node for s in world.slots()] == ["n1"]
    world.advance(8_000, beating=[other])
    assert [s.node for s in world.slots()] == ["n2"]


def test_after_a_takeover_exclusive_work_waits_for_the_old_leaders_acknowledgements(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("db", task(), run_class=objects_pb2.RUN_CLASS_EXCLUSIVE)
    world.take_over()
    other = world.join("n2")
    world.advance(4_000 + 17_344, beating=[other])
    assert [s.node for s in world.slots()] == ["n1"]
    world.advance(1_000, beating=[other])
    assert [s.node for s in world.slots()] == ["n2"]


def test_when_many_fall_silent_together_keep_work_stays(world: RegionalWorld) -> None:
    sessions = [world.join(f"n{i}", capacity=Vector(1_000, 1_024)) for i in range(10)]
    world.share("web", task(replicas=10))
    world.share("db", task(cpu=0, memory=1), run_class=objects_pb2.RUN_CLASS_EXCLUSIVE)
    (exclusive,) = [s for s in world.slots() if s.id.workload == "db"]
    before = {s.id.index: s.node for s in world.slots() if s.id.workload == "web"}
    assert exclusive.node == "n0"
    world.advance(120_000, beating=sessions[3:])
    web = {s.id.index: s.node for s in world.slots() if s.id.workload == "web"}
    assert web == before
    assert not world.zombies()
    assert [s.node for s in world.slots() if s.id.workload == "db"] != ["n0"], "its fence is proof enough"
    world.join("n0")
    world.advance(20_000, beating=[*sessions[3:], 11])
    assert world.node("n1").state == LOST, "two silent nodes are their own trouble"


def test_one_after_the_other_is_not_the_regions_trouble(world: RegionalWorld) -> None:
    sessions = [world.join(f"n{i}") for i in range(10)]
    for silent in range(1, 4):
        world.advance(70_000, beating=sessions[silent:])
        assert world.node(f"n{silent - 1}").state == LOST


def test_an_assignment_that_never_arrived_is_in_the_next_sync(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    (slot,) = world.slots()
    again = world.join("n1")
    (sync,) = world.messages(again, "sync")
    assert [a.token.attempt for a in sync.assignments] == [slot.attempt]
    assert sync.assignments[0].task.name == "main"


def test_an_attempt_without_a_binding_is_stopped(world: RegionalWorld) -> None:
    stray = objects_pb2.Slot(
        id=objects_pb2.SlotId(tenant="acme", workload="old", task="main", index=0),
        attempt=objects_pb2.Attempt(term=1, n=1),
    )
    session = world.join("n1", inventory=[status(stray, agent_pb2.ATTEMPT_PHASE_RUNNING)])
    assert [s.slot for s in world.messages(session, "sync")[0].stops] == [stray.id]
    other = world.join("n2")
    world.report(other, status(stray, agent_pb2.ATTEMPT_PHASE_RUNNING))
    assert [s.slot for s in world.messages(other, "stop")] == [stray.id]


def test_a_certificate_in_the_inventory_releases_the_slot(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("job", task(), type=objects_pb2.WORKLOAD_TYPE_JOB)
    (slot,) = world.slots()
    done = status(slot, agent_pb2.ATTEMPT_PHASE_CLOSED, exit=objects_pb2.Exit(reason="Completed"))
    again = world.join("n1", inventory=[done])
    (sync,) = world.messages(again, "sync")
    assert [a.slot for a in sync.assignments] == [slot.id], "its agent keeps the certificate until the release"
    assert [s.exit.reason for s in world.slots(objects_pb2.SLOT_STATE_DONE)] == ["Completed"]
    last = world.join("n1", inventory=[done])
    assert not world.messages(last, "sync")[0].assignments


def test_a_node_heard_before_its_loss_is_sent_is_not_lost(world: RegionalWorld) -> None:
    session, _ = world.join("n1"), world.join("n2")
    others = [world.join(f"n{i}") for i in range(3, 13)]
    world.share("web", task())
    world.hold = True
    world.advance(16_000, beating=others)  # the only lane holds a TOUCH: the loss waits behind it
    assert list(world.state.unsettled_nodes) == ["n1", "n2"]
    world.tell(events.NodeHeartbeat(session, 1))
    again = world.join("n2")
    assert world.messages(again, "welcome")
    world.release_held()
    assert [world.node(name).state for name in ("n1", "n2")] == [READY, READY]
    assert not world.zombies()


def test_a_certificate_of_a_lost_node_leaves_no_zombie(world: RegionalWorld) -> None:
    session, other = world.join("n1"), world.join("n2", capacity=Vector())
    world.share("web", task())
    (slot,) = world.slots()
    world.hold = True
    world.advance(1_500, beating=[session, other])  # the lane is taken by a TOUCH
    world.close(session, slot)
    world.advance(LOST_AFTER_MS, beating=[other])
    while world.held:
        world.settle(world.held.pop(0))
    assert world.node("n1").state == LOST
    assert not world.slots()
    assert not world.zombies()


def test_what_proves_the_end_is_the_class_an_attempt_was_bound_with(world: RegionalWorld) -> None:
    """Bound as keep, now exclusive: no fence ever ran for the old attempt."""
    first = world.join("n1")
    world.share("db", task())
    world.run(first, world.slots())
    other = world.join("n2")
    world.tell(events.NodeSessionEnded(first))
    world.share("db", task(), generation=2, run_class=objects_pb2.RUN_CLASS_EXCLUSIVE)
    world.advance(20_000, beating=[other])
    assert [(s.node, s.run_class) for s in world.slots()] == [("n2", objects_pb2.RUN_CLASS_EXCLUSIVE)]
    assert [z.node for z in world.zombies()] == ["n1"]


def settled(world: RegionalWorld, session: int) -> list[list[objects_pb2.Attempt]]:
    """The attempts of each Settled that the session was sent."""
    return [[a.token.attempt for a in m.attempts] for m in world.messages(session, "settled")]


def test_released_certificates_are_settled_together_and_only_when_committed(world: RegionalWorld) -> None:
    session, other = world.join("n1"), world.join("n2", capacity=Vector())
    world.share("job", task(replicas=3), type=objects_pb2.WORKLOAD_TYPE_JOB)
    slots = world.slots()
    world.hold = True
    world.close(session, *slots, reason="Completed")
    assert [commit.plan.operation for commit in world.held] == ["RELEASE"]
    assert settled(world, session) == []
    world.release_held()
    assert settled(world, session) == [[slot.attempt for slot in slots]]
    assert settled(world, other) == []


def test_the_certificate_of_a_zombie_is_settled_when_it_is_cleared(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    (first,) = world.slots()
    other = world.join("n2")
    world.advance(LOST_AFTER_MS, beating=[other])
    back = world.join("n1")
    world.hold = True
    world.close(back, first)
    assert settled(world, back) == []
    world.release_held()
    assert not world.zombies()
    assert settled(world, back) == [[first.attempt]]


def test_certificates_that_nothing_waits_for_are_settled_at_once(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(replicas=2), type=objects_pb2.WORKLOAD_TYPE_JOB)
    slots = world.slots()
    world.close(session, *slots, reason="Completed")
    world.close(session, *slots, reason="Completed")
    assert settled(world, session) == [[slot.attempt for slot in slots]] * 2


def test_a_welcome_is_two_messages_however_much_is_to_end(world: RegionalWorld) -> None:
    replicas = 1_124  # more than a session's queue takes
    session = world.join("n1", capacity=Vector(1_000_000, 1_000_000))
    world.share("web", task(replicas=replicas, cpu=1, memory=1))
    slots = world.slots()
    assert len(slots) == replicas
    world.run(session, slots[:700])
    world.tell(events.NodeSessionEnded(session))
    world.share("web", task(replicas=0, cpu=1, memory=1), generation=2)
    again = world.join("n1", inventory=[status(s, agent_pb2.ATTEMPT_PHASE_RUNNING) for s in slots[:700]])
    assert [m.WhichOneof("body") for m in world.sent[again]] == ["welcome", "sync"]
    (sync,) = world.messages(again, "sync")
    assert not sync.assignments
    assert sorted(s.token.attempt.n for s in sync.stops) == sorted(s.attempt.n for s in slots)
    assert {s.reason for s in sync.stops} == {"not wanted"}
    world.close(again, *slots)
    assert not world.slots()


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        ({"labels": [objects_pb2.Label(key=f"k{i}", value="v") for i in range(65)]}, "65 labels"),
        ({"labels": [objects_pb2.Label(key="x" * 2_000_000, value="v")]}, "a label's key"),
        ({"labels": [objects_pb2.Label(key="zone", value="v" * 2_000_000)]}, "label zone"),
        ({"labels": [objects_pb2.Label(key="", value="v")]}, "a label's key"),
        ({"address": "a" * 257}, "257 characters"),
        ({"inventory": [agent_pb2.AttemptStatus()] * 20_001}, "20001 attempts"),
        ({"capacity": objects_pb2.Resources(cpu_milli=-1)}, "capacity"),
        ({"capacity": objects_pb2.Resources(memory_mib=2**60)}, "capacity"),
    ],
)
def test_an_impossible_claim_is_refused_with_its_reason_and_reaches_nothing(
    world: RegionalWorld, claim: dict[str, Any], said: str
) -> None:
    world.tell(events.NodeHello(9, "n1", "", (), agent_pb2.Hello(node="n1", incarnation=1, **claim)))
    close, announce = world.issued[-2:]
    assert isinstance(close, commands.CloseSession)
    assert isinstance(announce, commands.Announce)
    assert said in close.reason
    assert len(close.reason) < 300
    assert (announce.event.type, announce.event.object, announce.event.message) == (
        "NodeRefused",
        "node/n1",
        close.reason,
    )
    assert not world.state.nodes
    assert not world.held
    assert world.store.get(keys.node(ROOT, "n1")) is None


def test_what_an_agent_says_of_an_end_is_stored_within_bounds(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(), type=objects_pb2.WORKLOAD_TYPE_JOB)
    exit_ = objects_pb2.Exit(reason="r" * 2_000_000, message="m" * 2_000_000, code=1)
    (slot,) = world.slots()
    world.report(session, status(slot, agent_pb2.ATTEMPT_PHASE_CLOSED, exit=exit_))
    (waiting,) = world.slots(objects_pb2.SLOT_STATE_WAITING)
    assert (len(waiting.exit.reason), len(waiting.exit.message)) == (64, 1_024)
