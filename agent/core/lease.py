"""How long fenceable work may run: the agent's lease on its region's voice.

The deadline of `exclusive` work is the send time of the last acknowledged heartbeat + fence_after (T_a), of `bounded`
work the same + its own bound; `keep` work has none. Send time, not receipt: the region counts from its receipt, which
is later. An acknowledgement counts only in the session and term it was asked in.
"""

from dataclasses import dataclass

from atoll.api.v1 import agent_pb2, objects_pb2

MOST_PENDING = 64


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """What deadlines are counted from; kept by the guard across a restart of the agent."""

    last_ack_ms: int  # send time of the last acknowledged heartbeat; -1 = none is known
    fence_after_ms: int


class Lease:
    def __init__(self, terms: LeaseTerms | None, now_ms: int) -> None:
        # Not known: the work found here may already be late, so it counts as last acknowledged long ago.
        self.last_ack_ms = min(terms.last_ack_ms, now_ms) if terms else -1
        self.heartbeat_ms = 0
        self._fence_after_ms = terms.fence_after_ms if terms else 0
        self._seq = 0
        self._pending: dict[int, int] = {}  # seq -> send time
        self._next_ms: int | None = None
        self._heard_ms = 0

    @property
    def terms(self) -> LeaseTerms:
        return LeaseTerms(self.last_ack_ms, self._fence_after_ms)

    def welcome(self, welcome: agent_pb2.Welcome, now_ms: int) -> None:
        self.heartbeat_ms = welcome.heartbeat_ms
        self._fence_after_ms = welcome.fence_after_ms
        self._pending.clear()
        self._next_ms = self._heard_ms = now_ms

    def beat_now(self, now_ms: int) -> None:
        """After a Sync: what was asked before it does not count (see Machine), so ask again."""
        self._pending.clear()
        self._next_ms = now_ms

    def disconnect(self) -> None:
        self._pending.clear()
        self._next_ms = None

    def beat(self, now_ms: int) -> agent_pb2.Heartbeat | None:
        """The heartbeat that is due, if one is."""
        if self._next_ms is None or now_ms < self._next_ms:
            return None
        self._next_ms = now_ms + self.heartbeat_ms
        self._seq += 1
        self._pending[self._seq] = now_ms
        if len(self._pending) > MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        return agent_pb2.Heartbeat(seq=self._seq)

    def acknowledged(self, seq: int, now_ms: int, *, extends: bool) -> bool:
        """True when the deadlines moved, which only an answer that `extends` them can do."""
        sent_ms = self._pending.pop(seq, None)
        if sent_ms is None:
            return False
        self._heard_ms = now_ms
        for older in [s for s in self._pending if s < seq]:
            del self._pending[older]
        moved = extends and sent_ms > self.last_ack_ms
        if moved:
            self.last_ack_ms = sent_ms
        return moved

    def silent_ms(self, now_ms: int) -> int:
        """How long a welcomed session has said nothing about heartbeats."""
        return 0 if self._next_ms is None else now_ms - self._heard_ms

    def next_deadline(self) -> int | None:
        return self._next_ms

    def deadline_ms(self, assign: agent_pb2.Assign | None) -> int | None:
        """When this work must stop unless another heartbeat is acknowledged; None = never."""
        if assign is None:
            return None
        if assign.run_class == objects_pb2.RUN_CLASS_EXCLUSIVE:
            return self.last_ack_ms + self._fence_after_ms
        if assign.run_class == objects_pb2.RUN_CLASS_BOUNDED:
            return self.last_ack_ms + assign.bounded_s * 1000
        return None
