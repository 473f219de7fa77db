"""Moves work off nodes: those that are draining, and those with a NO_EXECUTE taint that the work does not tolerate.

A replica is moved by asking its agent to close it; only the certificate frees its slot, which then waits and is bound
elsewhere. So the old one ends before the new one begins, within the disruption budget: a service's replica that is up
is asked only while at most `disruption_percent` of its task (but one at least) would be down, and while another node
has room for it. A job's replica is left to its end. After the deadline everything is asked at once. Wishes live in the
node's record: a new leader goes on where the last one stopped. Keeps I1 and I2: nothing moves without a certificate.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from atoll.api.v1 import objects_pb2
from regional.core import binding, closing, node_life
from regional.core.commands import Announce
from regional.core.filters import untolerated
from regional.core.records import NodeEntry, SlotEntry
from regional.core.state import State, Turn
from regional.core.tally import READY, UP
from regional.core.transactions import Bind

_NO_EXECUTE = (objects_pb2.TAINT_EFFECT_NO_EXECUTE,)

STOPPING = "stopping"
UNHEARD = "not heard of since the leader changed"
JOB = "of a job: until its end"
BUDGET = "held back: too many of its task are down"
ROOM = "held back: no other node has room"


class _Round:
    """One look at all that leaves. Room is promised once: what was asked before counts against it."""

    def __init__(self, state: State, now_ms: int) -> None:
        self._state = state
        self._now_ms = now_ms
        self._promised: dict[int, npt.NDArray[np.int64]] = {}  # by row
        for node in state.leaving.values():
            for entry in node.slots.values():
                if entry.closing and entry.wanted:
                    self._promise(entry)

    def leaving(self, node: NodeEntry) -> Iterator[tuple[SlotEntry, str, str]]:
        """What has to leave a node: the entry, why, and what holds it back ("" = it may go now)."""
        for _, entry in sorted(node.slots.items()):
            if why := why_leaves(self._state, node, entry, self._now_ms):
                deadline_ms, reason = why
                yield entry, reason, self._held(entry, deadline_ms)

    def _held(self, entry: SlotEntry, deadline_ms: int) -> str:
        if entry.closing or entry.busy or entry.key in self._state.releases:
            return STOPPING
        if self._now_ms >= deadline_ms or not entry.wanted:
            return ""
        if entry.status is None:
            return UNHEARD
        if entry.is_job:
            return JOB
        task = entry.task
        allowed = max(1, task.replicas * self._state.settings.disruption_percent // 100)
        if entry.marks & (READY | UP) and task.replicas - task.tally.up >= allowed:
            return BUDGET
        return "" if self._promise(entry) else ROOM

    def _promise(self, entry: SlotEntry) -> bool:
        """Whether another node takes the replica beside all that was promised, and quota lets it be bound again."""
        state, task = self._state, entry.task
        account = state.account(task.owner.tenant)
        if not account.in_use().fits(account.ceiling()):
            return False
        row = state.class_row(task)
        row.refresh(task.copies)
        amounts = np.array(task.request.vector.amounts(), np.int64)
        node = state.nodes[entry.record.node]
        around = task.around.without(node.row)  # it stops before another one is placed
        for candidate in row.allowed(around).tolist():
            promised = self._promised.get(candidate, np.zeros_like(amounts))
            if (state.table.capacity[candidate] - state.table.used[candidate] - promised >= amounts).all():
                self._promised[candidate] = promised + amounts
                return True
        return False


def why_leaves(state: State, node: NodeEntry, entry: SlotEntry, now_ms: int) -> tuple[int, str] | None:
    """By when a replica has to be gone, and why; None when it may stay."""
    record = node.record
    if record.draining:
        return record.drain.deadline_ms, f"node {node.name} is drained: {record.drain.reason}"
    taints = [t for t in record.taints if untolerated(((t.key, t.value, t.effect),), entry.task.request, _NO_EXECUTE)]
    if not taints:
        return None
    since_ms = min(taint.since_ms for taint in taints)
    deadline_ms = since_ms + state.settings.eviction_deadline_s * 1_000
    return deadline_ms, f"node {node.name} has the taint {taints[0].key}"


def check(state: State, turn: Turn) -> None:
    """Asks what may go now; called again and again. A node that cannot be told is left until it can."""
    if not state.leaving:
        return
    look = _Round(state, turn.now_ms)
    for node in list(state.leaving.values()):
        for entry, reason, held in look.leaving(node) if node.welcomed else ():
            if not held:
                closing.stop(state, entry, reason, turn)
                owner = entry.task.owner
                text = f"{entry.task.name}/{entry.index}: {reason}"
                binding.announce(turn, state, owner.tenant, owner.name, "Moved", text)
        if node.record.draining and not node.drained and is_empty(state, node):
            node.drained = True
            turn.do(Announce(node_life.event(state, node.name, "NodeDrained", node.record.drain.reason, turn)))


def is_empty(state: State, node: NodeEntry) -> bool:
    """Whether nothing is bound to it, may still run there, or is being bound to it."""
    if node.slots or node.reserved or node.zombies or state.planned_on(node.name):
        return False
    flying = (b.record.node for op in state.in_flight.values() if isinstance(op, Bind) for b in op.bindings)
    return node.name not in flying


def progress(state: State, node: NodeEntry, now_ms: int) -> str:
    """For people: what is left of a drain, and what each part waits for."""
    held = Counter(held or STOPPING for _, _, held in _Round(state, now_ms).leaving(node))
    parts = [f"{count} {reason}" for reason, count in sorted(held.items())]
    parts += [f"{len(node.zombies)} may still run"] if node.zombies else []
    return "; ".join(parts) or "drained"
