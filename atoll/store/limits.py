"""What etcd refuses in a transaction for its form alone, decided before anything is sent.

All back ends ask here first, so a malformed transaction has the same definite answer everywhere and never an unknown
one. The size is an upper bound of the encoded request: what passes here fits etcd's limit.
"""

from atoll.store.store import MAX_OPERATIONS, MAX_REQUEST_BYTES, Delete, Operation, Put, Refusal, Refused, Txn

_PART_BYTES = 40  # tags, lengths and integers of one compare or operation, at most
_HEAD_BYTES = 256  # what etcd wraps around the request before it counts


def refusal_of_form(txn: Txn) -> Refused | None:
    """The answer etcd would give, or None when the transaction is well formed."""
    for part in txn:
        if len(part) > MAX_OPERATIONS:
            return Refused(Refusal.INVALID, "too many operations in txn request")
    for part in txn:
        for one in part:
            if not one.key:
                return Refused(Refusal.INVALID, "key is not provided")
    for branch in (txn.success, txn.failure):
        if len(branch) > 1 and _writes_a_key_twice(branch):
            return Refused(Refusal.INVALID, "duplicate key given in txn request")
    if size_bound(txn) > MAX_REQUEST_BYTES:
        return Refused(Refusal.TOO_LARGE, "request is too large")
    return None


def size_bound(txn: Txn) -> int:
    """At least as many bytes as etcd counts."""
    size = _HEAD_BYTES + _PART_BYTES * (len(txn.compares) + len(txn.success) + len(txn.failure))
    for compare in txn.compares:
        size += len(compare.key) + len(compare.range_end)
        if type(compare.operand) is bytes:
            size += len(compare.operand)
    for branch in (txn.success, txn.failure):
        for operation in branch:
            size += len(operation.key)
            if type(operation) is Put:
                size += len(operation.value)
            elif type(operation) is Delete:
                size += len(operation.range_end)
    return size


def _writes_a_key_twice(branch: tuple[Operation, ...]) -> bool:
    """Whether a key is put twice, or put and deleted; deleting twice is allowed."""
    keys = [operation.key for operation in branch if type(operation) is Put]
    if len(set(keys)) != len(keys):
        return True
    if not keys or len(keys) == len(branch):
        return False
    deletes = [operation for operation in branch if type(operation) is Delete]
    return any(within(key, delete.key, delete.range_end) for delete in deletes for key in keys)


def within(key: bytes, start: bytes, end: bytes) -> bool:
    """Whether `key` is in [start, end) as etcd reads it: no end means the one key, `\\x00` means no upper bound."""
    if not end:
        return key == start
    return start <= key and (key < end or end == b"\x00")
