"""From a share to bound slots and back, against a store that really compares."""

import pytest

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.errors import InvariantBroken
from atoll.lane import Authority, Plan
from atoll.model.resources import Vector
from atoll.store.store import Put, absent, prefix_end
from regional.core import commands, events
from regional.core.machine import Machine
from tests.support.regional_world import REGION, ROOT, RegionalWorld, task


def test_a_share_is_bound_and_its_node_is_told(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task(replicas=3))
    assert [s.id.index for s in world.slots()] == [0, 1, 2]
    assigned = world.messages(session, "assign")
    assert [a.slot.index for a in assigned] == [0, 1, 2]
    assert {a.token.attempt.n for a in assigned} == {1, 2, 3}
    bodies = [m.WhichOneof("body") for m in world.sent[session]]
    assert bodies.count("assign") == 1, "all replicas of a task on a node travel together"


def test_nothing_is_dispatched_before_its_commit(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.hold = True
    world.share("web", task())
    assert not world.messages(session, "assign")
    world.release_held()
    assert [s.node for s in world.slots()] == ["n1"]
    assert len(world.messages(session, "assign")) == 1


def test_a_lost_bind_is_sealed_and_bound_again(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task(replicas=0))
    world.hold = True
    world.share("web", task(replicas=2), generation=2)
    admitted = world.held.pop()
    world.settle(admitted)
    (bind,) = world.held
    world.held.clear()
    world.hold = False
    world.settle(bind, lose="before")
    assert len(world.slots()) == 2
    assert {s.attempt.n for s in world.slots()} == {3, 4}, "an attempt is never used twice"


def test_a_bind_whose_answer_was_lost_after_it_applied_counts(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task(replicas=0))
    world.hold = True
    world.share("web", task(replicas=2), generation=2)
    world.settle(world.held.pop())
    world.hold = False
    world.settle(world.held.pop(), lose="after")
    assert {s.attempt.n for s in world.slots()} == {1, 2}
    assert len(world.messages(session, "assign")) == 2


def test_a_certificate_frees_the_slot_for_a_new_attempt(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task())
    (first,) = world.slots()
    world.run(session, [first])
    world.close(session, first, reason="Stopped")
    (second,) = world.slots()
    assert (second.attempt.term, second.attempt.n) > (first.attempt.term, first.attempt.n)


def test_removal_stops_everything_forgets_it_and_says_so(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1")
    world.share("web", task(replicas=2))
    bound = world.slots()
    world.share("web", task(replicas=2), removed=True)
    assert [s.slot.index for s in world.messages(session, "stop")] == [0, 1]
    world.close(session, *bound)
    world.advance(1_000, beating=[session])
    assert world.reports("web")[-1].closed
    assert not world.state.workloads
    assert not world.slots()
    assert not world.slots(objects_pb2.SLOT_STATE_DONE)


def test_an_unknown_removed_share_is_reported_closed_by_who_has_proved_to_lead_since(world: RegionalWorld) -> None:
    """A deposed leader may get it too, for a workload that was admitted after it."""
    world.uplink()
    world.share("gone", task(), removed=True)
    asked_ms = world.now_ms
    world.advance(world.state.settings.report_period_ms)
    assert world.state.applied_sent_ms <= asked_ms and not world.reports("gone")
    while not world.reports("gone"):
        world.advance(100)
        assert world.now_ms < asked_ms + 5_000
    assert world.state.applied_sent_ms > asked_ms
    assert world.reports("gone")[-1].closed


def test_a_standby_answers_writes_and_sends_agents_away() -> None:
    world = RegionalWorld()
    world.join("n1")
    assert [type(c) for c in world.issued] == [commands.CloseSession]
    assert world.machine.next_deadline() is None


def test_losing_leadership_forgets_all_and_keeps_sessions(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.tell(events.LeadershipLost("lease"))
    assert world.machine.state is None
    assert not [c for c in world.issued if isinstance(c, commands.CloseSession)]
    world.tell(events.NodeHeartbeat(session, 1))
    assert not world.messages(session, "ack")


def test_a_hello_said_to_an_earlier_reign_is_not_taken_for_this_ones(world: RegionalWorld) -> None:
    """Its Welcome and Sync would be taken for the answer to the Hello that follows."""
    term = world.state.authority.term
    world.take_over()
    hello = agent_pb2.Hello(node="n1", incarnation=1)
    world.tell(events.NodeHello(9, "n1", "", (), hello, term=term))
    assert not world.state.nodes
    world.tell(events.NodeHello(9, "n1", "", (), hello, term=world.state.authority.term))
    world.tell(events.NodeHello(9, "n1", "", (), hello, term=world.state.authority.term))
    assert [m.WhichOneof("body") for m in world.sent[9]] == ["welcome", "sync"] * 2


def test_a_deposed_leader_resigns_and_its_plan_has_no_effect(world: RegionalWorld) -> None:
    world.join("n1")
    world.hold = True
    world.share("web", task())
    old = world.machine
    held, lanes = world.held[:], world.lanes
    world.take_over()
    world.machine, world.lanes = old, lanes
    world.hold = False
    world.settle(held[0])
    assert any(isinstance(c, commands.Resign) for c in world.issued)
    assert old.state is None
    assert not world.slots()


def test_a_new_leader_keeps_what_is_bound_and_binds_the_rest(world: RegionalWorld) -> None:
    world.join("n1", capacity=Vector(2_000, 8_192))
    world.share("web", task(replicas=4))
    assert len(world.slots()) == 2
    before = {s.id.index: s.attempt for s in world.slots()}
    world.take_over()
    assert {s.id.index: s.attempt for s in world.slots()} == before
    world.join("n2")
    assert len(world.slots()) == 4
    after = {s.id.index: s.attempt for s in world.slots()}
    assert all(after[i] == a for i, a in before.items())


def test_nothing_happens_before_all_records_are_in(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task(replicas=2))
    listed = world.store.range(ROOT, prefix_end(ROOT))
    heir, authority = Machine(REGION, world.settings), Authority(ROOT, listed.revision)
    for item in listed.items:
        assert heir.handle(events.RecordsRead(authority, (item,)), world.now_ms) == []
        assert heir.state is None
        assert heir.next_deadline() is None
    heir.handle(events.LeadershipWon(authority, (), listed.revision), world.now_ms)
    assert heir.state is not None
    assert {e.record.id.index for e in heir.state.nodes["n1"].slots.values()} == {0, 1}
    heir.state.check()


def test_what_was_read_for_a_reign_that_never_began_is_no_part_of_the_next(world: RegionalWorld) -> None:
    world.join("n1")
    listed = world.store.range(ROOT, prefix_end(ROOT))
    heir = Machine(REGION, world.settings)
    heir.handle(events.RecordsRead(Authority(ROOT, 5), listed.items), world.now_ms)
    heir.handle(events.LeadershipLost("the lease is gone"), world.now_ms)
    heir.handle(events.LeadershipWon(Authority(ROOT, 7), (), 7), world.now_ms)
    assert heir.state is not None
    assert not heir.state.nodes


def test_records_out_of_order_break_an_invariant(world: RegionalWorld) -> None:
    world.join("n1")
    listed = world.store.range(ROOT, prefix_end(ROOT))
    heir, authority = Machine(REGION, world.settings), Authority(ROOT, listed.revision)
    heir.handle(events.RecordsRead(authority, listed.items), world.now_ms)
    with pytest.raises(InvariantBroken):
        heir.handle(events.LeadershipWon(authority, listed.items, listed.revision), world.now_ms)


def test_same_input_same_output() -> None:
    def story() -> list[str]:
        world = RegionalWorld(lanes=2)
        world.win()
        world.grant("acme", Vector(9_000, 90_000), seq=1)
        sessions = [world.join(f"n{i}") for i in range(3)]
        world.share("web", task(replicas=7))
        world.share("db", task(replicas=5), tenant="acme")
        world.advance(30_000, beating=sessions[:2])
        return [repr(c) for c in world.issued]

    assert story() == story()


def test_an_idle_leader_proves_its_term_each_second(world: RegionalWorld) -> None:
    before = world.store.revision
    world.advance(10_000)
    assert 8 <= world.store.revision - before <= 10


def test_a_guarded_write_is_carried_out_and_answered(world: RegionalWorld) -> None:
    key = b"/r/east/join/x"
    record = objects_pb2.JoinToken(id="x", region="east").SerializeToString()
    plan = Plan("JOIN", (absent(key),), (Put(key, record),))
    world.tell(events.WriteAsked(7, plan))
    world.tell(events.WriteAsked(8, plan))
    replies = [c for c in world.issued if isinstance(c, commands.Reply)]
    assert [(r.reply_to, bool(r.error)) for r in replies] == [(7, False), (8, True)]


def test_admission_release_and_bind_take_turns() -> None:
    """A flood of any of them holds up none of the others."""
    world = RegionalWorld(admission_batch_shares=1)
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    session = world.join("n1", capacity=Vector(1_000_000, 1_000_000))
    world.share("busy", task(replicas=300, cpu=1, memory=1))
    slots = world.slots()
    world.hold = True
    world.share("waiting", task(replicas=300, cpu=1, memory=1))
    for i in range(50):
        world.share(f"flood-{i}", task(replicas=0))
    world.close(session, *slots, reason="Failed", code=1)
    done: list[str] = []
    while len(done) < 9:
        commit = world.held.pop(0)
        done.append(commit.plan.operation)
        world.settle(commit)
    assert all(set(done[i : i + 3]) == {"ADMIT-SHARE", "RELEASE", "BIND"} for i in (0, 3, 6)), done
    world.release_held()


def test_the_moment_before_a_tenants_first_slice_is_no_alarm(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task(), tenant="late")
    what = "workload/late/web"
    assert "NotPlaced" not in world.kinds(what)
    world.grant("late", Vector(), seq=1)
    assert "NotPlaced" not in world.kinds(what), "as little as no slice"
    world.grant("late", Vector(500, 512), seq=2)
    assert world.kinds(what) == ["NotPlaced"], "what was granted is too little: that is worth telling"
    world.grant("late", Vector(1_000, 512), seq=3)
    assert world.kinds(what) == ["NotPlaced", "Bound"]


def test_one_replica_is_not_some_replicas(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task())
    world.share("api", task(replicas=2))
    said = [c.event.message for c in world.issued if isinstance(c, commands.Announce) and c.event.type == "Bound"]
    assert said == ["main: 1 replica", "main: 2 replicas"]
