"""What a smaller share takes away: replicas that wait, then the highest indices; and what no list names any more."""

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from regional.core import events, views
from regional.core.node_changes import CORDON
from tests.support.regional_world import RegionalWorld, task


def _bound(world: RegionalWorld) -> list[int]:
    return [slot.id.index for slot in world.slots()]


def _all(world: RegionalWorld) -> list[int]:
    return [view.slot.id.index for view in views.list_slots(world.state, "acme", "web")]


def _with_one_waiting(world: RegionalWorld) -> tuple[int, int]:
    """Four replicas; the one with index 0 or 1 has lost its node, and there is no room for it."""
    first = world.join("n1", capacity=Vector(2_000, 8_192))
    second = world.join("n2", capacity=Vector(2_000, 8_192))
    world.share("web", task(replicas=4))
    world.run(first, [slot for slot in world.slots() if slot.node == "n1"])
    world.run(second, [slot for slot in world.slots() if slot.node == "n2"])
    world.advance(20_000, beating=[second])
    return first, second


def test_a_smaller_share_takes_those_without_a_node_first(world: RegionalWorld) -> None:
    _, second = _with_one_waiting(world)
    left = _bound(world)
    assert len(left) == 2
    world.share("web", task(replicas=2), generation=2)
    world.advance(1_000, beating=[second])
    assert _bound(world) == left and _all(world) == left, "nothing that runs was stopped"
    assert not world.messages(second, "stop")
    world.share("web", task(replicas=1), generation=3)
    assert [stop.slot.index for stop in world.messages(second, "stop")] == [left[1]], "then the highest index"


def test_the_choice_is_the_same_after_a_takeover(world: RegionalWorld) -> None:
    _with_one_waiting(world)
    left = _bound(world)
    world.share("web", task(replicas=2), generation=2)
    world.take_over()
    assert _bound(world) == left
    assert [view.slot.id.index for view in views.list_slots(world.state, "acme", "web")] == left


def test_a_larger_share_fills_the_lowest_free_indices(world: RegionalWorld) -> None:
    _, second = _with_one_waiting(world)
    world.share("web", task(replicas=2), generation=2)
    world.advance(1_000, beating=[second])
    world.join("n3", capacity=Vector(9_000, 8_192))
    world.share("web", task(replicas=5), generation=3)
    assert _bound(world) == [0, 1, 2, 3, 4]


def test_reports_tell_of_each_task_what_runs_and_what_found_no_room(world: RegionalWorld) -> None:
    world.uplink()
    session = world.join("n1", capacity=Vector(2_000, 8_192))
    world.share("web", task(replicas=3))
    world.run(session, world.slots())
    world.advance(1_500, beating=[session])
    (said,) = world.reports("web")[-1].tasks
    assert (said.task, said.desired, said.healthy, said.waiting, said.unplaced) == ("main", 3, 2, 1, 1)
    summary = views.summary(world.state)
    assert summary.free.cpu_milli == 0 and summary.free.memory_mib == 8_192 - 2 * 512
    assert (summary.waiting.cpu_milli, summary.waiting.memory_mib) == (1_000, 512)


def _listed(world: RegionalWorld, *shares: objects_pb2.Share, store_life: int = 1, revision: int = 100) -> None:
    """Another leader of the global plane, of term 2, says what there is."""
    world.uplink(store_life=store_life, term=2)
    for share in shares:
        world.tell(events.ShareArrived(share))
    listed = regional_pb2.GlobalListed(store_life=store_life, term=2, revision=revision)
    world.tell(events.GlobalListed(listed))


def test_a_removed_workload_that_a_deposed_global_leader_brought_back_goes_again(world: RegionalWorld) -> None:
    session = world.join("n1")
    share = world.share("web", task())
    world.share("web", task(), removed=True)
    world.close(session, *world.slots())
    assert not world.state.workloads, "closed and forgotten"
    world.tell(events.ShareArrived(share))
    (slot,) = world.slots()
    _listed(world)
    world.close(session, slot)
    assert not world.slots() and not world.state.workloads
    world.tell(events.ShareArrived(share))
    _listed(world, revision=101)
    world.close(session, *world.slots())
    assert not world.slots(), "as often as it comes"


@pytest.mark.parametrize("why", ["named", "newer than the list", "of another life of the store"])
def test_a_list_takes_nothing_else_away(world: RegionalWorld, why: str) -> None:
    world.join("n1")
    share = world.share("web", task())
    match why:
        case "named":
            _listed(world, share)
        case "newer than the list":
            world.uplink()
            world.tell(events.GlobalListed(regional_pb2.GlobalListed(store_life=1, term=1, revision=0)))
        case _:
            _listed(world, store_life=2)
    assert not world.state.workloads["acme", "web"].share.removed
    assert len(world.slots()) == 1


def test_a_list_that_breaks_off_takes_nothing_away(world: RegionalWorld) -> None:
    world.join("n1")
    share = world.share("web", task())
    world.uplink()  # and the stream breaks
    _listed(world, share)
    assert not world.state.workloads["acme", "web"].share.removed


def _by_policy(world: RegionalWorld, revision: int, score: str, replicas: int, generation: int = 1) -> None:
    share = world.share("web", task(replicas=replicas), generation=generation, tell=False)
    share.policy_revision = revision
    share.strategies.add(name="bin-pack", weights=[objects_pb2.ScoreWeight(score=score, weight=1)])
    world.tell_share(share)


def test_another_policy_changes_later_decisions_and_nothing_that_runs_or_starts(world: RegionalWorld) -> None:
    first, second = world.join("n1"), world.join("n2")
    _by_policy(world, 1, "fullness", 2)
    before = world.slots()
    assert [slot.node for slot in before] == ["n1", "n1"]
    world.run(first, before[:1])  # the other one is starting
    _by_policy(world, 2, "emptiness", 2)
    _by_policy(world, 1, "fullness", 2)
    _by_policy(world, 2, "emptiness", 2)
    assert world.slots() == before
    assert not [message for session in (first, second) for message in world.messages(session, "stop")]
    _by_policy(world, 2, "emptiness", 3, generation=2)
    assert [slot.node for slot in world.slots()] == ["n1", "n1", "n2"]
    assert [decision.policy_revision for decision in world.decisions()] == [1, 2]
    world.take_over()
    _by_policy(world, 2, "emptiness", 4, generation=3)
    assert world.slots()[-1].node == "n2", "the next leader decides by the same"


def test_what_waits_keeps_its_place_under_another_policy(world: RegionalWorld) -> None:
    world.join("n1", capacity=Vector(1_000, 8_192))
    _by_policy(world, 1, "fullness", 2)
    waiting = world.state.workloads["acme", "web"].tasks["main"].cls
    world.advance(60_000)
    _by_policy(world, 2, "emptiness", 2)
    anew = world.state.workloads["acme", "web"].tasks["main"].cls
    assert waiting is not None and anew is not None
    assert anew is not waiting and anew.queued_ms == waiting.queued_ms


def test_what_ran_and_waits_keeps_its_place_too(world: RegionalWorld) -> None:
    session = world.join("n1")
    _by_policy(world, 1, "fullness", 1)
    world.run(session, slots := world.slots())
    world.change_node("n1", duty=CORDON)
    world.close(session, *slots, reason="Failed", code=1)
    world.advance(60_000, beating=[session])
    waiting = world.state.workloads["acme", "web"].tasks["main"].cls
    _by_policy(world, 2, "emptiness", 1)
    anew = world.state.workloads["acme", "web"].tasks["main"].cls
    assert waiting is not None and anew is not None and anew.size == 1
    assert anew is not waiting and anew.queued_ms == waiting.queued_ms < world.now_ms
