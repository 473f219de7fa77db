"""Why what gives way to a class that waits for room is not stopped yet: for who asks.

Looked for when it is asked, on the few nodes that lack least; what is told is about those where there would be room if
all that gives way went. Changes nothing, and decides nothing: whom to stop is making_room.py's.
"""

from itertools import islice

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from regional.core.making_room import Asker, Search, disrupted
from regional.core.queue import SchedulingClass
from regional.core.records import NodeEntry, SlotEntry, TaskEntry
from regional.core.state import State
from regional.core.tally import UP

OF_ROOM = frozenset({*explain.INSUFFICIENT.values(), explain.PROTECTED})  # only to what waits for these others give way
NODES = 64  # that are looked at
TOLD = 3  # of those where there would be room: what keeps it there takes longer to find


def reason(state: State, task: TaskEntry, cls: SchedulingClass, now_ms: int) -> objects_pb2.PendingReason | None:
    """None: nothing is in its way that would give way to it, by priority or account, and be enough; of a gang nobody
    looks."""
    if cls.gang or not cls.may_preempt:
        return None
    payer, affordable = state.account(cls.tenant).payer(task.request.vector, task.may_burst)
    if not affordable:
        return None
    told: dict[str, str] = {}
    search = Search(state, Asker(cls.tenant, cls.band, payer), now_ms)
    for node, entries, enough in islice(search.in_the_way(task, NODES), TOLD):
        if not task.owner.share.preempts:
            return explain.reason(explain.STANDS_FAST, detail="room is made for a workload in one region at a time")
        why = _why(state, node, entries, enough)
        told.setdefault(why, f"on {node.name} {why}")
    return explain.reason(explain.STANDS_FAST, detail="; ".join(told.values())) if told else None


def _why(state: State, node: NodeEntry, entries: tuple[SlotEntry, ...], enough: bool) -> str:
    """Of one node. `enough`: what may be stopped there now makes room."""
    if node.reserved:
        first = next(iter(node.reserved.values()))
        owner = first.task.owner
        return f"room is being made for {owner.tenant}/{owner.name}/{first.task.name}/{first.index} first"
    if enough:
        return f"it may be by now: that is looked at every {state.settings.preemption_period_ms // 1_000} s"
    kept = dict.fromkeys(why for entry in entries if (why := _kept(state, entry)))
    return " and ".join(kept) or "it would take from what its tenant has protected, or stop too many at once"


def _kept(state: State, entry: SlotEntry) -> str:
    """Why this one is not stopped now; empty: it may be."""
    task = entry.task
    name = f"{task.owner.tenant}/{task.owner.name}/{task.name}"
    if entry.closing or entry.busy or entry.key in state.victims or entry.key in state.releases:
        return f"replicas of {name} are ending already"
    if task.gang:
        return f"{name} is of a gang, of which nobody is stopped"
    if entry.status is None:
        return f"replicas of {name} are only starting"
    if entry.is_job or not entry.marks & UP:
        return ""
    down, allowed = disrupted(state, task)
    if down < allowed:
        return ""
    return f"the disruption budget of {name} is used up: {down} of {task.replicas} down, {allowed} may be"
