"""An etcd in memory, synchronous and pure: the same answers as a real one, without I/O, threads or a clock.

Decides what etcd 3.4 would answer: revisions, transactions, ranges, leases, history, compaction, limits. Time is an
argument. Keeps these invariants: a transaction that changes something makes exactly one revision, one that does not
makes none; `_log` holds one batch for each revision after `compacted`, so any kept revision can be rebuilt by undoing.
The simulator runs on it as it is; memory.py gives it the Store protocol. Left out: NOSPACE, authentication.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator

from atoll.store.limits import refusal_of_form, within
from atoll.store.store import (
    Applied,
    Batch,
    Change,
    Compacted,
    Compare,
    Delete,
    Get,
    KeyValue,
    Lease,
    LeaseGone,
    Operation,
    Put,
    Read,
    Refusal,
    Refused,
    Relation,
    StoreError,
    Target,
    Txn,
    prefix_end,
)

MIN_LEASE_TTL_S = 2  # etcd rounds 1.5 election timeouts up; 1 s is the default timeout
_VALUE, _MOD, _CREATE = Target.VALUE, Target.MOD, Target.CREATE
_EQUAL, _NOT_EQUAL, _GREATER = Relation.EQUAL, Relation.NOT_EQUAL, Relation.GREATER
_LEASE_NOT_FOUND = Refused(Refusal.INVALID, "requested lease not found")


class _LeaseRecord:
    __slots__ = ("expires_ms", "id", "keys", "ttl_s")

    def __init__(self, lease_id: int, ttl_s: int, expires_ms: int) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s
        self.expires_ms = expires_ms
        self.keys: set[bytes] = set()


class MemoryState:
    def __init__(self) -> None:
        self.revision = 1  # as a fresh etcd
        self.compacted = 0  # ranges at and watches from this revision on still work
        self._items: dict[bytes, KeyValue] = {}
        self._keys: list[bytes] = []  # sorted
        self._log: list[Batch] = []  # one for each revision from _log_start on
        self._log_start = 2
        self._leases: dict[int, _LeaseRecord] = {}
        self._next_lease = 1
        self._listeners: list[Callable[[Batch], None]] = []

    # ---- transactions

    def transact(self, txn: Txn) -> Applied | Refused:
        if refused := refusal_of_form(txn):
            return refused
        held = all(map(self._holds, txn.compares))
        branch = txn.success if held else txn.failure
        for operation in branch:
            if type(operation) is Put and operation.lease and operation.lease not in self._leases:
                return _LEASE_NOT_FOUND
        changes: list[Change] = []
        reads = self._perform(branch, changes)
        self._publish(changes)
        if held:
            return Applied(self.revision, reads)
        return Refused(Refusal.COMPARE, revision=self.revision, reads=reads)

    def _holds(self, compare: Compare) -> bool:
        if not compare.range_end:
            return _holds(compare, self._items.get(compare.key))
        keys = self._keys_in(compare.key, compare.range_end)
        return all(_holds(compare, self._items[key]) for key in keys) if keys else _holds(compare, None)

    def _perform(self, branch: tuple[Operation, ...], changes: list[Change]) -> tuple[KeyValue | None, ...]:
        """Does the operations in order, each on what the earlier ones left; what the Gets read."""
        reads: list[KeyValue | None] = []
        for operation in branch:
            if type(operation) is Put:
                changes.append(self._put(operation))
            elif type(operation) is Get:
                reads.append(self._items.get(operation.key))
            elif type(operation) is Delete:
                if operation.range_end:
                    keys = self._keys_in(operation.key, operation.range_end)
                else:
                    keys = [operation.key] if operation.key in self._items else []
                changes.extend(map(self._delete, keys))
        return tuple(reads)

    def _put(self, put: Put) -> Change:
        key, revision = put.key, self.revision + 1
        before = self._items.get(key)
        if before is None:
            insort(self._keys, key)
            item = KeyValue(key, put.value, revision, revision, 1, put.lease)
        else:
            item = KeyValue(key, put.value, before.create_revision, revision, before.version + 1, put.lease)
            if before.lease:
                self._leases[before.lease].keys.discard(key)
        if put.lease:
            self._leases[put.lease].keys.add(key)
        self._items[key] = item
        return Change(key, item, before)

    def _delete(self, key: bytes) -> Change:
        before = self._items.pop(key)
        del self._keys[bisect_left(self._keys, key)]
        if before.lease:
            self._leases[before.lease].keys.discard(key)
        return Change(key, None, before)

    def _publish(self, changes: list[Change]) -> None:
        if not changes:
            return
        self.revision += 1
        batch = Batch(self.revision, tuple(changes))
        self._log.append(batch)
        for listener in self._listeners:
            listener(batch)

    # ---- reads

    def get(self, key: bytes) -> KeyValue | None:
        return self._items.get(key)

    def range(
        self, key: bytes, range_end: bytes, *, revision: int = 0, limit: int = 0, keys_only: bool = False
    ) -> Read:
        """Raises Compacted, StoreError for a revision that is not yet there."""
        at = revision or self.revision
        if at < self.compacted:
            raise Compacted(self.compacted)
        if at > self.revision:
            raise StoreError(f"revision {at} is in the future: the store is at {self.revision}")
        if at == self.revision:
            items = [self._items[k] for k in self._keys_in(key, range_end)]
        else:
            items = self._items_at(at, key, range_end)
        more = bool(limit) and len(items) > limit
        if more:
            items = items[:limit]
        if keys_only:
            items = [KeyValue(i.key, b"", i.create_revision, i.mod_revision, i.version, i.lease) for i in items]
        return Read(tuple(items), at, more)

    def _items_at(self, revision: int, key: bytes, range_end: bytes) -> list[KeyValue]:
        """The range as it was: the newest one with every later batch undone."""
        items: dict[bytes, KeyValue | None] = {k: self._items[k] for k in self._keys_in(key, range_end)}
        for batch in reversed(self._log[revision + 1 - self._log_start :]):
            for change in batch.changes:
                if within(change.key, key, range_end):
                    items[change.key] = change.previous
        return [item for _, item in sorted(items.items()) if item is not None]

    def _keys_in(self, key: bytes, range_end: bytes) -> list[bytes]:
        if not range_end:
            return [key] if key in self._items else []
        low = bisect_left(self._keys, key)
        return self._keys[low:] if range_end == b"\x00" else self._keys[low : bisect_left(self._keys, range_end)]

    # ---- history

    def batches(self, prefix: bytes, start_revision: int, *, previous: bool = False) -> Iterator[Batch]:
        """What a watch from `start_revision` would deliver by now, whole revisions in order. Raises Compacted."""
        if start_revision < self.compacted:
            raise Compacted(self.compacted)
        end = prefix_end(prefix)
        for batch in self._log[max(0, start_revision - self._log_start) :]:
            changes = tuple(c for c in batch.changes if within(c.key, prefix, end))
            if not changes:
                continue
            if not previous or batch.revision <= self.compacted:
                changes = tuple(Change(c.key, c.item) for c in changes)
            yield Batch(batch.revision, changes)

    def compact(self, revision: int) -> None:
        """Forgets what was before `revision`. Raises Compacted, StoreError for a revision not yet there."""
        if revision <= self.compacted:
            raise Compacted(self.compacted)
        if revision > self.revision:
            raise StoreError(f"revision {revision} is in the future: the store is at {self.revision}")
        self.compacted = revision
        gone = min(max(0, revision - self._log_start), len(self._log))
        del self._log[:gone]
        self._log_start += gone

    def listen(self, listener: Callable[[Batch], None]) -> Callable[[], None]:
        """`listener` is called after each new revision, with what it changed; the returned function ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # ---- leases

    def grant(self, ttl_s: int, now_ms: int) -> Lease:
        ttl_s = max(ttl_s, MIN_LEASE_TTL_S)
        lease_id, self._next_lease = self._next_lease, self._next_lease + 1
        self._leases[lease_id] = _LeaseRecord(lease_id, ttl_s, now_ms + ttl_s * 1000)
        return Lease(lease_id, ttl_s)

    def keep_alive(self, lease_id: int, now_ms: int) -> int:
        """The TTL in seconds, from now on. Raises LeaseGone."""
        record = self._leases.get(lease_id)
        if record is None:
            raise LeaseGone(f"lease {lease_id} is gone")
        record.expires_ms = now_ms + record.ttl_s * 1000
        return record.ttl_s

    def revoke(self, lease_id: int) -> None:
        """Deletes the lease's keys at one revision; a lease that is gone is fine."""
        record = self._leases.get(lease_id)
        if record is None:
            return
        changes = [self._delete(key) for key in sorted(record.keys)]
        del self._leases[lease_id]
        self._publish(changes)

    def expire(self, now_ms: int) -> None:
        """Revokes every lease whose time is over, the earliest first."""
        due = [record for record in self._leases.values() if record.expires_ms <= now_ms]
        for record in sorted(due, key=lambda record: (record.expires_ms, record.id)):
            self.revoke(record.id)

    def next_expiry_ms(self) -> int | None:
        return min((record.expires_ms for record in self._leases.values()), default=None)


def _holds(compare: Compare, item: KeyValue | None) -> bool:
    _, target, relation, operand, _ = compare
    found: int | bytes
    if target is _VALUE:
        if item is None:
            return False  # etcd: a value compare on an absent key always fails
        found = item.value
    elif item is None:
        found = 0
    elif target is _MOD:
        found = item.mod_revision
    elif target is _CREATE:
        found = item.create_revision
    else:
        found = item.version
    if relation is _EQUAL:
        return found == operand
    if relation is _NOT_EQUAL:
        return found != operand
    return found > operand if relation is _GREATER else found < operand  # type: ignore[operator]
