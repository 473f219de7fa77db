"""Fences, the brake and our own downtime, on virtual time."""

import numpy as np

from atoll.api.v1 import objects_pb2
from regional.core import events
from regional.core.liveness import Liveness, surely_stopped_ms
from tests.support.regional_world import RegionalWorld, task

READY, LOST = objects_pb2.NODE_STATE_READY, objects_pb2.NODE_STATE_LOST
LOST_AFTER_MS = 16_000  # 5 heartbeats of 3 s, and a check


def test_a_shorter_fence_counts_only_once_the_agent_has_said_so(world: RegionalWorld) -> None:
    """Its Welcome may be lost: until the agent says hello again it may count by the longer one it had."""
    world.join("n1", fence_after_ms=40_000)
    world.share("db", task(), run_class=objects_pb2.RUN_CLASS_EXCLUSIVE)
    long_ms = surely_stopped_ms(world.settings, 40_000)
    assert world.node("n1").fence_after_ms == 40_000
    other = world.join("n2")
    world.advance(long_ms, beating=[other])
    assert [s.node for s in world.slots()] == ["n1"]
    world.advance(1_000, beating=[other])
    assert [s.node for s in world.slots()] == ["n2"]


def test_after_a_takeover_the_longest_recorded_fence_counts(world: RegionalWorld) -> None:
    world.join("n1", fence_after_ms=40_000)
    world.share("db", task(), run_class=objects_pb2.RUN_CLASS_EXCLUSIVE)
    world.take_over()
    world.join("n1", fence_after_ms=12_000)  # as it was said before the old leader's longer Welcome, perhaps
    assert world.node("n1").fence_after_ms == 40_000
    term = world.state.authority.term
    session = world.join("n1", fence_after_ms=12_000, highest_term=term)
    assert world.node("n1").fence_after_ms == 12_000
    other = world.join("n2")
    world.tell(events.NodeHeartbeat(session, 1))
    world.advance(surely_stopped_ms(world.settings, 12_000) + 1_000, beating=[other])
    assert [s.node for s in world.slots()] == ["n2"]


def test_when_most_of_a_zone_falls_silent_its_keep_work_stays(world: RegionalWorld) -> None:
    others = [world.join(f"a{i}", labels={"zone": "a"}) for i in range(25)]
    in_zone = [world.join(f"b{i}", labels={"zone": "b"}) for i in range(5)]
    world.advance(120_000, beating=[*others, *in_zone[3:]])
    assert {world.node(f"b{i}").state for i in range(3)} == {READY}, "3 of 5 are the zone's trouble, 3 of 30 none"
    back = world.join("b0", labels={"zone": "b"})
    world.advance(20_000, beating=[*others, *in_zone[3:], back])
    assert [world.node(f"b{i}").state for i in (1, 2)] == [LOST, LOST]


def test_nobody_is_lost_while_the_region_is_behind(world: RegionalWorld) -> None:
    world.join("n1")
    for _ in range(10):
        world.advance(LOST_AFTER_MS - 2_000)
        world.tell(events.FellBehind())
    assert world.node("n1").state == READY
    world.advance(LOST_AFTER_MS)
    assert world.node("n1").state == LOST


def test_nobody_is_silent_before_the_first_is_due_and_somebody_is_then() -> None:
    now_ms = 1_000_000
    live = Liveness(now_ms)
    live.cover(4)
    live.heard_ms[:4] = [now_ms - 5_000, now_ms + 400, now_ms + 700, now_ms]
    live.heartbeat_ms[:4] = [3_000, 2_000, 1_000, 0]
    for heartbeats in (3, 5):
        due_ms = live.next_silence_ms(np.full(len(live.heard_ms), heartbeats))
        assert not live.longer_than(heartbeats, due_ms - 1).any()
        assert live.longer_than(heartbeats, due_ms).tolist()[:4] == [False, False, True, False]
