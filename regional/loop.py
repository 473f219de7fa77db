"""Wires the region's core to the world: events in, commands out, leadership around it. Decides nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from prometheus_client import Counter

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.clock import Clock
from atoll.identity import RegionIssuer, TlsFiles
from atoll.lane import Authority
from atoll.leadership import Leadership
from atoll.loop import CoreLoop
from atoll.store import keys
from atoll.store.store import Store
from atoll.timeline import Timeline
from regional.api import RegionalApi
from regional.config import Settings
from regional.core import commands
from regional.core.commands import Command
from regional.core.events import Event, FellBehind, LeadershipLost, LeadershipWon, Woke
from regional.core.machine import Machine
from regional.dispatcher import Dispatcher
from regional.join import Enrolment
from regional.journal import Journal
from regional.uplink import Uplink
from regional.usage import Usage, told_while_running
from regional.users import Users
from regional.workers.crew import Crew
from regional.writes import GuardedWrites

_MIB = 1024 * 1024
EVENTS = Counter(
    "atoll_region_events", "Events of the timeline, by type: Preempts, Preempted, GangBound and so on.", ["type"]
)


class Region:
    """The pieces of one regional process. `dispatcher` and `api` are the servicers; `users` knows people's tokens."""

    def __init__(self, settings: Settings, store: Store, clock: Clock) -> None:
        self._settings, self._people = settings, ""
        self._timeline = Timeline(settings.timeline_events, EVENTS)
        self._crew = Crew(settings.workers, settings.worker_silence_ms / 1000) if settings.workers > 1 else None
        self.machine = Machine(settings.region, settings, self._crew)
        self.core: CoreLoop[Event, Command] = CoreLoop(self, clock, self._execute, Woke())
        self._leadership = Leadership(
            store,
            keys.region_root(settings.region),
            name=settings.name,
            clock=clock,
            ttl_s=settings.election_ttl_s,
            transaction_deadline_s=settings.transaction_deadline_ms / 1000,
            history_s=settings.history_s,
            post=self.core.post,
            beside=self._linked,
        )
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
            self._leadership,
            enrolment,
            clock,
            post=self.core.post,
            backlog=lambda: self.core.backlog,
            announce=self._timeline.announce,
        )
        self.users = Users(settings.state_dir / "users.pb")
        self.api = RegionalApi(
            settings,
            self._leadership,
            self.machine,
            self._journal,
            self._timeline,
            self.dispatcher,
            enrolment,
            self._writes,
            clock,
        )
        tls = TlsFiles(settings.certificate, settings.key, settings.ca)
        self._uplink = Uplink(settings, tls, self.api, self.core.post)

    async def run(self, programs: str, people: str) -> None:
        """Runs until cancelled. The addresses are where others reach this process."""
        self._people = people
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(told_while_running(Usage(lambda: self.machine.state)))
            tasks.create_task(self.core.run())
            tasks.create_task(self._journal.run())
            if self._crew:
                tasks.create_task(self._crew.run())
            tasks.create_task(self._leadership.run(programs, people))

    # ---- the core, with the shell's part of a change of reign

    def handle(self, event: Event, now_ms: int) -> Sequence[Command]:
        if self.core.backlog > self._settings.behind_events:  # after a takeover: agents that say hello, for one
            issued = [*self.machine.handle(FellBehind(), now_ms), *self.machine.handle(event, now_ms)]
        else:
            issued = self.machine.handle(event, now_ms)
        match event:
            case LeadershipWon():
                self._leadership.met(event)
                self.dispatcher.lead(event.authority)
            case LeadershipLost():
                self._leadership.met(event)
                self.dispatcher.stand_by()
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
                self._leadership.commit(command)
            case commands.SendUp():
                self._uplink.send(command.message)
            case commands.KeepTokens():
                self.users.replace(command.tokens)
            case commands.LeaveGlobal():
                self._uplink.leave(command.reason)
            case commands.CloseSession():
                self.dispatcher.close(command.session, command.reason)
            case commands.Reply():
                self._writes.settle(command)
            case commands.Resign():
                self._leadership.resign(command.reason)

    # ---- what runs while it leads

    @contextlib.asynccontextmanager
    async def _linked(self, authority: Authority) -> AsyncIterator[None]:
        """A leader has an uplink; a standby has none."""
        async with asyncio.TaskGroup() as tasks:  # ended before the next reign's begins; its failure is the process's
            uplink = tasks.create_task(self._uplink.run(lambda: self._hello(authority, self._people)))
            try:
                yield
            finally:
                uplink.cancel()

    def _hello(self, authority: Authority, people: str) -> regional_pb2.RegionHello:
        state = self.machine.state
        heard = state.heard if state else (0, 0)
        return regional_pb2.RegionHello(
            region=self._settings.region,
            term=authority.term,
            epoch=state.epoch if state else 0,
            heard=objects_pb2.GlobalReign(store_life=heard[0], term=heard[1]),
            store_life=authority.store_life,
            address=people,
            labels=[objects_pb2.Label(key=key, value=value) for key, value in sorted(self._settings.labels.items())],
        )
