"""Joining fragments and reconnects into whole revisions, each once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.api.etcd import etcd_pb2
from atoll.store.etcd_watch import Assembler, orders_requested_progress
from atoll.store.store import Batch


def event(revision: int, key: bytes = b"/a") -> etcd_pb2.Event:
    return etcd_pb2.Event(kv=etcd_pb2.KeyValue(key=key, mod_revision=revision, create_revision=revision, version=1))


def shapes(batches: list[Batch]) -> list[tuple[int, list[bytes]]]:
    return [(batch.revision, [change.key for change in batch.changes]) for batch in batches]


def test_a_whole_response_holds_whole_revisions() -> None:
    assembler = Assembler(5)
    batches = assembler.feed([event(5, b"/a"), event(5, b"/b"), event(7)], fragment=False)
    assert shapes(batches) == [(5, [b"/a", b"/b"]), (7, [b"/a"])]
    assert assembler.following == 8


def test_the_newest_revision_of_a_fragment_waits_for_the_rest() -> None:
    assembler = Assembler(5)
    assert shapes(assembler.feed([event(5), event(6, b"/a")], fragment=True)) == [(5, [b"/a"])]
    assert assembler.feed([event(6, b"/b")], fragment=True) == []
    assert shapes(assembler.feed([event(6, b"/c")], fragment=False)) == [(6, [b"/a", b"/b", b"/c"])]


def test_what_a_lost_stream_had_begun_comes_again() -> None:
    assembler = Assembler(5)
    assembler.feed([event(5, b"/a")], fragment=True)
    assembler.drop_incomplete()
    assert assembler.following == 5
    assert shapes(assembler.feed([event(5, b"/a"), event(5, b"/b")], fragment=False)) == [(5, [b"/a", b"/b"])]


def test_what_was_delivered_is_dropped() -> None:
    assembler = Assembler(5)
    assembler.feed([event(5), event(6)], fragment=False)
    assert shapes(assembler.feed([event(4), event(6), event(7)], fragment=False)) == [(7, [b"/a"])]
    assert assembler.feed([event(6)], fragment=False) == []


@given(st.data())
def test_any_cut_into_fragments_gives_the_same_batches(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=8))
    events = [event(10 + i, b"/%d" % n) for i, size in enumerate(sizes) for n in range(size)]
    cuts = sorted(data.draw(st.sets(st.integers(1, len(events) - 1))) if len(events) > 1 else [])
    assembler, batches = Assembler(10), []
    for start, end in zip([0, *cuts], [*cuts, len(events)], strict=True):
        batches += assembler.feed(events[start:end], fragment=end < len(events))
    assert shapes(batches) == shapes(Assembler(10).feed(events, fragment=False))


@pytest.mark.parametrize(
    ("version", "ordered"),
    [
        ("3.4.23", False),
        ("3.4.24", False),
        ("3.4.25", True),
        ("3.4.42", True),
        ("3.5.7", False),
        ("3.5.8", True),
        ("3.6.0", True),
        ("", False),
    ],
)
def test_old_members_answer_progress_requests_out_of_order(version: str, ordered: bool) -> None:
    assert orders_requested_progress(version) is ordered
