"""Wires the global core to the world: events in, commands out, leadership around it. Decides nothing."""

import asyncio
from collections.abc import Sequence

from prometheus_client import Counter

from atoll import zones
from atoll.clock import Clock
from atoll.leadership import Leadership
from atoll.loop import CoreLoop
from atoll.store import keys
from atoll.store.store import Store
from atoll.timeline import Timeline
from global_cp.api import GlobalApi
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
from global_cp.webhooks import Webhooks

EVENTS = Counter("atoll_global_events", "Events for people, by type: PolicyPromoted, NotifyFailed and so on.", ["type"])


class GlobalPlane:
    """The pieces of one process. `api`, `link` and `proxy` are the servicers; `users` knows people's tokens."""

    def __init__(self, settings: Settings, store: Store, clock: Clock, cluster: str) -> None:
        self._settings = settings
        self._ring: WatchRing | None = None
        self._timeline = Timeline(settings.timeline_events, EVENTS)
        self.machine = Machine(settings, zones.offset_ms)
        self.core: CoreLoop[Event, Command] = CoreLoop(self, clock, self._execute, Woke())
        self._leadership = Leadership(
            store,
            keys.GLOBAL,
            name=settings.name,
            clock=clock,
            ttl_s=settings.election_ttl_s,
            transaction_deadline_s=settings.transaction_deadline_ms / 1000,
            history_s=settings.history_s,
            post=self.core.post,
        )
        self.seat = Seat(self.machine, self._leadership)
        self.users = Users(self.seat, store)
        self.link = RegionLink(settings, self.seat, post=self.core.post, backlog=lambda: self.core.backlog)
        self.webhooks = Webhooks(settings, clock, post=self.core.post)
        self.proxy = RegionalProxy(self.seat, self.link, settings.gather_timeout_s)
        self.api = GlobalApi(
            settings,
            self.seat,
            cluster=cluster,
            post=self.core.post,
            backlog=lambda: self.core.backlog,
            ring=lambda: self._ring,
            timeline=self._timeline,
        )

    async def run(self, programs: str, people: str = "") -> None:
        """Runs until cancelled. The addresses are where regions and users reach this process."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.core.run())
            tasks.create_task(self.users.run())
            tasks.create_task(self.webhooks.run())
            tasks.create_task(self._leadership.run(programs, people))

    # ---- the core, with the shell's part of a change of reign

    def handle(self, event: Event, now_ms: int) -> Sequence[Command]:
        issued = self.machine.handle(event, now_ms)
        match event:
            case LeadershipWon():
                self._leadership.met(event)
                self._open_ring()
            case LeadershipLost():
                self._leadership.met(event)
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
                reign.records,
                lambda: reign.complete_revision,
                size=self._settings.watch_ring,
                progress_s=self._settings.watch_progress_s,
            )

    def _execute(self, command: Command) -> None:
        match command:
            case commands.Commit():
                self._leadership.commit(command)
            case commands.SendDown():
                self.link.send(command)
            case commands.CloseSession():
                self.link.close(command)
            case commands.Publish():
                if self._ring:
                    self._ring.publish(command.event)
            case commands.Reply():
                self.api.reply(command)
            case commands.Notify():
                self.webhooks.send(command)
            case commands.Announce():
                self._timeline.announce(command.event)
            case commands.Resign():
                self._leadership.resign(command.reason)
