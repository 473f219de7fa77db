"""A region listens to the newest leader of the global plane it has heard of, through its own changes of leader too."""

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.store import keys
from regional.core import commands, events, takeover
from tests.support.regional_world import ROOT, RegionalWorld, task


def _noted(world: RegionalWorld) -> objects_pb2.GlobalReign:
    item = world.store.get(keys.heard_global(ROOT))
    return objects_pb2.GlobalReign.FromString(item.value) if item else objects_pb2.GlobalReign()


def _left(world: RegionalWorld) -> int:
    return sum(isinstance(command, commands.LeaveGlobal) for command in world.issued)


def test_a_deposed_global_leader_is_refused_and_what_it_says_is_ignored(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.uplink(term=5)
    share = world.share("web", task())
    world.uplink(term=9)
    world.share("web", task(), removed=True)
    world.close(session, *world.slots())
    assert not world.state.workloads, "closed and forgotten"
    world.uplink(term=5)
    assert _left(world) == 1 and not world.state.uplink
    world.tell(events.ShareArrived(share))
    world.tell(events.TokensTold(regional_pb2.TokenSet(tokens=[objects_pb2.UserToken(id="revoked")])))
    world.tell(events.GlobalListed(regional_pb2.GlobalListed(term=5)))
    assert not world.state.workloads and not world.slots()
    assert not any(isinstance(command, commands.KeepTokens) for command in world.issued)
    world.uplink(term=9)
    world.tell(events.TokensTold(regional_pb2.TokenSet()))
    assert world.state.uplink and isinstance(world.issued[-1], commands.KeepTokens), "its successor is listened to"


def test_the_next_leader_of_the_region_refuses_it_too(world: RegionalWorld) -> None:
    world.uplink(term=9)
    assert _noted(world) == objects_pb2.GlobalReign(store_life=1, term=9)
    world.take_over()
    assert world.state.heard == (1, 9)
    world.uplink(term=5)
    assert _left(world) == 1
    world.uplink(term=9)
    world.uplink(term=11)
    assert _left(world) == 1 and _noted(world).term == 11


def test_a_restored_store_of_a_newer_life_is_listened_to_whatever_its_term(world: RegionalWorld) -> None:
    world.uplink(term=9)
    world.uplink(store_life=2, term=3)
    assert world.state.uplink and _noted(world) == objects_pb2.GlobalReign(store_life=2, term=3)


def test_a_removed_workload_is_forgotten_only_once_the_reign_that_removed_it_is_noted(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task())
    slots = world.slots()
    world.hold = True
    world.uplink(term=9)
    (note,) = world.held
    world.share("web", task(), removed=True)
    world.hold = False
    world.held.clear()
    world.settle(note, lose="before")  # the note is lost: another is sent before anything is forgotten
    world.close(session, *slots)
    writes = [c.plan.operation for c in world.issued if isinstance(c, commands.Commit)]
    assert writes.index("FORGET") > max(i for i, name in enumerate(writes) if name == "NOTE-GLOBAL")
    assert not world.state.workloads and _noted(world).term == 9


def test_an_unknown_removed_workload_is_told_gone_only_once_the_reign_that_removed_it_is_noted() -> None:
    """Once it is told, only the note keeps an older global leader from bringing the workload back."""
    world = RegionalWorld(lanes=2)
    world.win()
    older = world.share("gone", task(), tell=False)
    removed = world.share("gone", task(), removed=True, tell=False)
    removed.global_term = 9
    world.hold = True
    world.uplink(term=9)
    (note,) = world.held
    assert note.plan.operation == "NOTE-GLOBAL"
    world.hold = False
    world.held.clear()
    world.tell_share(removed)
    asked_ms = world.now_ms
    world.advance(10_000)
    assert world.state.applied_sent_ms > asked_ms, "the other lane has proved the term"
    assert not world.reports("gone")
    world.settle(note)
    world.advance(world.settings.report_period_ms)
    assert world.reports("gone")[-1].closed
    world.take_over()
    world.uplink(term=1)
    world.tell_share(older)
    assert not world.state.workloads and not world.state.uplink
    world.check()


def test_where_no_reign_is_noted_that_of_the_shares_counts(
    world: RegionalWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.share("web", task())
    monkeypatch.delitem(takeover._READERS, b"global")  # as if it had never been written
    world.take_over()
    assert world.state.heard == (1, 1) == world.state.noted
