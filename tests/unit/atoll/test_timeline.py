from prometheus_client import REGISTRY, Counter

from atoll.api.v1 import objects_pb2
from atoll.timeline import Timeline

EVENTS = Counter("test_timeline_events", "Events of this test, by type.", ["type"])


def filled(count: int, limit: int = 100) -> Timeline:
    timeline = Timeline(limit, EVENTS)
    for i in range(1, count + 1):
        timeline.announce(objects_pb2.Event(type=f"e{i}", tenant="odd" if i % 2 else "even"))
    return timeline


def seqs(events: list[objects_pb2.Event]) -> list[int]:
    return [event.seq for event in events]


def test_events_are_numbered_in_order_and_the_oldest_fall_out() -> None:
    events = filled(10, limit=4).select(lambda _: True, after_seq=0, limit=100)
    assert [(e.seq, e.type) for e in events] == [(7, "e7"), (8, "e8"), (9, "e9"), (10, "e10")]


def test_without_a_start_the_newest_wanted_ones_oldest_first() -> None:
    assert seqs(filled(10).select(lambda e: e.tenant == "odd", after_seq=0, limit=3)) == [5, 7, 9]


def test_with_a_start_the_first_wanted_ones_after_it() -> None:
    assert seqs(filled(10).select(lambda e: e.tenant == "odd", after_seq=3, limit=2)) == [5, 7]


def test_an_announced_event_is_never_changed() -> None:
    timeline, event = Timeline(10, EVENTS), objects_pb2.Event(type="Bound")
    timeline.announce(event)
    (shown,) = timeline.select(lambda _: True, after_seq=0, limit=1)
    assert shown.seq == 1
    assert event == objects_pb2.Event(type="Bound")


def test_who_follows_hears_a_later_leader_too() -> None:
    first, second = Timeline(10, EVENTS), Timeline(10, EVENTS)
    for at_ms in (1_000, 1_000, 1_001):
        first.announce(objects_pb2.Event(type="Bound", at_ms=at_ms))
    heard = seqs(first.select(lambda _: True, after_seq=0, limit=10))
    assert heard == [1_000, 1_001, 1_002]
    second.announce(objects_pb2.Event(type="Bound", at_ms=2_000))
    assert seqs(second.select(lambda _: True, after_seq=heard[-1], limit=10)) == [2_000]


def test_what_is_repeated_fast_is_told_once_a_period_with_its_count() -> None:
    timeline = filled(1)
    for at_ms in (*range(1_000, 11_000, 100), 61_000, 61_100):
        timeline.announce(objects_pb2.Event(type="NodeRefused", object="node/n1", message="forged", at_ms=at_ms))
    timeline.announce(objects_pb2.Event(type="NodeRefused", object="node/n2", message="forged", at_ms=61_200))
    refused = timeline.select(lambda e: e.type == "NodeRefused", after_seq=0, limit=100)
    assert [(e.object, e.at_ms, e.message) for e in refused] == [
        ("node/n1", 1_000, "forged"),
        ("node/n1", 61_000, "forged (99 more times since)"),
        ("node/n2", 61_200, "forged"),
    ]


def test_the_memory_of_what_is_repeated_is_bounded() -> None:
    timeline = Timeline(10, EVENTS)
    for i in range(20_000):
        timeline.announce(objects_pb2.Event(type="NodeForged", object=f"node/n{i}", at_ms=i))
    assert len(timeline.select(lambda _: True, after_seq=0, limit=100)) == 10
    assert len(timeline._told) <= 10_000


def test_the_metrics_count_events_by_type() -> None:
    count = lambda: REGISTRY.get_sample_value("test_timeline_events_total", {"type": "Preempted"}) or 0.0  # noqa: E731
    before, timeline = count(), Timeline(10, EVENTS)
    for _ in range(3):
        timeline.announce(objects_pb2.Event(type="Preempted"))
    assert count() - before == 3
