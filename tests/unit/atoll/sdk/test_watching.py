"""Resuming a watch: whatever breaks and wherever, each change comes once and in order."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.sdk.watching import ResumePoint

CHANGED, PROGRESS, EXISTS = global_pb2.EVENT_TYPE_CHANGED, global_pb2.EVENT_TYPE_PROGRESS, global_pb2.EVENT_TYPE_EXISTS


def event(kind: global_pb2.EventType.ValueType, revision: int, name: str = "") -> global_pb2.WorkloadEvent:
    workload = objects_pb2.Workload(metadata=objects_pb2.Metadata(name=name))
    return global_pb2.WorkloadEvent(type=kind, revision=revision, workload=workload)


@given(
    counts=st.lists(st.integers(0, 3), max_size=12),  # changes at each revision
    idle=st.sets(st.integers(1, 12)),  # revisions after which the server reports progress
    breaks=st.lists(st.integers(1, 6), max_size=8),  # events until each connection breaks
)
def test_each_change_once_and_in_order(counts: list[int], idle: set[int], breaks: list[int]) -> None:
    history = [
        event(kind, revision, str(number))
        for revision, count in enumerate(counts, 1)
        for kind, number in [*((CHANGED, n) for n in range(count)), *([(PROGRESS, 0)] if revision in idle else [])]
    ]
    point = ResumePoint(0)
    seen = []
    for length in [*breaks, len(history)]:
        rest = [e for e in history if e.revision > point.revision]
        seen += [e for e in rest[:length] if point.is_new(e) and e.type == CHANGED]
    assert seen == [e for e in history if e.type == CHANGED]


def test_a_list_that_broke_is_listed_again() -> None:
    point = ResumePoint(0)
    assert point.is_new(event(EXISTS, 7, "a"))
    assert point.revision == 0
    assert point.is_new(event(PROGRESS, 7))
    assert point.revision == 7
