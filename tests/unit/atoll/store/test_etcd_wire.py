"""What an error proves about a write. One wrong line here is a lost or doubled workload."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.api.etcd import etcd_pb2
from atoll.store.etcd_wire import address_of, outcome_of_error, txn_outcome, txn_request
from atoll.store.store import (
    Applied,
    Compare,
    Delete,
    Get,
    KeyValue,
    NotSent,
    Operation,
    Put,
    Refusal,
    Refused,
    Relation,
    Target,
    Txn,
    Unknown,
    mod_is,
)

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "message", "refusal"),
    [
        (Code.INVALID_ARGUMENT, "etcdserver: key is not provided", Refusal.INVALID),
        (Code.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", Refusal.INVALID),
        (Code.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", Refusal.INVALID),
        (Code.NOT_FOUND, "etcdserver: requested lease not found", Refusal.INVALID),
        (Code.INVALID_ARGUMENT, "etcdserver: request is too large", Refusal.TOO_LARGE),
        (Code.RESOURCE_EXHAUSTED, "grpc: received message larger than max (3 vs. 2)", Refusal.TOO_LARGE),
        (Code.PERMISSION_DENIED, "etcdserver: permission denied", Refusal.DENIED),
        (Code.UNAUTHENTICATED, "etcdserver: invalid auth token", Refusal.DENIED),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Refusal.BUSY),
        (Code.UNAVAILABLE, "etcdserver: rpc not supported for learner", Refusal.BUSY),
    ],
)
def test_definite_refusals(code: grpc.StatusCode, message: str, refusal: Refusal) -> None:
    assert outcome_of_error(code, message) == Refused(refusal, message)


def test_only_a_failed_connection_was_not_sent() -> None:
    message = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"
    assert outcome_of_error(Code.UNAVAILABLE, message) == NotSent(message)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        (Code.UNAVAILABLE, "etcdserver: request timed out"),
        (Code.UNAVAILABLE, "etcdserver: request timed out, possibly due to previous leader failure"),
        (Code.UNAVAILABLE, "etcdserver: leader changed"),
        (Code.UNAVAILABLE, "etcdserver: server stopped"),
        (Code.UNAVAILABLE, "etcdserver: no leader"),
        (Code.UNAVAILABLE, "Socket closed"),
        (Code.UNAVAILABLE, "recvmsg:Connection reset by peer"),
        (Code.UNAVAILABLE, "Stream removed"),
        (Code.UNAVAILABLE, ""),
        (Code.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded"),
        (Code.CANCELLED, "Locally cancelled by application!"),
        (Code.INTERNAL, "etcdserver: too many requests"),
        (Code.UNKNOWN, "etcdserver: request is too large"),
        (Code.DEADLINE_EXCEEDED, "failed to connect to all addresses"),
        (Code.DATA_LOSS, "etcdserver: corrupt cluster"),
        (Code.INVALID_ARGUMENT, "something new"),
    ],
)
def test_everything_else_is_unknown(code: grpc.StatusCode, message: str) -> None:
    assert isinstance(outcome_of_error(code, message), Unknown)


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_a_code_alone_proves_nothing(code: grpc.StatusCode) -> None:
    assert isinstance(outcome_of_error(code, ""), Unknown)


def test_endpoints_are_addresses_or_urls() -> None:
    assert address_of("127.0.0.1:2379", tls=False) == address_of("http://127.0.0.1:2379/", tls=False)
    assert address_of("https://etcd-0.example:2379", tls=True) == "etcd-0.example:2379"
    assert address_of("etcd-0:2379", tls=True) == "etcd-0:2379"


@pytest.mark.parametrize(
    ("endpoint", "tls"),
    [("http://a:1", True), ("https://a:1", False), ("a", False), ("ftp://a:1", False), ("", False), ("a:b", False)],
)
def test_malformed_endpoints(endpoint: str, tls: bool) -> None:
    with pytest.raises(ValueError, match="etcd endpoint"):
        address_of(endpoint, tls=tls)


_KEYS = st.binary(min_size=1, max_size=20) | st.integers(100, 70_000).map(lambda size: b"k" * size)
_REVISIONS = st.integers(0, 300) | st.integers(0, 2**63 - 1)
_COMPARES = (
    st.builds(mod_is, _KEYS, _REVISIONS)
    | st.builds(
        Compare,
        _KEYS,
        st.sampled_from([Target.VERSION, Target.CREATE, Target.MOD]),
        st.sampled_from(Relation),
        _REVISIONS,
        st.sampled_from([b"", b"z"]),
    )
    | st.builds(Compare, _KEYS, st.just(Target.VALUE), st.sampled_from(Relation), st.binary(max_size=5))
)
_OPERATIONS = (
    st.builds(Put, _KEYS, st.just(b"") | _KEYS, st.sampled_from([0, 7]))
    | st.builds(Delete, _KEYS, st.sampled_from([b"", b"z"]))
    | st.builds(Get, _KEYS)
)
_BRANCHES = st.lists(_OPERATIONS, max_size=4).map(tuple)


def _compare_in(message: etcd_pb2.Compare) -> Compare:
    union = message.WhichOneof("target_union")
    assert union == Target(message.target).name.lower() + ("_revision" if message.target in (1, 2) else "")
    operand = getattr(message, union)
    return Compare(message.key, Target(message.target), Relation(message.result), operand, message.range_end)


def _operation_in(message: etcd_pb2.RequestOp) -> Operation:
    match message.WhichOneof("request"):
        case "request_put":
            return Put(message.request_put.key, message.request_put.value, message.request_put.lease)
        case "request_range":
            return Get(message.request_range.key)
        case _:
            return Delete(message.request_delete_range.key, message.request_delete_range.range_end)


@given(st.lists(_COMPARES, max_size=4).map(tuple), _BRANCHES, _BRANCHES)
def test_a_transaction_reads_back_as_it_was(
    compares: tuple[Compare, ...], success: tuple[Operation, ...], failure: tuple[Operation, ...]
) -> None:
    request = txn_request(Txn(compares, success, failure))
    assert tuple(map(_compare_in, request.compare)) == compares
    for sent, read in ((success, request.success), (failure, request.failure)):
        read_back = tuple(map(_operation_in, read))
        assert [(type(op), op) for op in read_back] == [(type(op), op) for op in sent]


def test_reads_are_told_in_the_order_of_the_gets() -> None:
    response = etcd_pb2.TxnResponse(succeeded=True, header=etcd_pb2.ResponseHeader(revision=7))
    response.responses.add().response_put.SetInParent()
    response.responses.add().response_range.kvs.add(key=b"a", value=b"v", mod_revision=3)
    response.responses.add().response_range.SetInParent()
    txn = Txn(success=(Put(b"p", b""), Get(b"a"), Get(b"b")))
    assert txn_outcome(txn, response) == Applied(7, (KeyValue(b"a", b"v", 0, 3, 0, 0), None))
    with pytest.raises(ValueError, match="3 answers to 1 operations"):
        txn_outcome(Txn(success=(Put(b"p", b""),)), response)
