"""Watches read from one ring: in order, each event once, resumable until it is gone."""

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Expired, Unavailable
from global_cp.core.records import Records
from global_cp.watches import WatchRing


class _Stream:
    """A ring whose revisions a test decides."""

    def __init__(self, size: int = 4, progress_s: float = 60.0) -> None:
        self.records = Records()
        self.records.revision = 10
        self.ring = WatchRing(self.records, lambda: self.records.revision, size=size, progress_s=progress_s)

    def publish(self, name: str, tenant: str = "acme") -> int:
        self.records.revision += 1
        metadata = objects_pb2.Metadata(name=name, tenant=tenant)
        event = global_pb2.WorkloadEvent(
            type=global_pb2.EVENT_TYPE_CHANGED,
            workload=objects_pb2.Workload(metadata=metadata),
            revision=self.records.revision,
        )
        self.ring.publish(event)
        return self.records.revision


async def test_a_watch_resumes_after_the_revision_it_saw() -> None:
    stream = _Stream()
    first, second, third = (stream.publish(name) for name in "abc")
    events = stream.ring.follow("", first)
    assert [(await anext(events)).revision for _ in range(2)] == [second, third]
    stream.publish("d")
    assert (await anext(events)).workload.metadata.name == "d"


async def test_what_has_left_the_ring_is_expired() -> None:
    stream = _Stream(size=2)
    revisions = [stream.publish(name) for name in "abcd"]
    with pytest.raises(Expired):
        await anext(stream.ring.follow("", revisions[0]))
    assert (await anext(stream.ring.follow("", revisions[1]))).workload.metadata.name == "c"
    with pytest.raises(Expired):
        await anext(stream.ring.follow("", 9))  # before this leader's list
    with pytest.raises(Expired):
        await anext(stream.ring.follow("", 1_000))  # of another store


async def test_a_watcher_that_lags_too_far_is_told_and_not_skipped_over() -> None:
    stream = _Stream(size=2)
    events = stream.ring.follow("", stream.publish("a"))
    stream.publish("b")
    assert (await anext(events)).workload.metadata.name == "b"
    for name in "cdef":
        stream.publish(name)
    with pytest.raises(Expired):
        await anext(events)


async def test_a_watcher_sees_its_tenant_only_and_progress_when_idle() -> None:
    stream = _Stream(progress_s=0.01)
    events = stream.ring.follow("acme", 10)
    stream.publish("secret", tenant="other")
    mine = stream.publish("mine")
    assert (await anext(events)).revision == mine
    idle = await anext(events)
    assert idle.type == global_pb2.EVENT_TYPE_PROGRESS and idle.revision == mine


async def test_watchers_are_sent_away_when_the_reign_ends() -> None:
    stream = _Stream()
    events = stream.ring.follow("", 10)
    stream.ring.end()
    with pytest.raises(Unavailable):
        await anext(events)
