"""The streams to the candidates of the region, and which of them is the leader's.

Decides whom this node says hello to and whom it belongs to. A candidate says by itself whether it leads; the one whose
Welcome carries the highest (store life, term) obeyed is the leader, until its stream ends, it stands by, or another one
is welcomed. The rest stay open and say nothing, so that a takeover costs a Hello and not a connection.

Invariants: a Sync answers the last Hello on its stream (`told` is of that Hello), because a second Hello on one stream
is said only after the first was answered, or after a NotLeader, behind which no answer to it comes any more. Leaves to
others: what a Hello holds (report.py), who is obeyed (fencing.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.config import Timing
from agent.core.commands import Command, Dial, Reconnect, SendUp
from agent.core.fencing import Authority, Ledger
from agent.core.lease import Lease
from agent.core.report import Report, Told, inventory
from atoll.api.v1 import agent_pb2, objects_pb2

Reign = tuple[int, int]  # store life and term


@dataclass(slots=True)
class Stream:
    number: int
    reign: Reign | None = None  # in which it says it leads
    asked_ms: int | None = None  # when the Hello was said that is not answered yet
    told: Told = field(default_factory=dict)  # in its last Hello
    told_unfit: str = ""  # likewise
    told_images: tuple[str, ...] = ()  # likewise


class Streams:
    """Events about streams go in; `commands` is drained by the machine after each."""

    def __init__(self, hello: agent_pb2.Hello, ledger: Ledger, lease: Lease, report: Report, timing: Timing) -> None:
        """`hello`: all of it that stays the same, and the drivers at first."""
        self._hello = hello
        self._ledger = ledger
        self._lease = lease
        self._report = report
        self._timing = timing
        self._open: dict[int, Stream] = {}
        self.leader: Stream | None = None
        self.welcome: agent_pb2.Welcome | None = None  # of the leader
        self.synced = False  # with the leader
        self.commands: list[Command] = []

    def find(self, number: int) -> Stream | None:
        return self._open.get(number)

    # ------------------------------------------------------------------ what happens to them

    def connected(self, number: int, now_ms: int) -> None:
        stream = self._open[number] = Stream(number)
        if self.leader is None:  # it may lead: a Hello unasked saves a round trip
            self._say_hello(stream, 0, now_ms)

    def disconnected(self, number: int, now_ms: int) -> None:
        if stream := self._open.pop(number, None):
            self._release(stream, now_ms)

    def says_leading(self, stream: Stream, leading: agent_pb2.Leading, now_ms: int) -> None:
        """Not told hello: one that has been, a stale leader, and the leader we have, on another stream."""
        greeted = stream.asked_ms is not None and stream.reign is None
        stream.reign = reign = (leading.store_life, leading.term)
        ours = self.leader is not None and self.leader.reign is not None and reign <= self.leader.reign
        if reign >= self._obeyed() and not greeted and not ours:
            self._say_hello(stream, leading.term, now_ms)

    def says_not_leader(self, stream: Stream, message: agent_pb2.NotLeader, now_ms: int) -> None:
        stream.reign = stream.asked_ms = None
        if message.address:
            self.commands.append(Dial(message.address))
        self._release(stream, now_ms)

    def welcomed(self, stream: Stream, welcome: agent_pb2.Welcome, now_ms: int) -> bool:
        """Whether it is the leader from here on."""
        if stream.asked_ms is None:
            return False
        if not self._ledger.obeys(Authority(welcome.store_life, welcome.epoch, welcome.term)):
            term = self._ledger.authority.term
            self.leave(stream, f"a stale leader: term {welcome.term} is below {term}", now_ms)
            return False
        stream.asked_ms, stream.reign = None, (welcome.store_life, welcome.term)
        self.leader, self.welcome, self.synced = stream, welcome, False
        self._report.begin(stream.told, stream.told_unfit, stream.told_images)
        self._lease.welcome(welcome, now_ms)
        return True

    def offers(self, drivers: Sequence[objects_pb2.Driver.ValueType], now_ms: int) -> None:
        """Every Hello says so from here on; who was told otherwise is told on another stream."""
        if list(self._hello.drivers) == list(drivers):
            return
        self._hello.ClearField("drivers")
        self._hello.drivers.extend(drivers)
        for stream in list(self._open.values()):
            if stream is self.leader or stream.asked_ms is not None:
                self.leave(stream, "what this node can run has changed", now_ms)

    def wake(self, now_ms: int) -> None:
        """Leaves those that owe an answer for too long."""
        for stream in list(self._open.values()):
            if stream.asked_ms is not None and now_ms >= stream.asked_ms + self._timing.welcome_ms:
                self.leave(stream, "no Welcome in time", now_ms)
        patience_ms = self._timing.missed_heartbeats * self._lease.heartbeat_ms
        if self.leader and self._lease.silent_ms(now_ms) > patience_ms:
            self.leave(self.leader, "heartbeats are not answered", now_ms)

    def next_deadline(self) -> int | None:
        asked_ms = min([s.asked_ms for s in self._open.values() if s.asked_ms is not None], default=None)
        return None if asked_ms is None else asked_ms + self._timing.welcome_ms

    def leave(self, stream: Stream, reason: str, now_ms: int) -> None:
        self.commands.append(Reconnect(stream.number, reason))
        self.disconnected(stream.number, now_ms)

    # ------------------------------------------------------------------ steps

    def _release(self, stream: Stream, now_ms: int) -> None:
        """It is not the leader's, if it was. Another that says it leads is told hello."""
        if stream is not self.leader:
            return
        self.leader, self.welcome, self.synced = None, None, False
        self._lease.disconnect()
        obeyed = self._obeyed()
        leading = [s for s in self._open.values() if s.asked_ms is None and s.reign is not None and s.reign >= obeyed]
        if found := max(leading, key=lambda s: (s.reign or obeyed, s.number), default=None):
            self._say_hello(found, found.reign[1] if found.reign else 0, now_ms)

    def _say_hello(self, stream: Stream, answers_term: int, now_ms: int) -> None:
        stream.asked_ms, stream.told, stream.told_unfit = now_ms, self._report.full(), self._report.unfit
        stream.told_images = self._report.images
        hello = agent_pb2.Hello()
        hello.CopyFrom(self._hello)
        hello.store_life, hello.highest_term = self._obeyed()
        hello.fence_after_ms = self._lease.terms.fence_after_ms
        hello.answers_term = answers_term
        hello.unfit = stream.told_unfit
        if stream.told_images:
            hello.images.names.extend(stream.told_images)
        hello.inventory.extend(inventory(stream.told))
        self.commands.append(SendUp(stream.number, agent_pb2.AgentMessage(hello=hello)))

    def _obeyed(self) -> Reign:
        return self._ledger.authority.store_life, self._ledger.authority.term
