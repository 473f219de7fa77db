"""Moves work off nodes: those that are draining, and those with a NO_EXECUTE taint that the work does not tolerate.

A service's replica of class `keep` that serves is moved make-before-break: another one is bound first (surging.py), and
this one is stopped when that has been ready for its minimum time; at most `disruption_percent` of a task (but one at
least) is on its way at a time. Where no node has room for both, or the tenant's quota none for `surge_wait_ms`, and for
other classes, the old one ends before the new one begins: it is asked only while so few of its task would be down, and
while another node has room for it. What serves nobody is moved at once. A job's replica is left to its end. After the
deadline everything is asked at once.

A replica is stopped by asking its agent to close it; only the certificate frees its slot. Wishes live in the node's
record: a new leader goes on where the last one stopped. Keeps I1 and I2: nothing moves without a certificate.
"""

from collections import Counter
from collections.abc import Iterator

from regional.core import binding, closing, node_life, surging
from regional.core.commands import Announce
from regional.core.promises import Promises
from regional.core.records import NodeEntry, SlotEntry
from regional.core.state import State, Turn
from regional.core.tally import READY, UP
from regional.core.transactions import Bind

STOPPING = "stopping"
MAKING = "about to be made elsewhere first"
MADE = "made elsewhere first: until that is ready"
TURN = "held back: enough of its task are on their way"
QUOTA = "held back: waits for quota for one more"
UNHEARD = "not heard of since the leader changed"
JOB = "of a job: until its end"
BUDGET = "held back: too many of its task are down"
ROOM = "held back: no other node has room"
_NO_QUOTA = "stopped first, because the tenant's quota has no room for one more"
_NO_ROOM = "stopped first, because no node takes one more"


class _Look:
    """One look at what leaves a node."""

    def __init__(self, state: State, promises: Promises, now_ms: int) -> None:
        self.broken: dict[bytes, str] = {}  # why what may go now was not made elsewhere first, by slot
        self._state = state
        self._promises = promises
        self._now_ms = now_ms

    def leaving(self, node: NodeEntry) -> Iterator[tuple[SlotEntry, str, str]]:
        """What has to leave a node: the entry, why, and what holds it back ("" = it may go now)."""
        for _, entry in sorted(node.slots.items()):
            if why := surging.must_leave(self._state, node, entry):
                deadline_ms, reason = why
                yield entry, reason, self._held(entry, deadline_ms)

    def _held(self, entry: SlotEntry, deadline_ms: int) -> str:
        task = entry.task
        if entry.closing or entry.busy or entry.key in self._state.releases or entry.index in task.surges:
            return STOPPING
        if self._now_ms >= deadline_ms or not entry.wanted:
            return ""
        if entry.status is None:
            return UNHEARD
        if entry.is_job:
            return JOB
        if (successor := surging.successor_of(entry)) is not None:
            return "" if surging.is_up(task, successor) else MADE
        if not entry.marks & (READY | UP):
            return "" if self._promises.instead(entry) else ROOM
        allowed = max(1, task.replicas * self._state.settings.disruption_percent // 100)
        if surging.may_surge(entry) and (held := self._made_first(entry, allowed)):
            return held
        if task.replicas - task.tally.up >= allowed:
            return BUDGET
        return "" if self._promises.instead(entry) else ROOM

    def _made_first(self, entry: SlotEntry, allowed: int) -> str:
        """What is done, or waited for, so that another one is there first; empty when that cannot be."""
        task, promises = entry.task, self._promises
        if len(task.surges) + promises.wished[task] >= allowed:
            return TURN
        if task.cls and task.cls.parked:
            self.broken[entry.key] = _NO_ROOM
        elif promises.pays(entry):
            if promises.beside(entry):
                return MAKING
            self.broken[entry.key] = _NO_ROOM
        elif promises.awaits_quota(entry):
            return QUOTA
        else:
            self.broken[entry.key] = _NO_QUOTA
        return ""


def check(state: State, promises: Promises, turn: Turn) -> None:
    """Asks what may go now; called again and again. A node that cannot be told is left until it can."""
    look = _Look(state, promises, turn.now_ms)
    for node in list(state.leaving.values()):
        for entry, reason, held in look.leaving(node) if node.welcomed else ():
            if held is MAKING:
                surging.start(state, entry, turn)
            elif not held:
                _stop(state, entry, reason, look.broken.get(entry.key, ""), turn)
        if node.record.draining and not node.drained and is_empty(state, node):
            node.drained = True
            turn.do(Announce(node_life.event(state, node.name, "NodeDrained", node.record.drain.reason, turn)))


def _stop(state: State, entry: SlotEntry, reason: str, broken: str, turn: Turn) -> None:
    task = entry.task
    if (successor := surging.successor_of(entry)) is not None:
        surging.take_over(state, task, successor, entry.index)
        broken = f"{task.name}/{successor} has taken its place"
    closing.stop(state, entry, reason, turn)
    text = f"{task.name}/{entry.index}: {reason}" + (f"; {broken}" if broken else "")
    binding.announce(turn, state, task.owner.tenant, task.owner.name, "Moved", text)


def is_empty(state: State, node: NodeEntry) -> bool:
    """Whether nothing is bound to it, may still run there, or is being bound to it."""
    if node.slots or node.reserved or node.zombies or state.planned_on(node.name):
        return False
    flying = (b.record.node for op in state.in_flight.values() if isinstance(op, Bind) for b in op.bindings)
    return node.name not in flying


def progress(state: State, node: NodeEntry, now_ms: int) -> str:
    """For people: what is left of a drain, and what each part waits for."""
    look = _Look(state, Promises(state, now_ms), now_ms)
    held = Counter(held or STOPPING for _, _, held in look.leaving(node))
    parts = [f"{count} {reason}" for reason, count in sorted(held.items())]
    parts += [f"{len(node.zombies)} may still run"] if node.zombies else []
    return "; ".join(parts) or "drained"
