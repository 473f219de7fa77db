"""Where a contract test works, and what it expects of answers."""

import asyncio
from dataclasses import dataclass

from atoll.store.store import (
    Applied,
    Batch,
    Outcome,
    Put,
    Refusal,
    Refused,
    Store,
    Txn,
)


@dataclass
class Place:
    """A store, a prefix of the test's own and the revision at which the test began."""

    store: Store
    prefix: bytes
    began: int

    def key(self, name: str) -> bytes:
        return self.prefix + name.encode()

    async def put(self, name: str, value: bytes = b"v", lease: int = 0) -> int:
        """The revision of a put that must succeed."""
        return applied(await self.transact(Txn(success=(Put(self.key(name), value, lease),)))).revision

    async def transact(self, txn: Txn) -> Outcome:
        """With time enough for a busy machine."""
        return await self.store.transact(txn, deadline_s=30.0)


async def collect(store: Store, prefix: bytes, start: int, until: int, *, previous: bool = False) -> list[Batch]:
    """The batches with changes up to revision `until`."""
    found: list[Batch] = []
    async with asyncio.timeout(60), store.watch(prefix, start_revision=start, previous=previous) as batches:
        async for batch in batches:
            if batch.changes:
                found.append(batch)
            if batch.revision >= until:
                return found
    raise AssertionError("the watch ended by itself")


def applied(outcome: Outcome) -> Applied:
    assert isinstance(outcome, Applied), outcome
    return outcome


def refused(outcome: Outcome, refusal: Refusal = Refusal.COMPARE) -> Refused:
    assert isinstance(outcome, Refused) and outcome.refusal is refusal, outcome
    return outcome
