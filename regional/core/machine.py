"""The regional scheduler: everything it can do, in two tables.

`handle` takes what happened, returns what is to be done; `next_deadline` says when to wake it. A leader has a `State`,
a standby none. Free lanes are filled after every event: `_TURNS` says by what, `_SETTLED` what follows the answer.
"""

from collections.abc import Callable

from atoll.errors import require
from atoll.lane import Committed, Deposed, Rejected
from regional.config import CoreSettings
from regional.core import (
    authority,
    binding,
    events,
    forgetting,
    gangs,
    global_plane,
    interactive,
    node_changes,
    node_life,
    preemption,
    releasing,
    removal,
    shares,
    slices,
    speculation,
    takeover,
)
from regional.core import commands as do
from regional.core import transactions as tx
from regional.core.class_rows import Evaluator
from regional.core.reports import Reporter
from regional.core.standby import Standby
from regional.core.state import Handlers, State, Turn

_Source = Callable[[State, int, Turn], tx.Operation | None]
_URGENT: tuple[_Source, ...] = (
    global_plane.next_note,
    authority.next_asked,
    node_life.next_nodes,
    node_changes.next_change,
    removal.next_removal,
    releasing.next_replace,
    slices.next_slice,
)
_MADE: tuple[_Source, ...] = (gangs.next_step, preemption.next_preemption, gangs.next_step)  # a turn that just came
_LAST: tuple[_Source, ...] = (*_MADE, authority.next_touch)
# for a lane that is for interactive work alone, and for others: what comes first, and what takes turns before the last
_FIRST = {True: (*_URGENT, *_MADE), False: (*_URGENT, forgetting.next_clear, forgetting.next_forget, *_MADE)}
_TURNS: dict[bool, tuple[_Source, ...]] = {
    True: (shares.next_prompt_admission, binding.next_prompt_bind),
    False: (shares.next_admission, releasing.next_release, binding.next_bind),
}


class Machine:
    def __init__(self, region: str, settings: CoreSettings, evaluator: Evaluator | None = None) -> None:
        self.settings, self._evaluator = settings, evaluator
        self.state: State | None = None
        self._standby = Standby(region, settings)
        self._lanes: list[int] = []  # the plan in flight, 0 = free
        self._paused_ms: list[int] = []  # a lane rests until then
        self._plans = 0
        self._order = {prompt: (*_FIRST[prompt], *turns, *_LAST) for prompt, turns in _TURNS.items()}
        self._checked_ms = self._handled_ms = 0
        self._reporter = Reporter(0)

    def handle(self, event: events.Event, now_ms: int) -> list[do.Command]:
        require(now_ms >= self._handled_ms, "time never goes back")
        turn = Turn(now_ms, isinstance(event, events.Woke))
        if self.state is None:
            if won := self._standby.handle(event, turn):
                self._begin(won, turn)
        elif isinstance(event, events.LeadershipLost):
            self._lose(self.state, turn)
        else:
            away = now_ms - self._handled_ms > self.settings.stall_ms
            if away or isinstance(event, events.FellBehind):
                self.state.liveness.grace_from_ms = now_ms  # we were away, not they
            self._dispatch(self.state, event, turn)
        self._handled_ms = now_ms
        if self.state:
            self._fill_lanes(self.state, turn)
            self._reporter.flush(self.state, turn)
        return turn.commands

    def next_deadline(self) -> int | None:
        """When to wake; None for a standby."""
        if (state := self.state) is None:
            return None
        due_ms = min(self._checked_ms + self.settings.node_check_ms, self._reporter.next_due_ms(state))
        work_ms = max(min(authority.touch_due_ms(state), binding.due_ms(state, self._handled_ms)), self._handled_ms)
        for plan, paused_ms in zip(self._lanes, self._paused_ms, strict=True):
            if not plan:
                due_ms = min(due_ms, paused_ms if paused_ms > self._handled_ms else work_ms)
        return due_ms

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
            case events.WriteAsked() | events.NodeChangeAsked():
                authority.ask(state, event)
            case _ if isinstance(event, global_plane.Said):
                global_plane.said(state, event, turn)
                if isinstance(event, events.GlobalWelcomed):
                    self._reporter.everything(state, turn)
            case events.RecordsRead() | events.LeadershipWon():
                require(False, "I5: a leader wins once a term")
        if turn.now_ms >= self._checked_ms + self.settings.node_check_ms:
            self._checked_ms = turn.now_ms
            for check in (node_life.check, removal.check, preemption.check, speculation.check):
                check(state, turn)
            slices.check(state, turn.now_ms)

    # ---- leadership

    def _begin(self, state: State, turn: Turn) -> None:
        self.state, state.evaluator = state, self._evaluator
        self._lanes, self._paused_ms = [0] * self.settings.lanes, [0] * self.settings.lanes
        self._reporter, self._checked_ms = Reporter(turn.now_ms), turn.now_ms

    def _lose(self, state: State, turn: Turn) -> None:
        """Forgets everything: only the store knows what the next leader does. Agents say hello again, callers ask."""
        self.state, self._reporter = None, Reporter(0)
        authority.deny_all(state, turn)

    # ---- lanes

    def _fill_lanes(self, state: State, turn: Turn) -> None:
        for lane, plan in enumerate(self._lanes):
            if plan or turn.now_ms < self._paused_ms[lane]:
                continue
            kept = interactive.keeps(state, lane, turn.now_ms)
            operation = self._next_operation(state, lane, turn, prompt=kept)
            if operation is None:
                if kept:
                    continue
                return
            self._plans += 1
            self._lanes[lane], self._paused_ms[lane] = self._plans, 0
            state.in_flight[self._plans] = operation
            turn.do(do.Commit(self._plans, lane, operation.plan))

    def _next_operation(self, state: State, lane: int, turn: Turn, *, prompt: bool) -> tx.Operation | None:
        order = self._order[prompt]
        for source in order:
            if operation := source(state, lane, turn):
                if source in _TURNS[prompt]:  # the one that had a lane last comes last
                    self._order[prompt] = (*(s for s in order[: -len(_LAST)] if s is not source), source, *_LAST)
                return operation
        return None

    def _settled(self, state: State, event: events.PlanSettled, turn: Turn) -> None:
        operation = state.in_flight.pop(event.plan_id, None)
        if operation is None:  # of an earlier term
            return
        self._lanes[operation.lane] = 0
        on_commit, on_reject = _SETTLED[type(operation)]
        match event.settled:
            case Committed(revision=revision):
                state.revision = max(state.revision, revision)
                state.applied_sent_ms = max(state.applied_sent_ms, event.sent_ms)
                on_commit(state, operation, revision, turn)
            case Rejected(message=message, stale=stale):
                learnt = takeover.adopt(state, stale, turn)
                if not learnt and message != "sealed" and not isinstance(operation, tx.Asked):
                    self._paused_ms[operation.lane] = turn.now_ms + self.settings.refused_pause_ms
                on_reject(state, operation, turn)
            case Deposed(message=message):
                state.in_flight[event.plan_id] = operation
                turn.do(do.Resign(message))
                self._lose(state, turn)


_SETTLED: Handlers = {
    tx.Bind: (binding.bind_committed, binding.bind_rejected),
    tx.Release: (speculation.release_committed, releasing.release_rejected),
    **gangs.SETTLED,
    **preemption.SETTLED,
    tx.Clear: (forgetting.clear_committed, forgetting.clear_rejected),
    tx.Forget: (forgetting.forget_committed, forgetting.forget_rejected),
    tx.NoteGlobal: (global_plane.note_committed, global_plane.note_rejected),
    tx.AdmitShares: (shares.admission_committed, shares.admission_rejected),
    tx.ApplySlice: (slices.slice_committed, slices.slice_rejected),
    tx.WriteNodes: (node_life.nodes_committed, node_life.nodes_rejected),
    tx.ChangeNode: (node_changes.change_committed, node_changes.change_rejected),
    tx.RemoveNode: (removal.removal_committed, removal.removal_rejected),
    tx.Asked: (authority.asked_committed, authority.asked_rejected),
    tx.Touch: (lambda *_: None, lambda *_: None),
}
