"""Who acts next for a slot, as of now, and what it will do: from its record, what its agent said last, its node, and
the reasons why it waits. Nobody, where all is as it should be or only time has to pass. Pure; changes nothing.
"""

from collections.abc import Sequence

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.api.v1.regional_pb2 import NextAct
from atoll.model import explain
from regional.core import gangs, making_way, surging
from regional.core.records import CLOSED, RESERVED, SlotEntry, TaskEntry
from regional.core.releasing import moves_without_proof
from regional.core.state import State

NOBODY, AGENT, REGION, GLOBAL = "nobody", "agent", "region", "global"
_BACKOFF, _STOPPING = agent_pb2.ATTEMPT_PHASE_BACKOFF, agent_pb2.ATTEMPT_PHASE_STOPPING
_RUNNING, _LOST = agent_pb2.ATTEMPT_PHASE_RUNNING, objects_pb2.NODE_STATE_LOST
_BUDGET = frozenset({explain.QUOTA, explain.SLICE_AWAITED})
_STARTS_AGAIN = "starts it again after a pause"


def next_act(
    state: State, task: TaskEntry, index: int, reasons: Sequence[objects_pb2.PendingReason], now_ms: int
) -> NextAct:
    """Of one slot, with a record or without."""
    entry = task.entries.get(index)
    if index in task.in_flight:
        return _act(REGION, "is writing where it goes")
    if entry and entry.busy:
        return _act(REGION, "is writing what becomes of it")
    if entry and entry.bound:
        return _of_bound(state, entry, now_ms)
    if entry and entry.record.state == RESERVED:
        return _of_reserved(state, entry)
    return _of_unplaced(state, task, index, entry, reasons, now_ms)


def _of_bound(state: State, entry: SlotEntry, now_ms: int) -> NextAct:
    node = state.nodes[entry.record.node]
    if (entry.status and entry.status.phase == CLOSED) or entry.key in state.releases:
        return _act(REGION, "writes down that it has ended, and what follows")
    if node.record.state == _LOST or not state.table.ready[node.row]:
        return _of_silent(entry, node.name)
    if entry.closing:
        return _act(AGENT, f"stops it: {entry.closing}")
    if not entry.wanted or entry.outdated:
        return _act(REGION, "has it stopped on its turn" if entry.wanted else "has it stopped")
    leaves = surging.why_leaves(state, node, entry)
    successor = surging.successor_of(entry)
    if leaves and successor is not None:
        return _act(REGION, f"stops it when {entry.task.name}/{successor}, made in its place, is up: {leaves[1]}")
    if leaves and not (entry.is_job and now_ms < leaves[0]):
        return _act(REGION, f"moves it when its task and another node allow it: {leaves[1]}")
    return _of_running(entry)


def _of_silent(entry: SlotEntry, node: str) -> NextAct:
    if moves_without_proof(entry):
        return _act(REGION, f"goes on when {node} is heard again, or places it elsewhere once {node} counts as lost")
    return _act(REGION, f"goes on when {node} is heard again, or places it elsewhere once it has surely stopped there")


def _of_running(entry: SlotEntry) -> NextAct:
    """What its agent said of it, on a node that is well."""
    status = entry.status
    if status is None or status.phase not in (_BACKOFF, _STOPPING, _RUNNING):
        return _act(AGENT, "starts it")
    if status.phase == _BACKOFF:
        return _act(AGENT, _STARTS_AGAIN)
    if status.phase == _STOPPING:
        return _act(AGENT, "stops it")
    if entry.is_job:
        return _act(NOBODY, "it runs to its end")
    if status.serving:
        return _act(NOBODY, "it serves")
    return _act(AGENT, "asks its endpoint until it answers" if status.ready else "probes it until it is ready")


def _of_reserved(state: State, entry: SlotEntry) -> NextAct:
    if victims := making_way.pending(state, entry):
        count = explain.counted(len(victims), "replica")
        return _act(AGENT, f"stops {count} on {entry.record.node} to make room for it")
    return _act(REGION, "binds it when all of its gang is reserved" if entry.record.reservation.gang else "binds it")


def _of_unplaced(
    state: State,
    task: TaskEntry,
    index: int,
    entry: SlotEntry | None,
    reasons: Sequence[objects_pb2.PendingReason],
    now_ms: int,
) -> NextAct:
    codes = {reason.code for reason in reasons}
    if entry and not entry.waits:
        return _act(NOBODY, "it has ended")
    if index not in task.wanted or task.stopped:
        return _act(NOBODY, "it is no longer wanted")
    if entry and entry.record.not_before_ms > now_ms:
        left_s = -(-(entry.record.not_before_ms - now_ms) // 1_000)
        return _act(REGION, f"places it again in {left_s} s")
    if codes & _BUDGET:
        return _act(GLOBAL, "gives the region more of the tenant's quota when there is some that is free")
    if explain.QUEUED in codes:
        return _act(REGION, "places it on its turn")
    if explain.STANDS_FAST in codes:
        return _act(REGION, "stops what gives way to it as soon as that may be stopped")
    if explain.PARALLELISM in codes:
        return _act(REGION, "places it when another one of its task has ended")
    if (hold := state.hold) and hold.cls is gangs.stands_as(task):
        nodes = explain.counted(len(hold.rows), "node")
        left_s = max(0, -(-(hold.start_ms - now_ms) // 1_000))
        return _act(REGION, f"keeps {nodes} for it, where room is expected in {left_s} s")
    return _act(REGION, "places it when what keeps it waiting has changed")


def _act(actor: str, what: str) -> NextAct:
    return NextAct(actor=actor, what=what)
