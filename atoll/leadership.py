"""Leading, losing it and leading again, around a core: campaign, list, rule, stand by, without restarting the process.

Invariants: a command of one reign is never carried out by the committer of another, because the committer changes
between the very events by which the core changes its reign (`met`); every reign begins with a fresh campaign and a
fresh list, at a revision not older than the win. Decides nothing.
"""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter, Gauge

from atoll.api.v1 import objects_pb2
from atoll.clock import Clock
from atoll.committer import Committer
from atoll.compaction import compact_behind
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.errors import Unavailable
from atoll.lane import Authority
from atoll.reign import Commit, LeadershipLost, LeadershipWon, PlanSettled, RecordsRead
from atoll.store import keys
from atoll.store.store import Compacted, KeyValue, Store, StoreUnavailable, list_all

LEADING = Gauge("atoll_leading", "1 while this process leads.")
REIGNS = Counter("atoll_reigns", "Elections won by this process.")

RECORDS_AT_ONCE = 100  # that a core reads before the renewal of the lease gets its turn
_ADDRESS_REMEMBERED_MS = 1_000
_log = structlog.get_logger()

Post = Callable[[RecordsRead | LeadershipWon | LeadershipLost | PlanSettled], None]
Beside = Callable[[Authority], contextlib.AbstractAsyncContextManager[None]]


@contextlib.asynccontextmanager
async def nothing_beside(authority: Authority) -> AsyncIterator[None]:
    """For a leader that runs nothing else while it leads."""
    yield


@contextlib.contextmanager
def _long_lived() -> Iterator[None]:
    """What is made meanwhile stays for a reign: the collector of cycles leaves it out. To look through a million
    records takes seconds in which no lease is renewed."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _forget_long_lived() -> None:
    """Collected at once, while there is no lease to renew: else the records of one reign would be left out with those
    of the next, for ever."""
    gc.unfreeze()
    gc.collect()


@dataclass(frozen=True, slots=True)
class _Reign:
    """The shell's part of one won election."""

    committer: Committer
    resigned: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Leadership:
    def __init__(
        self,
        store: Store,
        root: bytes,
        *,
        name: str,
        clock: Clock,
        ttl_s: int,
        transaction_deadline_s: float,
        history_s: int,
        post: Post,
        beside: Beside = nothing_beside,
    ) -> None:
        """`post` hands events to the core; `beside` runs as long as each reign. `history_s`: how much of the store's
        history a leader keeps; 0 = all."""
        self.leading = False  # as the core has been told: what follows `met` in the loop meets a leading core
        self._store = store
        self._root = root
        self._name = name
        self._clock = clock
        self._ttl_s = ttl_s
        self._transaction_deadline_s = transaction_deadline_s
        self._history_s = history_s
        self._post = post
        self._beside = beside
        self._reigns: dict[int, _Reign] = {}  # by term: won, and not yet met by the core
        self._reign: _Reign | None = None  # the one the core is in
        self._leader = objects_pb2.Leader()
        self._asked_ms = -_ADDRESS_REMEMBERED_MS

    # ---- for the loop and the edges

    def met(self, event: LeadershipWon | LeadershipLost) -> None:
        """The core has just handled `event`."""
        if isinstance(event, LeadershipWon):
            self._reign = self._reigns.pop(event.authority.term)
        else:
            self._reign = None
            _forget_long_lived()
        self.leading = self._reign is not None
        LEADING.set(self.leading)

    def commit(self, command: Commit) -> None:
        if self._reign:
            self._reign.committer.commit(command)

    def resign(self, reason: str) -> None:
        if self._reign and not self._reign.resigned.done():
            self._reign.resigned.set_result(reason)

    async def leader(self) -> objects_pb2.Leader:
        """As the store shows it, not older than a second; empty when nobody leads or nobody knows."""
        now_ms = self._clock.now_ms()
        if now_ms - self._asked_ms >= _ADDRESS_REMEMBERED_MS:
            self._asked_ms = now_ms
            try:
                item, _ = await self._store.get(keys.leader(self._root))
            except StoreUnavailable:
                item = None
            self._leader = objects_pb2.Leader.FromString(item.value) if item else objects_pb2.Leader()
        return self._leader

    async def leader_address(self) -> str:
        """Where the leader's programs port is; empty when nobody leads or nobody knows."""
        return (await self.leader()).address

    async def require_leading(self) -> None:
        """Raises Unavailable on a standby, with the leader's addresses."""
        if self.leading:
            return
        leader = await self.leader()
        raise Unavailable(
            f"this is a standby; the leader is {f'at {leader.address}' if leader.address else 'not known'}",
            leader_people=leader.people,
            leader_programs=leader.address,
        )

    # ---- the election

    async def run(self, address: str, people: str = "") -> None:
        """Until cancelled. `address`: where programs reach this process when it leads, and `people` its users."""
        election = Election(
            self._store,
            self._root,
            name=self._name,
            address=address,
            people=people,
            ttl_s=self._ttl_s,
            clock=self._clock,
        )
        while True:
            authority, revision = await election.campaign()
            REIGNS.inc()
            _log.info("leading", term=authority.term, store_life=authority.store_life, revision=revision)
            holding = asyncio.create_task(election.hold())
            try:
                reason = await self._rule(authority, holding)
            finally:
                holding.cancel()
                await election.resign()
            _log.warning("standing by", term=authority.term, reason=reason)

    async def _rule(self, authority: Authority, holding: asyncio.Task[str]) -> str:
        """One reign; why it ended."""
        try:
            records = await list_all(self._store, self._root)
        except (StoreUnavailable, Compacted) as error:
            return f"the records cannot be listed: {error}"
        writer = LaneWriter(
            self._store,
            authority,
            lane_revisions(self._root, records.items),
            deadline_s=self._transaction_deadline_s,
        )
        reason = "stopping"
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(writer, tasks, self._post, self._clock)
            compacting = tasks.create_task(compact_behind(self._store, self._history_s)) if self._history_s else None
            try:
                with _long_lived():
                    await self._hand_over(authority, records.items, holding)
                if holding.done():
                    reason = holding.result()
                    return reason
                reign = self._reigns[authority.term] = _Reign(committer)
                self._post(LeadershipWon(authority, (), records.revision))
                del records  # the core has its own
                async with self._beside(authority):
                    done, _ = await asyncio.wait({holding, reign.resigned}, return_when=asyncio.FIRST_COMPLETED)
                    reason = done.pop().result()
            finally:
                committer.stop()
                if compacting:
                    compacting.cancel()
                self._post(LeadershipLost(reason))
        return reason

    async def _hand_over(self, authority: Authority, records: Sequence[KeyValue], holding: asyncio.Task[str]) -> None:
        """Gives the core the records in parts, while leadership lasts; whatever else runs has its turn in between."""
        for start in range(0, len(records), RECORDS_AT_ONCE):
            if holding.done():
                return
            self._post(RecordsRead(authority, tuple(records[start : start + RECORDS_AT_ONCE])))
            await asyncio.sleep(0)
