"""Wires the region's core to the world: events in, commands out, and the election around it.

Invariants: a command of one reign is never carried out by the committer of another, because the committer changes
between the very events by which the core changes its reign; leadership that ends starts again from a fresh campaign and
a fresh list, without restarting the process. Decides nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from prometheus_client import Counter, Gauge

from atoll.api.v1 import regional_pb2
from atoll.clock import Clock
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.identity import RegionIssuer, TlsFiles
from atoll.lane import Authority
from atoll.loop import CoreLoop
from atoll.store import keys
from atoll.store.store import Compacted, Store, StoreUnavailable, list_all
from regional.api import RegionalApi
from regional.committer import Committer
from regional.config import Settings
from regional.core import commands
from regional.core.commands import Command
from regional.core.events import Event, LeadershipLost, LeadershipWon, Woke
from regional.core.machine import Machine
from regional.dispatcher import Dispatcher
from regional.join import Enrolment
from regional.journal import Journal
from regional.seat import Seat
from regional.timeline import Timeline
from regional.uplink import Uplink
from regional.users import Users
from regional.writes import GuardedWrites

LEADING = Gauge("atoll_region_leading", "1 while this process leads its region.")
REIGNS = Counter("atoll_region_reigns", "Elections won by this process.")

_MIB = 1024 * 1024
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Reign:
    """One won election, from LeadershipWon to LeadershipLost."""

    authority: Authority
    committer: Committer
    resigned: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def resign(self, reason: str) -> None:
        if not self.resigned.done():
            self.resigned.set_result(reason)


class Region:
    """The pieces of one regional process. `dispatcher` and `api` are the servicers; `users` knows people's tokens."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._root = keys.region_root(settings.region)
        self._reigns: dict[int, _Reign] = {}  # by term: won, and not yet met by the core
        self._reign: _Reign | None = None  # the one the core is in
        self.machine = Machine(settings.region, settings)
        self.core: CoreLoop[Event, Command] = CoreLoop(self, clock, self._execute, Woke())
        self._seat = Seat(store, self._root, clock)
        self._timeline = Timeline(settings.timeline_events)
        self._journal = Journal(
            settings.state_dir / "journal",
            file_bytes=settings.journal_file_mib * _MIB,
            files=settings.journal_files,
            queue=settings.journal_queue_decisions,
            index=settings.journal_index_slots,
        )
        self._writes = GuardedWrites(self.core.post, deadline_ms=settings.write_deadline_ms)
        issuer = RegionIssuer(settings.issuer_certificate, settings.issuer_key)
        enrolment = Enrolment(settings, issuer, settings.ca.read_bytes(), store, self._writes, clock)
        self.dispatcher = Dispatcher(
            settings,
            self._seat,
            enrolment,
            clock,
            post=self.core.post,
            backlog=lambda: self.core.backlog,
            announce=self._timeline.announce,
        )
        self.users = Users(settings.state_dir / "users.pb")
        self.api = RegionalApi(
            settings, self._seat, self.machine, self._journal, self._timeline, self.dispatcher, enrolment, clock
        )
        tls = TlsFiles(settings.certificate, settings.key, settings.ca)
        self._uplink = Uplink(settings, tls, self.users, self.api, self.core.post)

    async def run(self, programs: str, people: str) -> None:
        """Runs until cancelled. The addresses are where others reach this process."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.core.run())
            tasks.create_task(self._journal.run())
            tasks.create_task(self._lead(programs, people))

    # ---- the core, with the shell's part of a change of reign

    def handle(self, event: Event, now_ms: int) -> Sequence[Command]:
        issued = self.machine.handle(event, now_ms)
        match event:
            case LeadershipWon():
                self._reign = self._reigns.pop(event.authority.term)
                self._seat.leading = True
                LEADING.set(1)
            case LeadershipLost():
                self._reign = None
                self._seat.leading = False
                self.dispatcher.stand_by(f"leadership was lost: {event.reason}")
                self._writes.leadership_lost()
                LEADING.set(0)
            case _:
                pass
        return issued

    def next_deadline(self) -> int | None:
        return self.machine.next_deadline()

    def _execute(self, command: Command) -> None:
        match command:
            case commands.SendToNode():
                self.dispatcher.send(command.session, command.message)
            case commands.Journal():
                self._journal.keep(command.decision)
            case commands.Announce():
                self._timeline.announce(command.event)
            case commands.Commit():
                if self._reign:
                    self._reign.committer.commit(command)
            case commands.SendUp():
                self._uplink.send(command.message)
            case commands.CloseSession():
                self.dispatcher.close(command.session, command.reason)
            case commands.Reply():
                self._writes.settle(command)
            case commands.Resign():
                if self._reign:
                    self._reign.resign(command.reason)

    # ---- the election around it

    async def _lead(self, programs: str, people: str) -> None:
        election = Election(
            self._store,
            self._root,
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
                reason = await self._rule(authority, people, holding)
            finally:
                holding.cancel()
                await election.resign()
            _log.warning("standing by", term=authority.term, reason=reason)

    async def _rule(self, authority: Authority, people: str, holding: asyncio.Task[str]) -> str:
        """One reign; why it ended. The list begins at the newest revision, which is not older than the win."""
        try:
            records = await list_all(self._store, self._root)
        except (StoreUnavailable, Compacted) as error:
            return f"the region's records cannot be listed: {error}"
        writer = LaneWriter(
            self._store,
            authority,
            lane_revisions(self._root, records.items),
            deadline_s=self._settings.transaction_deadline_ms / 1000,
        )
        reason = "stopping"
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(writer, tasks, self.core.post, self._clock)
            reign = self._reigns[authority.term] = _Reign(authority, committer)
            self.core.post(LeadershipWon(authority, records.items, records.revision))
            uplink = tasks.create_task(self._uplink.run(lambda: self._hello(authority, people)))
            try:
                done, _ = await asyncio.wait({holding, reign.resigned}, return_when=asyncio.FIRST_COMPLETED)
                reason = done.pop().result()
            finally:
                committer.stop()
                uplink.cancel()
                self.core.post(LeadershipLost(reason))
        return reason

    def _hello(self, authority: Authority, people: str) -> regional_pb2.RegionHello:
        return regional_pb2.RegionHello(
            region=self._settings.region,
            term=authority.term,
            epoch=self.machine.epoch,
            store_life=authority.store_life,
            address=people,
        )
