"""The global plane as a state machine: events in, commands out. Reading this file shows all that it can do.

State is the committed records and the topics, each of which owns a part and proposes one transaction at a time. A free
lane takes the next proposal, topic after topic, planned from the records of that moment; two plans that touch a key are
never in flight together. A plan's effects on the records, on regions, watchers and askers follow only its commit (I5).
"""

from collections.abc import Callable
from typing import Any

from atoll.api.v1 import regional_pb2
from atoll.errors import Unavailable
from atoll.lane import Authority, Committed, Deposed, Rejected
from atoll.model.cron import Zones, utc_only
from global_cp.config import CoreSettings
from global_cp.core import events
from global_cp.core.commands import CloseSession, Command, Reply, Resign, SendDown
from global_cp.core.records import Change
from global_cp.core.reign import Reign
from global_cp.core.topics import refusal_of_form
from global_cp.core.views import workload_events


class Machine:
    """`handle` is the only way in; what it returns is the only way out."""

    def __init__(self, settings: CoreSettings, zones: Zones = utc_only) -> None:
        """`zones`: the time zones that schedules are in."""
        self._settings, self._zones = settings, zones
        self._reign: Reign | None = None
        self._making: Reign | None = None  # before the win is told
        self._plans = 0
        self._now_ms = 0
        self._table: dict[type, Callable[[Any, list[Command]], None]] = {
            events.RecordsRead: self._records_read,
            events.LeadershipWon: self._won,
            events.LeadershipLost: lambda event, out: self._lose(out),
            events.PlanSettled: self._settled,
            events.RegionConnected: self._connected,
            events.RegionSaid: self._said,
            events.RegionGone: self._gone,
            events.MutationAsked: self._asked,
            events.Notified: self._notified,
            events.Woke: lambda event, out: None,
        }

    @property
    def reign(self) -> Reign | None:
        """For reads: the leader's records and regions. None on a standby."""
        return self._reign

    def handle(self, event: events.Event, now_ms: int) -> list[Command]:
        out: list[Command] = []
        self._now_ms = now_ms
        self._table[type(event)](event, out)
        self._fill_lanes(out)
        return out

    def next_deadline(self) -> int | None:
        """With every lane taken nothing but an answer can move things; nor a topic whose plan waits for another's."""
        reign = self._reign
        if reign is None or not reign.free_lanes:
            return None
        if self._now_ms < reign.pause_until_ms:
            return reign.pause_until_ms
        due = [(topic.deadline(), topic in reign.held_up) for topic in reign.topics]
        return min((at for at, held in due if at is not None and not (held and at <= self._now_ms)), default=None)

    def _won(self, event: events.LeadershipWon, out: list[Command]) -> None:
        reign = self._reign_of(event.authority)
        self._lose(out)
        reign.read(event.records, event.revision)
        self._reign = reign

    def _records_read(self, event: events.RecordsRead, out: list[Command]) -> None:
        self._reign_of(event.authority).read(event.records, 0)

    def _reign_of(self, authority: Authority) -> Reign:
        """With what was read of its list so far."""
        if self._making is None or self._making.authority != authority:
            self._making = Reign(authority, self._settings, self._zones)
        return self._making

    def _lose(self, out: list[Command]) -> None:
        if self._reign:
            self._reign.requests.lost(out)
            self._reign.regions.lost(out)
        self._reign = self._making = None

    def _connected(self, event: events.RegionConnected, out: list[Command]) -> None:
        if self._reign:
            self._reign.regions.connected(event, out)
        else:
            out.append(CloseSession(event.session, "this is a standby"))

    def _gone(self, event: events.RegionGone, out: list[Command]) -> None:
        if self._reign:
            self._reign.regions.gone(event.session)

    def _asked(self, event: events.MutationAsked, out: list[Command]) -> None:
        if self._reign:
            self._reign.requests.ask(event, self._now_ms, out)
        else:
            out.append(Reply(event.reply_to, Unavailable("this is a standby")))

    def _notified(self, event: events.Notified, out: list[Command]) -> None:
        if self._reign:
            self._reign.notices.heard(event, self._now_ms)

    def _said(self, event: events.RegionSaid, out: list[Command]) -> None:
        """A region speaks of itself only, and only of shares and slices it has."""
        reign, message = self._reign, event.message
        region = reign.regions.region_of(event.session) if reign else None
        if reign is None or region is None:
            return
        match message.WhichOneof("body"):
            case "heartbeat":
                out.append(SendDown(event.session, regional_pb2.DownlinkMessage(heartbeat_ack=message.heartbeat)))
            case "summary":
                reign.regions.summaries[region] = message.summary
                reign.rooms.summed_up(region)
            case "slice_ack" if message.slice_ack.region == region:
                if mistake := reign.budgets.acknowledged(message.slice_ack):
                    reign.regions.gone(event.session)
                    out.append(CloseSession(event.session, mistake))
            case "workload":
                report = message.workload
                share = reign.records.shares.get(region, report.tenant, report.workload)
                if share is not None and share.metadata.uid == report.uid:
                    if reign.reports.heard(share, report, self._now_ms):
                        reign.budgets.reported(report.tenant)
                    reign.rooms.admitted(region, report, share)
                    reign.statuses.reported(report)
                    reign.shares.reported(region, report)

    def _settled(self, event: events.PlanSettled, out: list[Command]) -> None:
        reign = self._reign
        done = reign.landed(event.plan_id) if reign else None
        if reign is None or done is None:
            return  # of an earlier reign
        match event.settled:
            case Committed(revision=revision):
                changes = reign.records.apply(done.plan.writes, revision)
                self._spread_news(reign, changes, out)
                reign.unpublished += workload_events(reign.records, changes, revision)
            case Rejected(stale=stale):
                seen = [reign.records.adopt(key, item) for key, item in stale]
                self._spread_news(reign, [change for change in seen if change], out)
            case Deposed(message=message):
                out.append(Resign(message))
                self._lose(out)
                return
        if refusal_of_form(event.settled):
            reign.pause_until_ms = self._now_ms + self._settings.refused_pause_ms
        done.topic.settled(done.item, event.settled, out)
        out.extend(reign.publishable())

    def _spread_news(self, reign: Reign, changes: list[Change], out: list[Command]) -> None:
        for change in changes:
            reign.learn(change)
            for topic in reign.topics:
                topic.changed(change, out)

    def _fill_lanes(self, out: list[Command]) -> None:
        reign = self._reign
        if reign and self._now_ms >= reign.pause_until_ms:
            reign.held_up.clear()
            while reign.free_lanes and self._take_one(reign, out):
                pass

    def _take_one(self, reign: Reign, out: list[Command]) -> bool:
        """The next proposal that can go. Its topic is asked last the next time, so that a flood of mutations cannot
        hold up a budget."""
        for topic in list(reign.topics):
            proposal = topic.propose(self._now_ms, out)
            if proposal is None:
                continue
            commit = reign.send(self._plans + 1, topic, proposal)
            if commit is None:
                topic.settled(proposal.item, Rejected("sealed"), out)  # not sent: planned again after the other
                reign.held_up.append(topic)
                continue
            self._plans += 1
            out.append(commit)
            return True
        return False
