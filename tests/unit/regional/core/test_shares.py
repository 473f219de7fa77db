"""What a smaller share takes away: replicas that wait, then the highest indices."""

from atoll.model.resources import Vector
from regional.core import views
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
    assert (said.task, said.desired, said.ready, said.waiting, said.unplaced) == ("main", 3, 2, 1, 1)
    summary = views.summary(world.state)
    assert summary.free.cpu_milli == 0 and summary.free.memory_mib == 8_192 - 2 * 512
    assert (summary.waiting.cpu_milli, summary.waiting.memory_mib) == (1_000, 512)
