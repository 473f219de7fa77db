"""The node agent's core: every event it knows, and the commands that answer it.

State: the ledger (durable refusals), the lease (heartbeats), the slots (what runs) and the streams to the candidates of
the region. Only the leader's messages count, and in this order: Welcome, Sync, then the rest; the first Sync is the
whole truth, later copies are ignored. Nothing here waits: what must be durable first goes on when CheckpointWritten
says so.
"""

from collections.abc import Callable
from typing import Any

from agent.config import Timing
from agent.core import events
from agent.core.commands import Command, SendUp, WriteCheckpoint
from agent.core.fencing import Ledger
from agent.core.lease import Lease
from agent.core.report import Report, certificates
from agent.core.slots import Slots
from agent.core.streams import Stream, Streams
from atoll.api.v1 import agent_pb2
from atoll.errors import require


class Machine:
    def __init__(self, hello: agent_pb2.Hello, timing: Timing) -> None:
        """`hello`: the node's name, capacity, labels, version and address; the rest is filled in here."""
        self._template = hello
        self._timing = timing
        self._booted = False
        self._writing: int | None = None
        self._retry_ms: int | None = None
        self._report_ms: int | None = None
        self._adopt(events.Booted(None, 0, (), None), 0)
        self._out: list[Command] = []

    def handle(self, event: events.Event, now_ms: int) -> list[Command]:
        require(self._booted or isinstance(event, events.Booted), "the first event is Booted")
        self._out = []
        _EVENTS[type(event)](self, event, now_ms)
        self._out += self._streams.commands
        self._streams.commands.clear()
        self._beat(now_ms)
        self._settle(now_ms)
        self._send_report(now_ms)
        return self._out

    def next_deadline(self) -> int | None:
        deadlines = (
            self._retry_ms,
            self._report_ms,
            self._lease.next_deadline(),
            self._slots.next_deadline(),
            self._streams.next_deadline(),
        )
        return min([deadline for deadline in deadlines if deadline is not None], default=None)

    # ------------------------------------------------------------------ events

    def _on_booted(self, event: events.Booted, now_ms: int) -> None:
        self._booted = True
        self._adopt(event, now_ms)

    def _adopt(self, event: events.Booted, now_ms: int) -> None:
        self._ledger = Ledger(event.saved)
        self._lease = Lease(event.terms, now_ms)
        self._slots = Slots(self._ledger, self._lease, self._timing)
        self._report = Report(self._ledger, self._slots)
        hello = agent_pb2.Hello()
        hello.CopyFrom(self._template)
        hello.incarnation = event.incarnation
        self._streams = Streams(hello, self._ledger, self._lease, self._report, self._timing)
        self._slots.adopt(event.found, now_ms)

    def _on_region_said(self, event: events.RegionSaid, now_ms: int) -> None:
        stream = self._streams.find(event.session)
        body = event.message.WhichOneof("body") or ""
        if stream is None or not body:
            return
        if body in _OF_ANY:
            _OF_ANY[body](self, stream, getattr(event.message, body), now_ms)
        elif stream is self._streams.leader and body in (_OF_THE_LEADER if self._streams.synced else ("sync", "ack")):
            _OF_THE_LEADER[body](self, getattr(event.message, body), now_ms)

    def _on_written(self, event: events.CheckpointWritten, now_ms: int) -> None:
        self._writing = None
        self._report.storage("")
        for slot in self._ledger.written(event.version):
            self._slots.touch(slot)

    def _on_write_failed(self, event: events.CheckpointFailed, now_ms: int) -> None:
        self._writing = None
        self._report.storage(event.reason)
        self._retry_ms = now_ms + self._timing.checkpoint_retry_ms

    def _on_storage_tested(self, event: events.StorageTested, now_ms: int) -> None:
        idle = self._retry_ms is None and self._writing is None  # else a write tells, and is larger
        if event.failure or idle:
            self._report.storage(event.failure)

    def _on_images_held(self, event: events.ImagesHeld, now_ms: int) -> None:
        self._report.images = event.names

    def _on_woke(self, event: events.Woke, now_ms: int) -> None:
        self._slots.wake(now_ms)
        if self._retry_ms is not None and now_ms >= self._retry_ms:
            self._retry_ms = None
        self._streams.wake(now_ms)

    # ------------------------------------------------------------------ messages of the region

    def _on_welcome(self, stream: Stream, welcome: agent_pb2.Welcome, now_ms: int) -> None:
        if self._streams.welcomed(stream, welcome, now_ms):
            self._slots.lease_moved()

    def _on_ack(self, ack: agent_pb2.HeartbeatAck, now_ms: int) -> None:
        # Before the Sync an answer shows life, but is no lease: work may be assigned here that has moved away.
        welcome = self._streams.welcome
        answered = welcome is not None and ack.term == welcome.term
        if answered and self._lease.acknowledged(ack.seq, now_ms, extends=self._streams.synced):
            self._slots.lease_moved()

    def _on_sync(self, sync: agent_pb2.Sync, now_ms: int) -> None:
        streams = self._streams
        if streams.leader is None or streams.welcome is None or streams.synced or sync.term != streams.welcome.term:
            return
        streams.synced = True
        self._lease.beat_now(now_ms)
        self._slots.sync(sync, streams.welcome.store_life, certificates(streams.leader.told), now_ms)

    # ------------------------------------------------------------------ what follows every event

    def _beat(self, now_ms: int) -> None:
        if heartbeat := self._lease.beat(now_ms):
            self._send(agent_pb2.AgentMessage(heartbeat=heartbeat))

    def _settle(self, now_ms: int) -> None:
        commands, touched = self._slots.settle(now_ms)
        self._out += commands
        if touched:
            self._report.changed(touched)
        for slot, rank in self._slots.asked_again:
            self._report.repeat(slot, rank)
        self._slots.asked_again.clear()
        if self._ledger.dirty and self._writing is None and self._retry_ms is None:
            self._writing = self._ledger.version
            self._out.append(WriteCheckpoint(self._writing, self._ledger.saved()))

    def _send_report(self, now_ms: int) -> None:
        if not self._streams.synced or not self._report.pending:  # a region hears nothing between Hello and Welcome
            self._report_ms = None
        elif self._report_ms is None:
            self._report_ms = now_ms + self._timing.report_ms
        elif now_ms >= self._report_ms:
            self._report_ms = None
            if (news := self._report.changes()) is not None:
                self._send(agent_pb2.AgentMessage(status=news))

    def _send(self, message: agent_pb2.AgentMessage) -> None:
        if self._streams.leader:
            self._out.append(SendUp(self._streams.leader.number, message))


_EVENTS: dict[type, Callable[[Machine, Any, int], None]] = {
    events.Booted: Machine._on_booted,
    events.Connected: lambda m, e, now_ms: m._streams.connected(e.session, now_ms),
    events.Disconnected: lambda m, e, now_ms: m._streams.disconnected(e.session, now_ms),
    events.RegionSaid: Machine._on_region_said,
    events.CheckpointWritten: Machine._on_written,
    events.CheckpointFailed: Machine._on_write_failed,
    events.StorageTested: Machine._on_storage_tested,
    events.DriversOffered: lambda m, e, now_ms: m._streams.offers(e.drivers, now_ms),
    events.ImagesHeld: Machine._on_images_held,
    events.DriverDelayed: lambda m, e, now_ms: m._slots.delayed(e.run, e.reason),
    events.DriverStarted: lambda m, e, now_ms: m._slots.started(e.run, now_ms),
    events.DriverStartFailed: lambda m, e, now_ms: m._slots.start_failed(e.run, e.reason, now_ms),
    events.DriverExited: lambda m, e, now_ms: m._slots.ended(e.run, e.exit, now_ms),
    events.DriverStopped: lambda m, e, now_ms: m._slots.stopped(e.run, e.exit, now_ms),
    events.ProbeAnswered: lambda m, e, now_ms: m._slots.probed(e.probe_id, e.ok, e.message, now_ms),
    events.Woke: Machine._on_woke,
}
_OF_ANY: dict[str, Callable[[Machine, Stream, Any, int], None]] = {
    "leading": lambda m, stream, message, now_ms: m._streams.says_leading(stream, message, now_ms),
    "not_leader": lambda m, stream, message, now_ms: m._streams.says_not_leader(stream, message, now_ms),
    "welcome": Machine._on_welcome,
}
_OF_THE_LEADER: dict[str, Callable[[Machine, Any, int], None]] = {
    "ack": Machine._on_ack,
    "sync": Machine._on_sync,
    "assign": lambda m, message, now_ms: m._slots.assign(message, now_ms),
    "stop": lambda m, message, now_ms: m._slots.stop(message, now_ms),
    "settled": lambda m, message, now_ms: m._slots.settled(message),
}
