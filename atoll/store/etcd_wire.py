"""etcd's messages to the store's values and back, and what an error means for a write. Pure: sends nothing.

Only etcd.py and etcd_watch.py use it. The rule that matters is `outcome_of_error`: a write whose error is not known,
by code and message, to mean "definitely not applied" is Unknown.
"""

import re
from collections.abc import Iterable

import grpc

from atoll.api.etcd import etcd_pb2
from atoll.store.store import (
    Applied,
    Change,
    Compare,
    Get,
    KeyValue,
    NotSent,
    Operation,
    Outcome,
    Put,
    Refusal,
    Refused,
    Relation,
    Target,
    Txn,
    Unknown,
)

_REFUSALS: tuple[tuple[grpc.StatusCode, str, Refusal], ...] = (
    (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: key is not provided", Refusal.INVALID),
    (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", Refusal.INVALID),
    (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: duplicate key given in txn request", Refusal.INVALID),
    (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", Refusal.INVALID),
    (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", Refusal.TOO_LARGE),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max", Refusal.TOO_LARGE),
    (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Refusal.DENIED),
    (grpc.StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", Refusal.DENIED),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Refusal.BUSY),
    (grpc.StatusCode.UNAVAILABLE, "etcdserver: rpc not supported for learner", Refusal.BUSY),
)
_NOT_CONNECTED = "failed to connect to all addresses"
_COMPACTED = "required revision has been compacted"
_FUTURE = "required revision is a future revision"
_LEASE_NOT_FOUND = "requested lease not found"
_TARGET = {target: etcd_pb2.Compare.CompareTarget.ValueType(target.value) for target in Target}
_MOD, _EQUAL = Target.MOD, Relation.EQUAL
_RESULT = {relation: etcd_pb2.Compare.CompareResult.ValueType(relation.value) for relation in Relation}


def outcome_of_error(code: grpc.StatusCode, message: str) -> Outcome:
    """What a write's error proves. "database space exceeded" shares a code with refusals and proves nothing."""
    if code is grpc.StatusCode.UNAVAILABLE and message.startswith(_NOT_CONNECTED):
        return NotSent(message)
    for refused_code, beginning, refusal in _REFUSALS:
        if code is refused_code and message.startswith(beginning):
            return Refused(refusal, message)
    return Unknown(f"{code.name}: {message}")


def is_compacted(code: grpc.StatusCode, message: str) -> bool:
    return code is grpc.StatusCode.OUT_OF_RANGE and _COMPACTED in message


def is_future(code: grpc.StatusCode, message: str) -> bool:
    return code is grpc.StatusCode.OUT_OF_RANGE and _FUTURE in message


def is_lease_gone(code: grpc.StatusCode, message: str) -> bool:
    return code is grpc.StatusCode.NOT_FOUND and _LEASE_NOT_FOUND in message


def is_refused_for_good(code: grpc.StatusCode, message: str) -> bool:
    """Whether asking another member would give the same no."""
    outcome = outcome_of_error(code, message)
    return isinstance(outcome, Refused) and outcome.refusal is not Refusal.BUSY


def txn_request(txn: Txn) -> etcd_pb2.TxnRequest:
    """Filled in place: a third of the time of constructors with arguments, for hundreds of parts a transaction. Its
    mod_revisions and puts, the many, without a call for each."""
    request = etcd_pb2.TxnRequest()
    add_compare, add_success = request.compare.add, request.success.add
    for compare in txn.compares:
        key, target, relation, operand, range_end = compare
        message = add_compare()
        if target is _MOD and relation is _EQUAL and not range_end and type(operand) is int:
            message.key, message.target, message.mod_revision = key, etcd_pb2.Compare.MOD, operand
        else:
            _fill_compare(message, compare)
    for operation in txn.success:
        if type(operation) is Put and not operation.lease:
            put = add_success().request_put
            put.key, put.value = operation.key, operation.value
        else:
            _fill_operation(add_success(), operation)
    for operation in txn.failure:
        _fill_operation(request.failure.add(), operation)
    return request


def txn_outcome(txn: Txn, response: etcd_pb2.TxnResponse) -> Applied | Refused:
    branch = txn.success if response.succeeded else txn.failure
    if len(branch) != len(response.responses):
        raise ValueError(f"{len(response.responses)} answers to {len(branch)} operations")
    reads = tuple(
        _read(response.responses[i].response_range.kvs) for i, one in enumerate(branch) if isinstance(one, Get)
    )
    if response.succeeded:
        return Applied(response.header.revision, reads)
    return Refused(Refusal.COMPARE, revision=response.header.revision, reads=reads)


def key_value(kv: etcd_pb2.KeyValue) -> KeyValue:
    return KeyValue(kv.key, kv.value, kv.create_revision, kv.mod_revision, kv.version, kv.lease)


def change(event: etcd_pb2.Event) -> Change:
    previous = key_value(event.prev_kv) if event.HasField("prev_kv") else None
    if event.type == etcd_pb2.Event.DELETE:
        return Change(event.kv.key, None, previous)
    return Change(event.kv.key, key_value(event.kv), previous)


def address_of(endpoint: str, *, tls: bool) -> str:
    """host:port of "host:port" or of etcd's URL form. Raises ValueError when the scheme does not fit `tls`."""
    match = re.fullmatch(r"(?:(https?)://)?([^/\s]+:\d+)/?", endpoint)
    if not match:
        raise ValueError(f"etcd endpoint {endpoint!r}: expected host:port or http(s)://host:port")
    if match[1] and (match[1] == "https") != tls:
        raise ValueError(f"etcd endpoint {endpoint!r}: " + ("TLS is configured" if tls else "needs TLS files"))
    return match[2]


def _read(kvs: Iterable[etcd_pb2.KeyValue]) -> KeyValue | None:
    return next((key_value(kv) for kv in kvs), None)


def _fill_compare(message: etcd_pb2.Compare, compare: Compare) -> None:
    message.key = compare.key
    message.result = _RESULT[compare.relation]
    message.target = _TARGET[compare.target]
    if compare.range_end:
        message.range_end = compare.range_end
    if isinstance(compare.operand, bytes):
        message.value = compare.operand
    elif compare.target is Target.MOD:
        message.mod_revision = compare.operand
    elif compare.target is Target.CREATE:
        message.create_revision = compare.operand
    else:
        message.version = compare.operand


def _fill_operation(message: etcd_pb2.RequestOp, operation: Operation) -> None:
    if isinstance(operation, Put):
        put = message.request_put
        put.key = operation.key
        put.value = operation.value
        if operation.lease:
            put.lease = operation.lease
    elif isinstance(operation, Get):
        message.request_range.key = operation.key
    else:
        delete = message.request_delete_range
        delete.key = operation.key
        delete.range_end = operation.range_end
