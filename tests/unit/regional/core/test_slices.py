"""What a tenant may charge here: order, growth, draining, acknowledgement."""

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model import explain
from atoll.model.accounts import ByAccount
from atoll.model.resources import NOTHING, Vector, vector
from regional.core import events, views
from regional.core.ledger import TenantAccount
from tests.support.regional_world import RegionalWorld, task


def limits(world: RegionalWorld) -> list[tuple[int, Vector, Vector]]:
    """(seq, C, U) of each acknowledgement."""
    uses = [(m.slice_ack.seq, m.slice_ack.uses[0]) for m in world.acks()]
    return [(seq, vector(use.limit), vector(use.bound)) for seq, use in uses]


def test_nothing_is_bound_beyond_the_limit_and_growth_wakes_it(world: RegionalWorld) -> None:
    world.join("n1", capacity=Vector(100_000, 100_000))
    world.grant("small", Vector(2_000, 9_999), seq=1)
    world.share("web", task(replicas=5), tenant="small")
    assert len(world.slots()) == 2
    world.grant("small", Vector(4_000, 9_999), seq=2)
    assert len(world.slots()) == 4


def test_without_a_slice_nothing_is_bound(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("web", task(cpu=0, memory=0), tenant="none")
    assert not world.slots()


def test_a_report_tells_what_waits_for_quota_from_what_waits_for_a_node(world: RegionalWorld) -> None:
    world.uplink()
    world.join("n1", capacity=Vector(3_000, 8_192))
    world.grant("small", Vector(1_000, 8_192), seq=1)
    world.share("web", task(replicas=4), tenant="small")

    def said() -> tuple[int, int, int]:
        (main,) = world.reports("web")[-1].tasks
        return main.waiting, main.unpaid, main.unplaced

    world.advance(1_500)
    assert said() == (3, 3, 0)
    world.grant("small", Vector(9_000, 8_192), seq=2)
    world.advance(1_500)
    assert said() == (1, 0, 1)


def test_a_release_makes_room_for_what_waits_under_quota(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.grant("small", Vector(1_000, 512), seq=1)
    world.share("a", task(), tenant="small", type=objects_pb2.WORKLOAD_TYPE_JOB)
    world.share("b", task(), tenant="small", type=objects_pb2.WORKLOAD_TYPE_JOB)
    (first,) = world.slots()
    world.close(session, first, reason="Completed")
    assert [s.id.workload for s in world.slots()] == ["b"]


def test_a_shrink_falls_as_work_drains_and_each_step_is_acknowledged(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1", capacity=Vector(100_000, 100_000))
    world.grant("small", Vector(4_000, 4_096), seq=1)
    world.share("web", task(replicas=4), tenant="small")
    world.grant("small", Vector(4_000, 4_096), seq=2, target=Vector(1_000, 4_096))
    assert limits(world)[-1][:2] == (2, Vector(4_000, 4_096))
    slots = world.slots()
    world.share("web", task(replicas=2), tenant="small", generation=2)
    world.close(session, slots[3])
    world.close(session, slots[2])
    assert limits(world)[-1] == (2, Vector(2_000, 4_096), Vector(2_000, 1_024))


def test_a_shrink_takes_back_what_a_refused_bind_had_charged() -> None:
    """The limit stopped falling at a charge that was never bound (simulator, seed 56)."""
    world = RegionalWorld(lanes=2)
    world.win()
    world.uplink()
    world.join("n1", capacity=Vector(100_000, 100_000))
    world.grant("small", Vector(4_000, 4_096), seq=1)
    world.hold = True
    world.share("web", task(replicas=2), tenant="small")
    world.settle(world.held.pop(0))  # ADMIT-SHARE
    world.grant("small", Vector(4_000, 4_096), seq=2, target=Vector())
    bind, slice_ = world.held
    world.held.clear()
    world.settle(slice_)
    assert limits(world)[-1] == (2, Vector(2_000, 1_024), Vector())
    world.hold = False
    world.settle(bind, lose="before")
    assert limits(world)[-1] == (2, Vector(), Vector())
    world.check()


def test_a_draining_slice_gives_nothing_above_its_target(world: RegionalWorld) -> None:
    session = world.join("n1", capacity=Vector(100_000, 100_000))
    world.grant("small", Vector(4_000, 4_096), seq=1)
    world.share("web", task(replicas=4), tenant="small")
    world.grant("small", Vector(4_000, 4_096), seq=2, target=Vector(1_000, 4_096))
    world.close(session, world.slots()[0])
    assert len(world.slots()) == 3


def test_an_older_slice_is_ignored_and_the_newer_one_acknowledged_again(world: RegionalWorld) -> None:
    world.uplink()
    world.grant("small", Vector(4_000, 4_096), seq=3)
    before = len(world.acks())
    world.grant("small", Vector(9_000, 4_096), seq=2)
    assert limits(world)[before:] == [(3, Vector(4_000, 4_096), Vector())]


def test_a_shrink_cannot_pass_a_bind_in_flight(world: RegionalWorld) -> None:
    """Two lanes: the limit stays above what an unanswered BIND may have charged."""
    busy = RegionalWorld(lanes=2)
    busy.win()
    busy.grant("small", Vector(4_000, 4_096), seq=1)
    busy.join("n1", capacity=Vector(100_000, 100_000))
    busy.share("web", task(replicas=0), tenant="small")
    busy.hold = True
    busy.share("web", task(replicas=4), tenant="small", generation=2)
    busy.settle(busy.held.pop())
    busy.grant("small", Vector(4_000, 4_096), seq=2, target=Vector())
    bind, shrink = busy.held
    busy.held.clear()
    busy.hold = False
    assert (bind.plan.operation, shrink.plan.operation) == ("BIND", "APPLY-SLICE")
    busy.settle(shrink)
    busy.settle(bind)
    busy.advance(2_000)
    busy.check()
    assert not busy.slots(), "its guard saw the slice move; the target gives nothing"


def test_strict_mode_counts_zombies(world: RegionalWorld) -> None:
    world.grant("small", Vector(1_000, 4_096), seq=1, mode=objects_pb2.QUOTA_MODE_STRICT)
    world.join("n1")
    world.share("web", task(), tenant="small")
    other = world.join("n2")
    world.advance(20_000, beating=[other])
    assert len(world.zombies()) == 1
    assert not world.slots(), "the old replica may still run, and there is quota for one"


def test_a_tenant_becomes_strict_when_what_may_still_run_fits(world: RegionalWorld) -> None:
    world.grant("small", Vector(1_000, 4_096), seq=1)
    world.join("n1")
    world.share("web", task(), tenant="small")
    (lost,) = world.slots()
    other = world.join("n2")
    world.advance(20_000, beating=[other])
    assert (len(world.zombies()), len(world.slots())) == (1, 1)
    world.grant("small", Vector(1_000, 4_096), seq=2, mode=objects_pb2.QUOTA_MODE_STRICT)
    assert not world.state.accounts["small"].strict, "a replica and a zombie are more than the slice"
    world.take_over()
    other = world.join("n2")
    world.grant("small", Vector(1_000, 4_096), seq=2, mode=objects_pb2.QUOTA_MODE_STRICT)
    back = world.join("n1")
    world.close(back, lost)
    world.advance(5_000, beating=[other, back])
    assert not world.zombies()
    assert world.state.accounts["small"].strict, "another leader goes on"


def test_everything_is_said_again_when_the_global_plane_is_back(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1")
    world.share("web", task())
    world.advance(2_000, beating=[session])
    world.tell(events.GlobalLost("away"))
    world.up.clear()
    world.advance(5_000, beating=[session])
    assert not world.up
    world.uplink()
    world.advance(1_500, beating=[session])
    kinds = {m.WhichOneof("body") for m in world.up}
    assert kinds == {"slice_ack", "workload", "summary"}


def test_reports_follow_the_counts(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1", capacity=Vector(2_000, 8_192))
    world.share("web", task(replicas=3))
    world.run(session, world.slots())
    world.advance(1_000, beating=[session])
    report = world.reports("web")[-1]
    counts = report.counts
    assert (counts.desired, counts.bound, counts.started, counts.ready, counts.waiting) == (3, 2, 2, 2, 1)
    assert [p.code for p in report.pending] == ["InsufficientCpu"]
    assert report.generation == 1


def test_why_names_quota_and_nodes(world: RegionalWorld) -> None:
    world.join("n1", capacity=Vector(500, 8_192))
    world.share("web", task(replicas=1))
    request = regional_pb2.WhyRequest(tenant="acme", workload="web", index=0, node="n1")
    (why,) = views.why(world.state, request, world.now_ms).slots
    assert [(r.code, r.nodes) for r in why.reasons] == [("InsufficientCpu", 1)]
    assert "lacks 500m" in why.reasons[0].message
    assert why.on_node[0].code == "InsufficientCpu"
    world.share("db", task(), tenant="none")
    (why,) = views.why(world.state, regional_pb2.WhyRequest(tenant="none", workload="db"), world.now_ms).slots
    assert [r.code for r in why.reasons] == [explain.SLICE_AWAITED]
    for seq, limit, code in ((1, NOTHING, explain.SLICE_AWAITED), (2, Vector(100), explain.QUOTA)):
        world.grant("none", limit, seq=seq)
        (why,) = views.why(world.state, regional_pb2.WhyRequest(tenant="none", workload="db"), world.now_ms).slots
        assert [r.code for r in why.reasons] == [code]


def test_views_show_use_and_waiting_slots(world: RegionalWorld) -> None:
    world.join("n1", capacity=Vector(1_000, 8_192))
    world.share("web", task(replicas=2))
    (node,) = views.list_nodes(world.state, world.now_ms)
    assert (node.slots, node.used.cpu_milli) == (1, 1_000)
    states = [view.slot.state for view in views.list_slots(world.state, "acme", "web")]
    assert states == [objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_WAITING]
    summary = views.summary(world.state)
    assert (summary.nodes_ready, summary.slots_bound, summary.slots_waiting) == (1, 1, 1)


def test_a_bind_cannot_pass_a_shrink_in_flight() -> None:
    """Found by a random history: a lower limit on its way may apply after a BIND that is sent meanwhile."""
    busy = RegionalWorld(lanes=2)
    busy.win()
    busy.grant("small", Vector(4_000, 4_096), seq=1)
    busy.join("n1", capacity=Vector(100_000, 100_000))
    busy.share("web", task(replicas=0), tenant="small")
    busy.hold = True
    busy.grant("small", Vector(4_000, 4_096), seq=2, target=Vector(1_000, 4_096))
    (shrink,) = busy.held
    busy.held.clear()
    busy.hold = False
    busy.share("web", task(replicas=4), tenant="small", generation=2)
    assert len(busy.slots()) == 1
    busy.settle(shrink)
    busy.check()
    assert len(busy.slots()) == 1


def _frozen(world: RegionalWorld) -> bool:
    return world.state.account("small").record.frozen


def test_a_slice_that_nobody_renews_is_frozen_at_what_is_in_use(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1", capacity=Vector(100_000, 100_000))
    world.grant("small", Vector(4_000, 4_096), seq=1, valid_until_ms=world.now_ms + 60_000)
    world.share("web", task(replicas=2), tenant="small", type=objects_pb2.WORKLOAD_TYPE_JOB)
    world.advance(59_000, beating=[session])
    assert not _frozen(world)
    world.advance(2_000, beating=[session])
    assert _frozen(world) and limits(world)[-1] == (1, Vector(2_000, 1_024), Vector(2_000, 1_024))
    world.share("more", task(replicas=3), tenant="small")
    assert len(world.slots()) == 2, "nothing more is granted"
    why = views.why(world.state, regional_pb2.WhyRequest(tenant="small", workload="more"), world.now_ms).slots[0]
    assert "frozen" in why.reasons[0].message
    world.close(session, world.slots()[0], reason="Completed")
    assert sorted(slot.id.workload for slot in world.slots()) == ["more", "web"], "a release makes room for new work"
    world.advance(10_000, beating=[session])
    assert limits(world)[-1][1] == Vector(2_000, 1_024), "it is frozen once: it does not fall as work ends"


def test_a_frozen_slice_stays_so_over_a_takeover_and_thaws_when_renewed(world: RegionalWorld) -> None:
    world.grant("small", Vector(4_000, 4_096), seq=1, valid_until_ms=world.now_ms + 1_000)
    world.join("n1", capacity=Vector(100_000, 100_000))
    world.share("web", task(replicas=1), tenant="small")
    world.advance(2_000)
    world.take_over()
    assert _frozen(world)
    world.share("more", task(replicas=3), tenant="small")
    world.join("n1", capacity=Vector(100_000, 100_000))
    assert len(world.slots()) == 1
    world.grant("small", Vector(4_000, 4_096), seq=2, valid_until_ms=world.now_ms + 60_000)
    assert not _frozen(world) and len(world.slots()) == 4
    world.check()


def test_a_freeze_cannot_pass_a_bind_in_flight() -> None:
    busy = RegionalWorld(lanes=2)
    busy.win()
    busy.grant("small", Vector(4_000, 4_096), seq=1, valid_until_ms=busy.now_ms + 1_000)
    session = busy.join("n1", capacity=Vector(100_000, 100_000))
    busy.share("web", task(replicas=0), tenant="small")
    busy.hold = True
    busy.share("web", task(replicas=2), tenant="small", generation=2)
    busy.settle(busy.held.pop())
    (bind,) = busy.held
    busy.held.clear()
    busy.advance(1_500, beating=[session])
    (freeze,) = [commit for commit in busy.held if commit.plan.operation == "APPLY-SLICE"]
    busy.held.remove(freeze)
    busy.hold = False
    busy.settle(bind)
    busy.settle(freeze)
    busy.advance(2_000, beating=[session])
    busy.check()
    assert len(busy.slots()) == 2 and busy.state.account("small").record.frozen


def test_a_shrink_goes_on_while_frozen(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1", capacity=Vector(100_000, 100_000))
    world.grant("small", Vector(4_000, 4_096), seq=1)
    world.share("web", task(replicas=4), tenant="small")
    until_ms = world.now_ms + 1_000
    world.grant("small", Vector(4_000, 4_096), seq=2, target=Vector(1_000, 4_096), valid_until_ms=until_ms)
    world.advance(2_000, beating=[session])
    world.share("web", task(replicas=2), tenant="small", generation=2)
    for index in (3, 2):
        world.close(session, *[slot for slot in world.slots() if slot.id.index == index])
    assert _frozen(world) and limits(world)[-1][1] == Vector(2_000, 2_048)


@pytest.mark.parametrize("part", ["limit", "bound", "reserved", "zombie", "surge"])
def test_whatever_an_acknowledgement_says_is_told_when_it_changes(part: str) -> None:
    account, other = TenantAccount("acme"), TenantAccount("acme")
    setattr(other, part, ByAccount(burst=Vector(1)))
    assert account.acknowledgement("r1", 1) != other.acknowledgement("r1", 1)
    assert account.standing() != other.standing()
