"""What the memory store has beyond the store contract: explicit time, listeners, no aliasing. The contract suite and
the comparison with a real etcd hold its semantics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.store.memory_state import MIN_LEASE_TTL_S, MemoryState
from atoll.store.store import Applied, Batch, Delete, LeaseGone, Put, Refused, Txn, prefix_end


def put(state: MemoryState, key: bytes, lease: int = 0) -> int:
    outcome = state.transact(Txn(success=(Put(key, b"v", lease),)))
    assert isinstance(outcome, Applied)
    return outcome.revision


def test_time_is_an_argument() -> None:
    state = MemoryState()
    assert state.next_expiry_ms() is None
    short, long = state.grant(1, now_ms=1_000), state.grant(60, now_ms=1_000)
    assert (short.ttl_s, long.ttl_s) == (MIN_LEASE_TTL_S, 60)
    put(state, b"/a", short.id)
    put(state, b"/b", long.id)
    assert state.next_expiry_ms() == 3_000
    state.expire(2_999)
    assert state.get(b"/a") is not None
    state.expire(3_000)
    assert state.get(b"/a") is None and state.get(b"/b") is not None
    with pytest.raises(LeaseGone):
        state.keep_alive(short.id, now_ms=3_000)


def test_a_keep_alive_counts_from_when_it_came() -> None:
    state = MemoryState()
    lease = state.grant(10, now_ms=0)
    assert state.keep_alive(lease.id, now_ms=9_000) == 10
    assert state.next_expiry_ms() == 19_000


def test_leases_expire_each_at_a_revision_of_its_own_in_order() -> None:
    state = MemoryState()
    later, sooner = state.grant(20, now_ms=0), state.grant(10, now_ms=0)
    put(state, b"/later", later.id)
    last = put(state, b"/sooner", sooner.id)
    state.expire(30_000)
    assert [batch.changes[0].key for batch in state.batches(b"/", last + 1)] == [b"/sooner", b"/later"]


def test_an_expired_lease_without_keys_makes_no_revision() -> None:
    state = MemoryState()
    state.grant(10, now_ms=0)
    state.expire(10_000)
    assert state.revision == 1


def test_listeners_hear_of_each_revision_until_they_leave() -> None:
    state = MemoryState()
    heard: list[int] = []
    leave = state.listen(lambda batch: heard.append(batch.revision))
    put(state, b"/a")
    state.transact(Txn(success=(Delete(b"/nobody"),)))
    state.transact(Txn(success=(Delete(b"/a"),)))
    leave()
    put(state, b"/a")
    assert heard == [2, 3]


def test_a_refused_transaction_leaves_no_trace() -> None:
    state = MemoryState()
    outcome = state.transact(Txn(success=(Put(b"/a", b""), Put(b"/b", b"", lease=9))))
    assert isinstance(outcome, Refused)
    assert (state.revision, state.get(b"/a"), list(state.batches(b"/", 1))) == (1, None, [])


def test_what_a_watch_gave_does_not_change_afterwards() -> None:
    state = MemoryState()
    put(state, b"/a")
    batches = state.batches(b"/", 1)
    first = next(batches)
    state.transact(Txn(success=(Delete(b"/a"),)))
    assert first == Batch(2, first.changes) and list(batches) == []


writes = st.lists(
    st.one_of(
        st.builds(Put, st.sampled_from([b"/a", b"/b", b"/b/1", b"/c"]), st.binary(max_size=2)),
        st.builds(Delete, st.sampled_from([b"/a", b"/b", b"/c"]), st.sampled_from([b"", b"/c", b"\x00"])),
    ),
    max_size=40,
)


@given(writes, st.integers(0, 40))
def test_every_kept_revision_reads_as_it_was(program: list[Put | Delete], compact_at: int) -> None:
    state, states = MemoryState(), {}
    for n, write in enumerate(program):
        state.transact(Txn(success=(write,)))
        states[state.revision] = state.range(b"/", prefix_end(b"/")).items
        if n == compact_at and state.revision > state.compacted:
            state.compact(state.revision)
    for revision in (revision for revision in states if revision >= state.compacted):
        assert state.range(b"/", prefix_end(b"/"), revision=revision).items == states[revision]
