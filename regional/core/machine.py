"""The regional scheduler: everything it can do, in two tables.

`handle` takes what happened and returns what is to be done; `next_deadline` says when to wake it with `Woke`. A leader
has a `State`, a standby has none. After every event the free lanes are filled: `_SOURCES` is the order in which work
for a lane is looked for, `_SETTLED` what follows when it is answered. Invariants live with the transactions
(transactions.py) and the state (state.py); each topic module decides one thing.
"""

from collections.abc import Callable
from typing import Any

from atoll.errors import require
from atoll.lane import Committed, Deposed, Rejected
from regional.config import CoreSettings
from regional.core import binding, closing, events, node_life, shares, slices, takeover, transactions
from regional.core import commands as do
from regional.core.reports import Reporter
from regional.core.state import State, Turn
from regional.core.transactions import Operation

_Source = Callable[[State, int, Turn], Operation | None]


def _asked(state: State, lane: int, turn: Turn) -> Operation | None:
    return transactions.asked(lane, *state.asked.pop(0)) if state.asked else None


def _touch(state: State, lane: int, turn: Turn) -> Operation | None:
    return transactions.touch(lane) if turn.now_ms >= _touch_due_ms(state) else None


def _touch_due_ms(state: State) -> int:
    return state.applied_sent_ms + state.settings.touch_after_ms


_SOURCES: tuple[_Source, ...] = (
    _asked,
    lambda state, lane, turn: node_life.next_nodes(state, lane),
    lambda state, lane, turn: closing.next_replace(state, lane),
    lambda state, lane, turn: shares.next_admission(state, lane),
    lambda state, lane, turn: slices.next_slice(state, lane),
    lambda state, lane, turn: closing.next_clear(state, lane),
    lambda state, lane, turn: closing.next_forget(state, lane),
)
_BULK: tuple[_Source, ...] = (closing.next_release, binding.next_bind)  # take turns


class Machine:
    def __init__(self, region: str, settings: CoreSettings) -> None:
        self.region = region
        self.settings = settings
        self.state: State | None = None
        self._lanes: list[int] = []  # the plan in flight, 0 = free
        self._paused_ms: list[int] = []  # a lane rests until then
        self._plans = 0
        self._bulk = 0
        self._checked_ms = 0
        self._handled_ms = 0
        self._reporter = Reporter(0)

    @property
    def epoch(self) -> int:
        """Of this region, as the global plane last said; 0 = not known."""
        return self.state.epoch if self.state else 0

    def handle(self, event: events.Event, now_ms: int) -> list[do.Command]:
        require(now_ms >= self._handled_ms, "time never goes back")
        turn = Turn(now_ms)
        if isinstance(event, events.LeadershipWon):
            self._win(event, turn)
        elif self.state is None:
            _refuse_as_standby(event, turn)
        elif isinstance(event, events.LeadershipLost):
            self._lose(event.reason, turn)
        else:
            if now_ms - self._handled_ms > self.settings.stall_ms:
                self.state.liveness.grace_from_ms = now_ms  # we were away, not they
            self._dispatch(self.state, event, turn)
        self._handled_ms = now_ms
        if self.state:
            self._fill_lanes(self.state, turn)
            self._reporter.flush(self.state, turn)
        return turn.commands

    def next_deadline(self) -> int | None:
        """When to wake; None for a standby, which waits for events only."""
        state = self.state
        if state is None:
            return None
        deadlines = [self._checked_ms + self.settings.node_check_ms]
        deadlines += [paused for plan, paused in zip(self._lanes, self._paused_ms, strict=True) if not plan and paused > self._handled_ms]
        if 0 in self._lanes:
            deadlines.append(max(_touch_due_ms(state), self._handled_ms))
            deadlines += [due for due in (state.queue.next_due_ms(),) if due is not None]
        deadlines += [due for due in (self._reporter.next_due_ms(state),) if due is not None]
        return min(deadlines)

    def _dispatch(self, state: State, event: events.Event, turn: Turn) -> None:
        match event:
            case events.NodeHeartbeat():
                node_life.heartbeat(state, event, turn)
            case events.NodeStatus():
                node_life.status(state, event, turn)
            case events.PlanSettled():
                self._settled(state, event, turn)
            case events.NodeHello():
                node_life.hello(state, event, turn)
            case events.NodeSessionEnded():
                node_life.session_ended(state, event)
            case events.ShareArrived():
                shares.share_arrived(state, event.share)
            case events.SliceArrived():
                slices.slice_arrived(state, event.stamp, turn)
            case events.WriteAsked():
                state.asked.append((event.reply_to, event.plan))
            case events.GlobalWelcomed():
                state.uplink, state.epoch = True, max(state.epoch, event.welcome.epoch)
                self._reporter.everything(state, turn)
            case events.GlobalLost():
                state.uplink = False
        if turn.now_ms >= self._checked_ms + self.settings.node_check_ms:
            self._checked_ms = turn.now_ms
            node_life.check(state, turn)

    # ---- leadership

    def _win(self, event: events.LeadershipWon, turn: Turn) -> None:
        require(self.state is None, "I5: a leader wins once a term")
        self.state = takeover.take_over(self.region, self.settings, event, turn)
        self._lanes = [0] * self.settings.lanes
        self._paused_ms = [0] * self.settings.lanes
        self._checked_ms = turn.now_ms
        self._reporter = Reporter(turn.now_ms)

    def _lose(self, reason: str, turn: Turn) -> None:
        """Forgets everything: only the store knows what the next leader does. Agents and callers ask again."""
        state, self.state = self.state, None
        if state is None:
            return
        for session in state.sessions:
            turn.do(do.CloseSession(session, f"not the leader: {reason}"))
        for operation in state.in_flight.values():
            if isinstance(operation, transactions.Asked):
                turn.do(do.Reply(operation.reply_to, 0, "leadership was lost; the outcome is not known", unknown=True))
        for reply_to, _ in state.asked:
            turn.do(do.Reply(reply_to, 0, "not the leader"))

    # ---- lanes

    def _fill_lanes(self, state: State, turn: Turn) -> None:
        for lane, plan in enumerate(self._lanes):
            if plan or turn.now_ms < self._paused_ms[lane]:
                continue
            operation = self._next_operation(state, lane, turn)
            if operation is None:
                return
            self._plans += 1
            self._lanes[lane] = self._plans
            self._paused_ms[lane] = 0
            state.in_flight[self._plans] = operation
            turn.do(do.Commit(self._plans, lane, operation.plan))

    def _next_operation(self, state: State, lane: int, turn: Turn) -> Operation | None:
        self._bulk = 1 - self._bulk
        for source in (*_SOURCES, _BULK[self._bulk], _BULK[1 - self._bulk], _touch):
            operation = source(state, lane, turn)
            if operation:
                return operation
        return None

    def _settled(self, state: State, event: events.PlanSettled, turn: Turn) -> None:
        operation = state.in_flight.pop(event.plan_id, None)
        if operation is None:
            return  # of an earlier term
        self._lanes[operation.lane] = 0
        on_commit, on_reject = _SETTLED[type(operation)]
        match event.settled:
            case Committed(revision=revision):
                state.revision = max(state.revision, revision)
                state.applied_sent_ms = max(state.applied_sent_ms, event.sent_ms)
                on_commit(state, operation, revision, turn)
            case Rejected(message=message, stale=stale):
                learnt = takeover.adopt(state, stale, turn)
                if not learnt and message != "sealed" and not isinstance(operation, transactions.Asked):
                    self._paused_ms[operation.lane] = turn.now_ms + self.settings.refused_pause_ms
                on_reject(state, operation, message, turn)
            case Deposed(message=message):
                state.in_flight[event.plan_id] = operation
                turn.do(do.Resign(message))
                self._lose(message, turn)


def _refuse_as_standby(event: events.Event, turn: Turn) -> None:
    if isinstance(event, events.NodeHello):
        turn.do(do.CloseSession(event.session, "not the leader"))
    elif isinstance(event, events.WriteAsked):
        turn.do(do.Reply(event.reply_to, 0, "not the leader"))


_Settled = tuple[Callable[[State, Any, int, Turn], None], Callable[[State, Any, str, Turn], None]]
_SETTLED: dict[type[Operation], _Settled] = {
    transactions.Bind: (binding.bind_committed, lambda s, o, m, t: binding.bind_rejected(s, o, t)),
    transactions.Release: (closing.release_committed, lambda s, o, m, t: closing.release_rejected(s, o, t)),
    transactions.Clear: (
        lambda s, o, r, t: closing.clear_committed(s, o),
        lambda s, o, m, t: closing.clear_rejected(s, o),
    ),
    transactions.Forget: (
        lambda s, o, r, t: closing.forget_committed(s, o),
        lambda s, o, m, t: closing.forget_rejected(s, o),
    ),
    transactions.AdmitShare: (shares.admission_committed, lambda s, o, m, t: shares.admission_rejected(s, o)),
    transactions.ApplySlice: (slices.slice_committed, lambda s, o, m, t: slices.slice_rejected(s, o)),
    transactions.WriteNodes: (node_life.nodes_committed, lambda s, o, m, t: node_life.nodes_rejected(s, o, t)),
    transactions.Asked: (
        lambda s, o, r, t: t.do(do.Reply(o.reply_to, r)),
        lambda s, o, m, t: t.do(do.Reply(o.reply_to, 0, m)),
    ),
    transactions.Touch: (lambda s, o, r, t: None, lambda s, o, m, t: None),
}
