"""What an error proves about a write. One wrong line here is a lost or doubled workload."""

import grpc
import pytest

from atoll.store.etcd_wire import address_of, outcome_of_error
from atoll.store.store import NotSent, Refusal, Refused, Unknown

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
