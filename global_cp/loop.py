"""Wires the global core to the world: events in, commands out, and the election around it.

Invariants: a command of one reign is never carried out by the committer of another, because the committer changes
between the very events by which the core changes its reign; leadership that ends starts again from a fresh campaign and
a fresh list, without restarting the process. Decides nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter, Gauge

from atoll.clock import Clock
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.lane import Authority
from atoll.loop import CoreLoop
from atoll.store import keys
from atoll.store.store import Compacted, Store, StoreUnavailable, list_all
from global_cp.api import GlobalApi
from global_cp.committer import Committer
from global_cp.config import Settings
from global_cp.core import commands
from global_cp.core.commands import Command
from global_cp.core.events import Event, LeadershipLost, LeadershipWon, Woke
from global_cp.core.machine import Machine
from global_cp.proxy import RegionalProxy
from global_cp.region_link import RegionLink
from global_cp.seat import Seat
from global_cp.users import Users
from global_cp.watches import WatchRing

LEADING = Gauge("atoll_global_leading", "1 while this process leads the global plane.")
REIGNS = Counter("atoll_global_reigns", "Elections won by this process.")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Office:
    """The shell's part of one won election, from LeadershipWon to LeadershipLost."""

    committer: Committer
    resigned: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def resign(self, reason: str) -> None:
        if not self.resigned.done():
            self.resigned.set_result(reason)


class GlobalPlane:
    """The pieces of one process. `api`, `link` and `proxy` are the servicers; `users` knows people's tokens."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, cluster: str) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._offices: dict[int, _Office] = {}  # by term: won, and not yet met by the core
        self._office: _Office | None = None  # the one the core is in
        self._ring: WatchRing | None = None
        self.machine = Machine(settings)
        self.core: CoreLoop[Event, Command] = CoreLoop(self, clock, self._execute, Woke())
        self.seat = Seat(self.machine, store, clock)
        self.users = Users(self.seat, store)
        self.link = RegionLink(settings, self.seat, post=self.core.post, backlog=lambda: self.core.backlog)
        self.proxy = RegionalProxy(self.seat, self.link)
        self.api = GlobalApi(
            settings,
            self.seat,
            cluster=cluster,
            post=self.core.post,
            backlog=lambda: self.core.backlog,
            ring=lambda: self._ring,
        )

    async def run(self, programs: str) -> None:
        """Runs until cancelled. `programs`: where regions reach this process."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.core.run())
            tasks.create_task(self.users.run())
            tasks.create_task(self._lead(programs))

    # ---- the core, with the shell's part of a change of reign

    def handle(self, event: Event, now_ms: int) -> Sequence[Command]:
        issued = self.machine.handle(event, now_ms)
        match event:
            case LeadershipWon():
                self._office = self._offices.pop(event.authority.term)
                self._open_ring()
                LEADING.set(1)
            case LeadershipLost():
                self._office = None
                LEADING.set(0)
            case _:
                pass
        if self.machine.reign is None and self._ring:
            self._ring.end()
            self._ring = None
        return issued

    def next_deadline(self) -> int | None:
        return self.machine.next_deadline()

    def _open_ring(self) -> None:
        if reign := self.machine.reign:
            self._ring = WatchRing(
                reign.records, size=self._settings.watch_ring, progress_s=self._settings.watch_progress_s
            )

    def _execute(self, command: Command) -> None:
        match command:
            case commands.Commit():
                if self._office:
                    self._office.committer.commit(command)
            case commands.SendDown():
                self.link.send(command)
            case commands.CloseSession():
                self.link.close(command)
            case commands.Publish():
                if self._ring:
                    self._ring.publish(command.event)
            case commands.Reply():
                self.api.reply(command)
            case commands.Resign():
                if self._office:
                    self._office.resign(command.reason)

    # ---- the election around it

    async def _lead(self, programs: str) -> None:
        election = Election(
            self._store,
            keys.GLOBAL,
            name=self._settings.name,
            address=programs,
            ttl_s=self._settings.election_ttl_s,
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
        """One reign; why it ended. The list begins at the newest revision, which is not older than the win."""
        try:
            records = await list_all(self._store, keys.GLOBAL)
        except (StoreUnavailable, Compacted) as error:
            return f"the records cannot be listed: {error}"
        writer = LaneWriter(
            self._store,
            authority,
            lane_revisions(keys.GLOBAL, records.items),
            deadline_s=self._settings.transaction_deadline_ms / 1000,
        )
        reason = "stopping"
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(writer, tasks, self.core.post, self._clock)
            office = self._offices[authority.term] = _Office(committer)
            self.core.post(LeadershipWon(authority, records.items, records.revision))
            try:
                done, _ = await asyncio.wait({holding, office.resigned}, return_when=asyncio.FIRST_COMPLETED)
                reason = done.pop().result()
            finally:
                committer.stop()
                self.core.post(LeadershipLost(reason))
        return reason
