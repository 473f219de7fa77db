"""The store protocol: what Atoll needs of etcd, and the outcomes a write can have.

Decides nothing. Three back ends keep it (etcd.py, memory.py and the fault wrapper faulty.py) and one contract suite
holds them to it. A write has one of four outcomes, never two: see `Outcome`. Reads raise `StoreUnavailable` when
no answer came; nothing that matters may rest on a read.

What is made for every transaction is a named tuple: a frozen dataclass takes two and a half times as long to make.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple, Protocol

MAX_OPERATIONS = 128  # etcd's default, in each of compare, success and failure
MAX_REQUEST_BYTES = 1_536 * 1024  # etcd's default of 1.5 MiB
PAGE_SIZE = 10_000


class StoreError(Exception):
    """The store could not be used as asked. Raised only by reads, leases and watches, never by `transact`."""


class StoreUnavailable(StoreError):
    """No answer in time. Whose fault: the world's. Retry: yes."""


class Compacted(StoreError):
    """The revision asked for is gone. Relist, diff, resume. `revision`: nothing older than it is there."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revisions before {revision} are compacted")
        self.revision = revision


class LeaseGone(StoreError):
    """The lease has expired or was revoked."""


class KeyValue(NamedTuple):
    """One key as stored. Revisions as etcd counts them; `version` is 1 for a new key."""

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class Target(IntEnum):
    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3


class Relation(IntEnum):
    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class Compare(NamedTuple):
    """One precondition. With `range_end` it holds when it holds for every key in [key, range_end); only
    `not_written_since` sets it, for a refusal cannot say which key it was."""

    key: bytes
    target: Target
    relation: Relation
    operand: int | bytes
    range_end: bytes = b""


_MOD, _EQUAL, _new = Target.MOD, Relation.EQUAL, tuple.__new__  # hundreds of compares are made for each transaction


def mod_is(key: bytes, revision: int) -> Compare:
    """The key was last written at `revision` (0: it is absent)."""
    return _new(Compare, (key, _MOD, _EQUAL, revision, b""))


def created_at(key: bytes, revision: int) -> Compare:
    """The key's present life began at `revision`."""
    return Compare(key, Target.CREATE, Relation.EQUAL, revision)


def absent(key: bytes) -> Compare:
    return Compare(key, Target.VERSION, Relation.EQUAL, 0)


def not_written_since(prefix: bytes, revision: int) -> Compare:
    """No key that begins with `prefix` was last written after `revision`; holds when there is none."""
    return Compare(prefix, Target.MOD, Relation.LESS, revision + 1, prefix_end(prefix))


class Put(NamedTuple):
    key: bytes
    value: bytes
    lease: int = 0


def put(key: bytes, value: bytes) -> Put:
    """Bound to no lease. A third of the time of the constructor, for the hundreds that a transaction has."""
    return _new(Put, (key, value, 0))


class Delete(NamedTuple):
    """Deletes one key, or [key, range_end)."""

    key: bytes
    range_end: bytes = b""


class Get(NamedTuple):
    """Reads one key inside a transaction, at its revision."""

    key: bytes


Operation = Put | Delete | Get


class Txn(NamedTuple):
    """If all of `compares` hold, `success` is done, else `failure`; all at one revision."""

    compares: tuple[Compare, ...] = ()
    success: tuple[Operation, ...] = ()
    failure: tuple[Operation, ...] = ()


class Refusal(Enum):
    COMPARE = "compare"  # a precondition did not hold
    INVALID = "invalid"  # too many operations, a key twice among the puts, malformed, a lease that is gone
    TOO_LARGE = "too_large"
    DENIED = "denied"  # permission, authentication
    BUSY = "busy"  # too many requests: definitely not applied, retry later


class Applied(NamedTuple):
    """The answer arrived and the compares held. `reads` has one entry for each Get of `success`, in order."""

    revision: int
    reads: tuple[KeyValue | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """Definitely not applied. For COMPARE, `reads` has one entry for each Get of `failure`, in order."""

    refusal: Refusal
    message: str = ""
    revision: int = 0
    reads: tuple[KeyValue | None, ...] = ()


@dataclass(frozen=True, slots=True)
class NotSent:
    """Never reached a server, for want of a connection: may be retried."""

    message: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """May be applied now, later or never. Never retried, never settled by reading: sealed (see lane.py)."""

    message: str


Outcome = Applied | Refused | NotSent | Unknown


@dataclass(frozen=True, slots=True)
class Read:
    """Keys in order, as of `revision`."""

    items: tuple[KeyValue, ...]
    revision: int
    more: bool = False


class Change(NamedTuple):
    """One key's change; `value` is None when it was deleted. `previous` when the watch asked for it."""

    key: bytes
    item: KeyValue | None
    previous: KeyValue | None = None


class Batch(NamedTuple):
    """All changes of one revision under the watched prefix, in order of key operations; empty = progress:
    everything up to `revision` has been delivered."""

    revision: int
    changes: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    id: int
    ttl_s: int  # as granted, which may be more than was asked


@dataclass(frozen=True, slots=True)
class Status:
    version: str  # "3.4.23"
    revision: int
    size_bytes: int
    members: int  # endpoints that answered


class Store(Protocol):
    """Every call has a deadline in seconds, counted from the call, over all endpoints tried."""

    async def get(self, key: bytes, *, deadline_s: float = 5.0) -> tuple[KeyValue | None, int]:
        """The key (or None) and the store's revision. Linearizable. Raises StoreUnavailable."""

    async def range(
        self,
        key: bytes,
        range_end: bytes,
        *,
        revision: int = 0,
        limit: int = PAGE_SIZE,
        keys_only: bool = False,
        deadline_s: float = 5.0,
    ) -> Read:
        """One page of [key, range_end) at `revision` (0 = newest). Raises StoreUnavailable, Compacted."""

    async def transact(self, txn: Txn, *, deadline_s: float = 2.0) -> Outcome:
        """Sends once, to one endpoint; never retried inside. Raises nothing."""

    def watch(
        self, prefix: bytes, *, start_revision: int, previous: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """All changes under `prefix` from `start_revision` on, whole revisions in order, each once, across lost
        connections. The iterator raises Compacted; it never ends by itself."""

    async def grant(self, ttl_s: int, *, deadline_s: float = 2.0) -> Lease:
        """A lease: only for leader keys, only a hint of liveness. Raises StoreUnavailable."""

    async def keep_alive(self, lease_id: int, *, deadline_s: float = 2.0) -> int:
        """Renews once; the TTL in seconds. Raises LeaseGone, StoreUnavailable."""

    async def revoke(self, lease_id: int, *, deadline_s: float = 2.0) -> None:
        """Ends the lease and deletes its keys. Raises StoreUnavailable; gone already is fine."""

    async def compact(self, revision: int, *, deadline_s: float = 5.0) -> None:
        """Forgets history before `revision`. Raises StoreUnavailable, Compacted."""

    async def status(self, *, deadline_s: float = 5.0) -> Status:
        """Version, revision and size. Raises StoreUnavailable."""

    async def close(self) -> None: ...


async def list_all(store: Store, prefix: bytes, *, revision: int = 0, deadline_s: float = 30.0) -> Read:
    """Every key under `prefix` at one revision, page by page. Raises StoreUnavailable, Compacted."""
    items: list[KeyValue] = []
    key, end = prefix, prefix_end(prefix)
    while True:
        page = await store.range(key, end, revision=revision, deadline_s=deadline_s)
        revision = revision or page.revision
        items.extend(page.items)
        if not page.more:
            return Read(tuple(items), revision)
        key = page.items[-1].key + b"\x00"


def prefix_end(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`."""
    for i in range(len(prefix) - 1, -1, -1):
        if prefix[i] < 0xFF:
            return prefix[:i] + bytes([prefix[i] + 1])
    return b"\x00"
