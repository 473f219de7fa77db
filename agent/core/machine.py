"""The node agent's core: every event it knows, and the commands that answer it.

State: the ledger (durable refusals), the lease (heartbeats), the slots (what runs) and one session with the region.
Messages count only in their session and in this order: Welcome, Sync, then the rest; the first Sync is the whole truth,
later copies are ignored. Nothing here waits: what must be durable first goes on when CheckpointWritten says so.
"""

from collections.abc import Callable
from typing import Any

from agent.config import Timing
from agent.core import events
from agent.core.commands import Command, Reconnect, SendUp, WriteCheckpoint
from agent.core.fencing import Authority, Ledger
from agent.core.lease import Lease
from agent.core.report import Report
from agent.core.runs import Rank
from agent.core.slots import Slots
from atoll.api.v1 import agent_pb2
from atoll.errors import require
from atoll.model.slots import SlotName


class Machine:
    def __init__(self, hello: agent_pb2.Hello, timing: Timing) -> None:
        """`hello`: the node's name, capacity, labels, version and address; the rest is filled in here."""
        self._template = hello
        self._timing = timing
        self._booted = False
        self._session = 0  # 0 = none
        self._welcome: agent_pb2.Welcome | None = None
        self._synced = False  # in this session
        self._connected_ms = 0
        self._told: dict[SlotName, frozenset[Rank]] = {}  # certificates in this session's Hello
        self._writing: int | None = None
        self._retry_ms: int | None = None
        self._report_ms: int | None = None
        self._adopt(events.Booted(None, 0, (), None), 0)
        self._out: list[Command] = []

    def handle(self, event: events.Event, now_ms: int) -> list[Command]:
        require(self._booted or isinstance(event, events.Booted), "the first event is Booted")
        self._out = []
        _EVENTS[type(event)](self, event, now_ms)
        self._beat(now_ms)
        self._settle(now_ms)
        self._send_report(now_ms)
        return self._out

    def next_deadline(self) -> int | None:
        welcome_ms = self._connected_ms + self._timing.welcome_ms if self._session and not self._welcome else None
        own = (self._retry_ms, self._report_ms, self._lease.next_deadline(), self._slots.next_deadline(), welcome_ms)
        return min((d for d in own if d is not None), default=None)

    # ------------------------------------------------------------------ events

    def _on_booted(self, event: events.Booted, now_ms: int) -> None:
        self._booted = True
        self._adopt(event, now_ms)

    def _adopt(self, event: events.Booted, now_ms: int) -> None:
        self._incarnation = event.incarnation
        self._ledger = Ledger(event.saved)
        self._lease = Lease(event.terms, now_ms)
        self._slots = Slots(self._ledger, self._lease, self._timing)
        self._report = Report(self._ledger, self._slots)
        self._slots.adopt(event.found, now_ms)

    def _on_connected(self, event: events.Connected, now_ms: int) -> None:
        self._leave()
        self._session, self._connected_ms = event.session, now_ms
        self._settle(now_ms)
        hello = agent_pb2.Hello()
        hello.CopyFrom(self._template)
        hello.incarnation = self._incarnation
        hello.highest_term, hello.store_life = self._ledger.authority.term, self._ledger.authority.store_life
        hello.fence_after_ms = self._lease.terms.fence_after_ms
        hello.inventory.extend(self._report.full())
        self._told = self._report.certificates_told()
        self._send(agent_pb2.AgentMessage(hello=hello))

    def _on_disconnected(self, event: events.Disconnected, now_ms: int) -> None:
        if event.session == self._session:
            self._leave()

    def _on_region_said(self, event: events.RegionSaid, now_ms: int) -> None:
        if event.session != self._session:
            return
        body = event.message.WhichOneof("body") or ""
        first = ("welcome",) if self._welcome is None else ("sync", "ack")
        later = body in _MESSAGES and body != "welcome" and self._synced
        if body == "not_leader" or body in first or later:
            _MESSAGES[body](self, getattr(event.message, body), now_ms)

    def _on_written(self, event: events.CheckpointWritten, now_ms: int) -> None:
        self._writing = None
        self._report.storage("")
        for slot in self._ledger.written(event.version):
            self._slots.touch(slot)

    def _on_write_failed(self, event: events.CheckpointFailed, now_ms: int) -> None:
        self._writing = None
        self._report.storage(event.reason)
        self._retry_ms = now_ms + self._timing.checkpoint_retry_ms

    def _on_woke(self, event: events.Woke, now_ms: int) -> None:
        self._slots.wake(now_ms)
        if self._retry_ms is not None and now_ms >= self._retry_ms:
            self._retry_ms = None
        if self._session and self._welcome is None and now_ms >= self._connected_ms + self._timing.welcome_ms:
            self._reconnect("no Welcome in time")
        elif self._lease.silent_ms(now_ms) > self._timing.missed_heartbeats * self._lease.heartbeat_ms:
            self._reconnect("heartbeats are not answered")

    # ------------------------------------------------------------------ messages of the region

    def _on_welcome(self, welcome: agent_pb2.Welcome, now_ms: int) -> None:
        if not self._ledger.obeys(Authority(welcome.store_life, welcome.epoch, welcome.term)):
            self._reconnect(f"a stale leader: term {welcome.term} is below {self._ledger.authority.term}")
        else:
            self._welcome = welcome
            self._lease.welcome(welcome, now_ms)
            self._slots.lease_moved()

    def _on_ack(self, ack: agent_pb2.HeartbeatAck, now_ms: int) -> None:
        # Before the Sync an answer shows life, but is no lease: work may be assigned here that has moved away.
        answered = self._welcome is not None and ack.term == self._welcome.term
        if answered and self._lease.acknowledged(ack.seq, now_ms, extends=self._synced):
            self._slots.lease_moved()

    def _on_sync(self, sync: agent_pb2.Sync, now_ms: int) -> None:
        if self._welcome is None or self._synced or sync.term != self._welcome.term:
            return
        self._synced = True
        self._lease.beat_now(now_ms)
        self._slots.sync(sync, self._welcome.store_life, self._told, now_ms)

    # ------------------------------------------------------------------ what follows every event

    def _beat(self, now_ms: int) -> None:
        if heartbeat := self._lease.beat(now_ms):
            self._send(agent_pb2.AgentMessage(heartbeat=heartbeat))

    def _settle(self, now_ms: int) -> None:
        commands, touched = self._slots.settle(now_ms)
        self._out += commands
        self._report.changed(touched)
        for slot, rank in self._slots.asked_again:
            self._report.repeat(slot, rank)
        self._slots.asked_again.clear()
        if self._ledger.dirty and self._writing is None and self._retry_ms is None:
            self._writing = self._ledger.version
            self._out.append(WriteCheckpoint(self._writing, self._ledger.saved()))

    def _send_report(self, now_ms: int) -> None:
        if not self._synced or not self._report.pending:  # a region hears nothing between Hello and Welcome
            self._report_ms = None
        elif self._report_ms is None:
            self._report_ms = now_ms + self._timing.report_ms
        elif now_ms >= self._report_ms:
            self._report_ms = None
            if news := self._report.changes():
                self._send(agent_pb2.AgentMessage(status=agent_pb2.StatusReport(attempts=news)))

    def _send(self, message: agent_pb2.AgentMessage) -> None:
        self._out.append(SendUp(self._session, message))

    def _reconnect(self, reason: str, address: str = "") -> None:
        if self._session:
            self._out.append(Reconnect(self._session, reason, address))
        self._leave()

    def _leave(self) -> None:
        self._session, self._welcome, self._synced = 0, None, False
        self._lease.disconnect()


_EVENTS: dict[type, Callable[[Machine, Any, int], None]] = {
    events.Booted: Machine._on_booted,
    events.Connected: Machine._on_connected,
    events.Disconnected: Machine._on_disconnected,
    events.RegionSaid: Machine._on_region_said,
    events.CheckpointWritten: Machine._on_written,
    events.CheckpointFailed: Machine._on_write_failed,
    events.DriverStarted: lambda m, e, now_ms: m._slots.started(e.run, now_ms),
    events.DriverStartFailed: lambda m, e, now_ms: m._slots.start_failed(e.run, e.reason, now_ms),
    events.DriverExited: lambda m, e, now_ms: m._slots.ended(e.run, e.exit, now_ms),
    events.DriverStopped: lambda m, e, now_ms: m._slots.stopped(e.run, e.exit, now_ms),
    events.ProbeAnswered: lambda m, e, now_ms: m._slots.probed(e.probe_id, e.ok, e.message, now_ms),
    events.Woke: Machine._on_woke,
}
_MESSAGES: dict[str, Callable[[Machine, Any, int], None]] = {
    "welcome": Machine._on_welcome,
    "not_leader": lambda m, message, now_ms: m._reconnect("not the leader", message.address),
    "ack": Machine._on_ack,
    "sync": Machine._on_sync,
    "assign": lambda m, message, now_ms: m._slots.assign(message, now_ms),
    "stop": lambda m, message, now_ms: m._slots.stop(message, now_ms),
    "settled": lambda m, message, now_ms: m._slots.settled(message),
}
