"""The size that is counted before sending is never below the real one. The refusals are in the store contract."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.store import limits
from atoll.store.etcd_wire import txn_request
from atoll.store.limits import refusal_of_form, within
from atoll.store.store import Compare, Delete, Get, Operation, Put, Relation, Target, Txn

names = st.binary(min_size=1, max_size=300)
compares = st.one_of(
    st.builds(Compare, names, st.just(Target.MOD), st.sampled_from(Relation), st.integers(0, 2**63 - 1), names),
    st.builds(Compare, names, st.just(Target.VALUE), st.sampled_from(Relation), names),
)
puts = st.builds(Put, names, st.binary(max_size=20_000), st.integers(-(2**63), 2**63 - 1))
operations = st.lists(st.one_of(puts, st.builds(Get, names), st.builds(Delete, names, names)), max_size=5).map(tuple)


@given(st.lists(compares, max_size=5).map(tuple), operations, operations)
def test_the_counted_size_is_an_upper_bound(
    compared: tuple[Compare, ...], success: tuple[Operation, ...], failure: tuple[Operation, ...]
) -> None:
    txn = Txn(compared, success, failure)
    assert limits.size_bound(txn) >= txn_request(txn).ByteSize() + 64


def test_an_empty_transaction_is_well_formed() -> None:
    assert refusal_of_form(Txn()) is None


def test_ranges_as_etcd_reads_them() -> None:
    assert within(b"a", b"a", b"") and not within(b"ab", b"a", b"")
    assert within(b"ab", b"a", b"b") and not within(b"b", b"a", b"b")
    assert within(b"\xff\xff", b"a", b"\x00") and not within(b"A", b"a", b"\x00")
