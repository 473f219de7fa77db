"""Surge replicas: what takes the place of a replica that leaves its node, before that one is stopped.

A surge is one more wanted index of a task, placed, charged and started as any other. It is not counted among the wanted
ones until it takes over: then the index it is for is wanted no more. So at any moment as many replicas of the task are
wanted as the share says, and one more for each surge. Which surge is for which replica is kept in memory only: a new
leader takes the newest of those beyond the count for surges (indices.py).

A surge needs quota beside the replica it is for. What the region lacks for that it asks of the global plane with each
acknowledgement (`wish`), which grants it where the quota has room.

A surge is given up when what it is for stays where it is or is not wanted any more, when its own node is to be left,
and when no node or no quota takes it. Decides nothing about who leaves: draining.py, rebalancing.py. Keeps I1 and I3:
to the store it is a slot like any other.
"""

from collections.abc import Collection, Mapping
from itertools import count

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.accounts import HARD, NONE, ByAccount, charged_to
from regional.core import closing, shares
from regional.core.filters import untolerated
from regional.core.indices import UNKNOWN
from regional.core.records import NodeEntry, SlotEntry, TaskEntry
from regional.core.state import State, Turn
from regional.core.tally import UP

_NO_EXECUTE = (objects_pb2.TAINT_EFFECT_NO_EXECUTE,)
_ENDING = (agent_pb2.ATTEMPT_PHASE_STOPPING, agent_pb2.ATTEMPT_PHASE_CLOSED)
_KEEP = (objects_pb2.RUN_CLASS_UNSPECIFIED, objects_pb2.RUN_CLASS_KEEP)


def why_leaves(state: State, node: NodeEntry, entry: SlotEntry) -> tuple[int, str] | None:
    """Why a replica goes elsewhere, and until when that is tried; None when it stays."""
    migration = state.balance.migrations.get(entry.key)
    return must_leave(state, node, entry) or ((migration.until_ms, migration.reason) if migration else None)


def must_leave(state: State, node: NodeEntry, entry: SlotEntry) -> tuple[int, str] | None:
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


def may_surge(entry: SlotEntry) -> bool:
    """Whether two may run at a time: services of class `keep`. What is being updated is replaced by that; members of a
    gang are placed together only."""
    spec = entry.task.spec
    return not (entry.is_job or entry.outdated or spec is None or spec.gang) and entry.record.run_class in _KEEP


def successor_of(entry: SlotEntry) -> int | None:
    return next((new for new, old in entry.task.surges.items() if old == entry.index), None)


def is_up(task: TaskEntry, new: int) -> bool:
    entry = task.entries.get(new)
    return entry is not None and bool(entry.marks & UP)


def start(state: State, entry: SlotEntry, turn: Turn) -> None:
    """Wants one more replica, to take the place of this one. It has run, so headroom is open to it."""
    task = entry.task
    taken = {*task.wanted, *task.entries, *task.in_flight}
    new = next(i for i in count(task.replicas) if i not in taken)
    task.surges[new] = entry.index
    task.wanted = {*task.wanted, new}
    state.surging[task] = None
    if task.cls:
        state.queue.put(task.cls, (new,), turn.now_ms, entry.record.node, ran=True)


def take_over(state: State, task: TaskEntry, new: int, old: int) -> None:
    """From here on the surge is one of those wanted, and what it was for is not."""
    del task.surges[new]
    task.wanted = {i for i in task.wanted if i != old}
    _derive(state, task, old, new)


def check(state: State, turn: Turn) -> None:
    """Gives up the surges that nobody needs any more, and those that cannot be had."""
    for task in list(state.surging):
        for new, old in list(task.surges.items()):
            _look(state, task, new, old, turn)
        if not task.surges:
            del state.surging[task]


def wish(state: State, beside: Mapping[str, ByAccount], moving: Collection[str], now_ms: int) -> None:
    """What each tenant would need for surges beside its replicas: for those there are, and for what waits for quota;
    and since when nothing but that is waited for."""
    if not (state.surging or state.wishing or beside):
        return
    wishes = dict(beside)
    for task in state.surging:
        tenant = task.owner.tenant
        for old in task.surges.values():
            payer = task.entries[old].successor_account if old in task.entries else HARD
            wishes[tenant] = wishes.get(tenant, NONE) + charged_to(payer, task.request.vector)
    accounts = {**state.wishing, **{tenant: state.account(tenant) for tenant in wishes}}
    state.wishing = {tenant: accounts[tenant] for tenant in wishes}
    for tenant, account in accounts.items():
        account.surge = wishes.get(tenant, NONE)
        since_ms = now_ms if tenant in moving else account.wishes_since_ms or now_ms
        account.wishes_since_ms = since_ms if tenant in beside else 0


def _look(state: State, task: TaskEntry, new: int, old: int, turn: Turn) -> None:
    if old == UNKNOWN:
        _find_whose(state, task, new, turn)
        return
    entry = task.entries.get(old)
    if entry is None or not entry.bound:  # its node was lost meanwhile, or it has ended
        _settle(state, task, new, old, turn)
    elif why_leaves(state, state.nodes[entry.record.node], entry) is None:
        if is_up(task, new) and not entry.marks & UP:  # lost, and bound again
            take_over(state, task, new, old)
            closing.stop(state, entry, "another one serves in its place", turn)
        else:
            _give_up(state, task, new, turn)
    elif _cannot_be_had(state, task, new):
        _give_up(state, task, new, turn)


def _find_whose(state: State, task: TaskEntry, new: int, turn: Turn) -> None:
    """Once all of the task were heard of: that of one that is ending, else of one that has to leave; or nobody's."""
    others = {i: task.entries.get(i) for i in sorted(task.wanted) if i not in task.surges}
    if any(e is not None and e.bound and e.status is None for e in (*others.values(), task.entries.get(new))):
        return
    ending = next((i for i, entry in others.items() if entry is None or _is_ending(entry)), None)
    leaving = (i for i, e in others.items() if e and e.bound and must_leave(state, state.nodes[e.record.node], e))
    paired = task.surges.values()
    if ending is not None:
        entry = others[ending]
        _settle(state, task, new, ending, turn)
        if entry is not None and not entry.wanted:
            closing.stop(state, entry, "another one serves in its place", turn)
    elif (old := next((i for i in leaving if i not in paired), None)) is not None:
        task.surges[new] = old
    else:
        _give_up(state, task, new, turn)


def _is_ending(entry: SlotEntry) -> bool:
    return not (entry.bound or entry.ended) or (entry.status is not None and entry.status.phase in _ENDING)


def _settle(state: State, task: TaskEntry, new: int, old: int, turn: Turn) -> None:
    """What it is for is down: a surge that has a node takes its place at once."""
    entry = task.entries.get(new)
    if entry is None or not entry.bound:
        _give_up(state, task, new, turn)
        return
    take_over(state, task, new, old)
    shares.open_task(state, task, turn)  # the other one waits no more


def _cannot_be_had(state: State, task: TaskEntry, new: int) -> bool:
    entry = task.entries.get(new)
    if entry is not None and entry.bound:
        return must_leave(state, state.nodes[entry.record.node], entry) is not None
    return new not in task.in_flight and task.cls is not None and task.cls.parked


def _give_up(state: State, task: TaskEntry, new: int, turn: Turn) -> None:
    del task.surges[new]
    task.wanted = {i for i in task.wanted if i != new}
    entry = task.entries.get(new)
    if entry is not None and entry.bound:
        _derive(state, task, new)
        closing.stop(state, entry, "not needed any more", turn)
    else:
        shares.open_task(state, task, turn)  # it waits no more


def _derive(state: State, task: TaskEntry, *indices: int) -> None:
    for index in indices:
        if entry := task.entries.get(index):
            entry.derive()
            state.retally(entry)
