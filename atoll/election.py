"""Authority over one root: winning it, keeping it, and writing with it.

Decides who may write under `/g` or `/r/<region>`, and drives the lanes of `atoll.lane` against a store until every
outcome is settled. Keeps I5. The term is the create_revision of the leader key, which is put once, by a transaction
that compares its absence, on a lease of its own, and never rewritten. A lease is only a hint of liveness: what fences
an old leader is the guard in each of its transactions. Leaves to others: what is written (the cores), and when a
leader stops acknowledging its agents (T_l, the regional core).
"""

import asyncio
import random
import secrets
from collections.abc import Iterable

from atoll.api.v1 import objects_pb2
from atoll.clock import Clock
from atoll.errors import InvariantBroken
from atoll.lane import Authority, Committed, Lane, Plan, Rejected, Settled
from atoll.store import keys
from atoll.store.store import (
    Applied,
    Compacted,
    Get,
    KeyValue,
    Lease,
    LeaseGone,
    NotSent,
    Outcome,
    Put,
    Refused,
    Store,
    StoreUnavailable,
    Txn,
    Unknown,
    absent,
)

DEFAULT_TTL_S = 6
KEEPALIVES_A_TTL = 3
MISSES_ALLOWED = 1


class Election:
    """One candidate for one root. `campaign`, then `hold` beside the work, then `resign`; and again from the start."""

    def __init__(
        self,
        store: Store,
        root: bytes,
        *,
        name: str,
        address: str,
        clock: Clock,
        people: str = "",
        ttl_s: int = DEFAULT_TTL_S,
    ) -> None:
        """Told to others when it leads: `name`, and where its ports for programs (`address`) and `people` are."""
        self._store = store
        self._root = root
        self._name = name
        self._address = address
        self._people = people
        self._ttl_s = ttl_s
        self._clock = clock
        self._lease: Lease | None = None
        self._granted_ms = 0

    async def campaign(self) -> tuple[Authority, int]:
        """Waits until it leads; the authority and the revision at which it was won. Goes on through every fault
        of the store until cancelled; leaves no lease behind then."""
        try:
            return await self._win()
        except asyncio.CancelledError:
            await self.resign()
            raise

    async def _win(self) -> tuple[Authority, int]:
        backoff = Backoff()
        while True:
            try:
                await self._until_leaderless()
                self._granted_ms = self._clock.now_ms()
                self._lease = await self._store.grant(self._ttl_s)
            except (StoreUnavailable, Compacted):
                await backoff.pause()
                continue
            match await self._put_leader(self._lease):
                case Applied(revision=revision, reads=(life,)):
                    return self._authority(revision, life), revision
                case _:  # somebody else was faster, or nobody can tell who won
                    await self.resign()
                    await backoff.pause()

    async def hold(self) -> str:
        """Keeps the lease; returns why leadership is lost. The lease's time counts from the moment its renewal was
        sent, and a renewal that got no answer in a third of it is a miss: the second in a row ends leadership."""
        lease = self._lease
        if lease is None:
            raise InvariantBroken("I5: hold() without a won campaign")
        period_ms = lease.ttl_s * 1000 // KEEPALIVES_A_TTL
        sent_ms, deadline_ms, misses = self._granted_ms, self._granted_ms + lease.ttl_s * 1000, 0
        while True:
            await asyncio.sleep(max(0, sent_ms + period_ms - self._clock.now_ms()) / 1000)
            sent_ms = self._clock.now_ms()
            if sent_ms >= deadline_ms:
                return "the lease was not renewed in its time"
            try:
                ttl_s = await self._store.keep_alive(lease.id, deadline_s=period_ms / 1000)
            except LeaseGone:
                return "the lease is gone"
            except StoreUnavailable:
                misses += 1
                if misses > MISSES_ALLOWED:
                    return f"{misses} renewals in a row went unanswered"
            else:
                misses, deadline_ms = 0, sent_ms + ttl_s * 1000

    async def resign(self) -> None:
        """Lets the next leader begin at once. When the store does not answer, the lease runs out by itself."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        try:
            await self._store.revoke(lease.id)
        except StoreUnavailable:
            return

    async def _until_leaderless(self) -> None:
        """Returns when the leader key was seen absent, by a read or by a watch. The read is repeated now and then
        because a watch may have gone silent; neither is trusted beyond starting the attempt."""
        key = keys.leader(self._root)
        while True:
            leader, revision = await self._store.get(key)
            if leader is None:
                return
            try:
                async with (
                    asyncio.timeout(self._ttl_s),
                    self._store.watch(key, start_revision=revision + 1) as batches,
                ):
                    async for batch in batches:
                        if any(change.key == key and change.item is None for change in batch.changes):
                            return
            except TimeoutError:
                continue

    async def _put_leader(self, lease: Lease) -> Outcome:
        """One attempt with a nonce of its own; the store's life is read at the very revision of the win.

        An unknown attempt may still apply later. It is fenced by giving up its lease: a put on a lease that is gone is
        refused, and a put that had applied goes with its lease. If even that gets no answer, nobody acts on the term
        that may have been won, and it ends when the lease does."""
        leader = objects_pb2.Leader(
            name=self._name, address=self._address, people=self._people, nonce=secrets.token_hex(16)
        )
        key = keys.leader(self._root)
        return await self._store.transact(
            Txn(
                compares=(absent(key),),
                success=(
                    Put(key, leader.SerializeToString(deterministic=True), lease.id),
                    Get(keys.store_life(self._root)),
                ),
            )
        )

    def _authority(self, revision: int, life: KeyValue | None) -> Authority:
        if life is None:
            return Authority(self._root, term=revision)
        number = objects_pb2.StoreLife.FromString(life.value).number
        return Authority(self._root, term=revision, store_life=number, store_life_revision=life.mod_revision)


class LaneWriter:
    """The lanes of one leader over its store. Different lanes commit at the same time, one plan each.

    Cancelling `commit` leaves its lane unsettled: do so only to throw the whole writer away.
    """

    def __init__(
        self, store: Store, authority: Authority, lane_revisions: dict[int, int], *, deadline_s: float = 2.0
    ) -> None:
        """`lane_revisions`: mod_revision of each lane key, as listed after the election (`lane_revisions()`)."""
        self._store = store
        self._authority = authority
        self._revisions = dict(lane_revisions)
        self._deadline_s = deadline_s
        self._lanes: dict[int, Lane] = {}
        self.unknown = 0  # operations whose outcome was unknown at first
        self.sealed = 0  # of these, the ones that never applied
        self.committed_by_seal = 0  # of these, the ones that had applied
        self.resent = 0  # transactions that surely had no effect and were sent again

    async def commit(self, lane: int, plan: Plan) -> Settled:
        """Settles `plan` on `lane`, however long the store takes to answer."""
        machine = self._lane(lane)
        backoff = Backoff()
        txn = machine.begin(plan)
        while True:
            sealing, reading = machine.sealing, machine.reading
            outcome = await self._store.transact(txn, deadline_s=self._deadline_s)
            match machine.settle(outcome):
                case Txn() as txn:
                    if machine.reading and not reading:
                        continue  # refused for good; what had moved is read at once
                    self._count(outcome, sealing or reading)
                    if sealing or reading or not isinstance(outcome, Unknown):  # the first seal follows at once
                        await backoff.pause()
                case settled:
                    if sealing:
                        self._count_settled(settled)
                    return settled

    def _lane(self, index: int) -> Lane:
        if index not in self._lanes:
            self._lanes[index] = Lane(self._authority, index, self._revisions.get(index, 0))
        return self._lanes[index]

    def _count(self, outcome: Outcome, again: bool) -> None:
        match outcome:
            case Unknown() if not again:
                self.unknown += 1
            case NotSent() | Refused():
                self.resent += 1
            case _:
                pass

    def _count_settled(self, settled: Settled) -> None:
        match settled:
            case Committed():
                self.committed_by_seal += 1
            case Rejected():
                self.sealed += 1
            case _:
                pass


def lane_revisions(root: bytes, records: Iterable[KeyValue]) -> dict[int, int]:
    """The mod_revision of every lane among the listed `records`."""
    prefix = keys.lanes(root)
    return {int(r.key[len(prefix) :]): r.mod_revision for r in records if r.key.startswith(prefix)}


class Backoff:
    """Pauses that double up to a bound, with jitter so that candidates and lanes do not march in step."""

    FIRST_S = 0.02
    LONGEST_S = 1.0

    def __init__(self) -> None:
        self._next_s = self.FIRST_S

    async def pause(self) -> None:
        await asyncio.sleep(self._next_s * random.uniform(0.5, 1.0))
        self._next_s = min(2 * self._next_s, self.LONGEST_S)
