"""Preemption: room for a replica that no node takes, made by stopping bound ones of lower priorities.

One RESERVE gives the preemptor its node, names its victims and compares that each is bound as it was: so nobody is
stopped for what did not happen, and the reservation is the one record of who is stopped for whom, for the next leader
too. The node is charged for both at once, so what becomes free is kept for the preemptor. Victims are asked to close,
with the grace of their class; when the last one is released BIND-RESERVED binds the preemptor. A reservation that is
late, unwanted, or on a node that gets no more work is swept.

Only work of a lower priority, as it was asked for and not as it has aged, is stopped: so nothing that was preempted can
preempt back, and since each preemption binds something of a higher priority, they end. A service is not brought below
its disruption budget. Victims come back at the head of their class, after a pause. Which ones: making_room.py.
"""

from collections import Counter
from collections.abc import Iterable

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.store import keys
from regional.core import backfill, binding, closing, releasing, reservations
from regional.core.commands import Journal
from regional.core.gangs import bound_record, look, swept_record, together
from regional.core.making_room import Room, Search
from regional.core.queue import SchedulingClass
from regional.core.records import RESERVED, SlotEntry, TaskEntry
from regional.core.reservations import BindPreempting, Preempt, SweepOne
from regional.core.state import Handlers, State, Turn
from regional.core.transactions import Binding, Operation

_S_IN_MS = 1_000


def next_preemption(state: State, lane: int, turn: Turn) -> Operation | None:
    """First what is under way, then a class that found no room."""
    while state.preempting:
        key = next(iter(state.preempting))
        entry = state.preempting.pop(key)
        if operation := _step(state, lane, entry, turn):
            return operation
    while state.roomless:
        cls = next(iter(state.roomless))
        del state.roomless[cls]
        if operation := _preempt(state, lane, cls, turn):
            return operation
    return None


def check(state: State, turn: Turn) -> None:
    """Looks again at what is under way, and now and then at classes that still find no room; room is kept for one."""
    backfill.check(state, turn.now_ms)
    for node in state.nodes.values():
        state.preempting.update((k, e) for k, e in node.reserved.items() if not e.record.reservation.gang)
    if turn.now_ms >= state.preempted_ms + state.settings.preemption_period_ms:
        state.preempted_ms = turn.now_ms
        state.roomless.update(dict.fromkeys(cls for cls in state.queue.parked.values() if cls.short_of_room))


# ---- whom to stop


def _preempt(state: State, lane: int, cls: SchedulingClass, turn: Turn) -> Preempt | None:
    workload = state.workloads.get((cls.tenant, cls.workload))
    task = workload.tasks.get(cls.task) if workload else None
    if task is None or task.cls is not cls or cls.gang or not cls.parked or cls.dropped or not cls.size:
        return None
    if not task.owner.share.preempts or together(task):
        return None
    if task.parallel is not None and task.at_once >= task.parallel:
        return None
    if not state.account(cls.tenant).affordable(task.request.vector):
        return None
    room = Search(state, cls.band, turn.now_ms).next_room(task)
    return _reserve(state, lane, cls, task, room, turn) if room else None


def _reserve(state: State, lane: int, cls: SchedulingClass, task: TaskEntry, room: Room, turn: Turn) -> Preempt:
    indices, _ = cls.take(1)
    node, victims = room.node, room.victims
    decision = binding.new_decision(state, cls, turn)
    decision.slot.index = indices[0]
    record = binding.alike(state, task, decision.id)
    record.state, record.id.index = RESERVED, indices[0]
    record.node, record.node_incarnation = node.name, node.record.incarnation
    record.gpus.extend(room.gpus)
    record.attempt.n = state.next_attempt()
    record.tries = binding.tries(task, indices[0])
    grace_ms = max((grace_s(state, entry) for entry in victims), default=0) * _S_IN_MS
    record.reservation.deadline_ms = turn.now_ms + grace_ms + state.settings.preemption_wait_ms
    for entry in victims:
        entry.busy = True
        state.victims[entry.key] = entry
        record.reservation.victims.add(slot=entry.record.id, attempt=entry.record.attempt)
    decision.placed.add(index=indices[0], node=node.name, attempt=record.attempt, gpus=room.gpus)
    decision.node, decision.nodes = node.name, len(state.nodes)
    decision.attempt.CopyFrom(record.attempt)
    decision.filters.extend(cls.reasons)
    decision.filters.append(explain.reason(explain.PREEMPTING, detail=_named(victims)))
    amount = task.request.vector
    state.table.charge(node.row, amount.amounts())
    if room.gpus:
        state.table.charge_gpus(node.row, room.gpus, amount.gpu_milli, promised=True)
    task.move_copies(node.row, 1)
    task.in_flight.add(indices[0])
    account = state.account(cls.tenant)
    account.charging += amount
    one = Binding(task, indices[0], node.row, record, "")
    return reservations.preempt(state.root, lane, one, node, victims, account, decision)


def grace_s(state: State, entry: SlotEntry) -> int:
    """How long a victim has between the word and the kill."""
    spec = entry.task.owner.share.spec
    of_class = state.settings.preemption_grace_s[(spec.priority or objects_pb2.PRIORITY_DEFAULT) - 1]
    own = entry.task.spec.termination_grace_s if entry.task.spec else 0
    return max(of_class, own)


def _named(victims: Iterable[SlotEntry]) -> str:
    counts = Counter(f"{e.task.owner.tenant}/{e.task.owner.name}" for e in victims)
    return ", ".join(f"{explain.counted(count, 'replica')} of {name}" for name, count in sorted(counts.items()))


# ---- what is under way


def pending(state: State, entry: SlotEntry) -> list[SlotEntry]:
    """The victims of a reserved slot that still hold their room."""
    found = ((state.slot(victim.slot), victim.attempt) for victim in entry.record.reservation.victims)
    return [e for e, attempt in found if e and e.bound and e.record.attempt == attempt]


def _step(state: State, lane: int, entry: SlotEntry, turn: Turn) -> Operation | None:
    record, task = entry.record, entry.task
    for named in record.reservation.victims:
        state.victims.pop(keys.slot(state.root, named.slot), None)  # asked, or let go
    if not entry.reserved or entry.busy or record.reservation.gang:
        return None
    node = state.nodes[record.node]
    of = node.record
    leaves = of.state != objects_pb2.NODE_STATE_READY or of.cordoned or of.draining
    if not entry.wanted or entry.outdated or leaves or turn.now_ms >= record.reservation.deadline_ms:
        entry.busy = True
        account = state.account(task.owner.tenant)
        return reservations.sweep_one(state.root, lane, entry, swept_record(record), account)
    left = pending(state, entry)
    why = f"preempted by {task.owner.tenant}/{task.owner.name}/{task.name}/{entry.index}"
    for victim in left:
        if not victim.closing:
            victim.grace_s = grace_s(state, victim)
            closing.stop(state, victim, why, turn)
            owner = victim.task.owner
            text = f"{victim.task.name}/{victim.index} on {node.name}, by {task.owner.tenant}/{task.owner.name}"
            binding.announce(turn, state, owner.tenant, owner.name, "Preempted", text)
    if left or not node.welcomed:
        return None
    entry.busy = True
    gone = [e for v in record.reservation.victims if (e := state.slot(v.slot))]
    return reservations.bind_preempting(lane, entry, bound_record(record), node, gone)


def _give_back(state: State, entry: SlotEntry, now_ms: int) -> None:
    task = entry.task
    if not entry.wanted or task.cls is None:
        state.forgettable[task.owner.tenant, task.owner.name] = task.owner
    elif together(task):
        look(state, task.owner)
    else:
        state.queue.put(task.cls, (entry.index,), task.cls.queued_ms or now_ms)


# ---- what follows when a step is settled


def preempt_committed(state: State, operation: Preempt, revision: int, turn: Turn) -> None:
    (b,) = operation.bindings
    for tenant, charge in operation.charges:
        account = state.account(tenant)
        account.charging -= charge
        account.commit_on_lane(operation.lane, charge)
    _let_go(state, operation)
    b.task.in_flight.discard(b.replica)
    (entry,) = state.put_slots(((b.task, b.replica, b.record),), revision, charged=True)
    state.preempting[entry.key] = entry
    if b.task.cls and b.task.cls.short_of_room and b.task.cls.size:
        state.roomless[b.task.cls] = None
    (decision,) = operation.decisions
    decision.result = "Reserved"
    turn.do(Journal(decision))
    owner = b.task.owner
    text = f"{b.task.name}/{b.replica} gets room on {b.record.node}: {_named(operation.victims)}"
    binding.announce(turn, state, owner.tenant, owner.name, "Preempts", text)


def preempt_rejected(state: State, operation: Preempt, turn: Turn) -> None:
    _let_go(state, operation)
    for victim in operation.victims:
        state.victims.pop(victim.key, None)
    binding.bind_rejected(state, operation, turn)


def _let_go(state: State, operation: Preempt) -> None:
    """Its victims may be released: by what has come in meanwhile, or later."""
    for victim in operation.victims:
        victim.busy = False
        if victim.bound:
            releasing.look_again(state, victim)


def bind_committed(state: State, operation: BindPreempting, revision: int, turn: Turn) -> None:
    entry = operation.entry
    entry.busy = False
    binding.dispatch(state, state.put_slots(((entry.task, entry.index, operation.record),), revision), turn)
    owner = entry.task.owner
    binding.announce(turn, state, owner.tenant, owner.name, "Bound", f"{entry.task.name}: 1 replica")


def step_rejected(state: State, operation: BindPreempting | SweepOne, turn: Turn) -> None:
    operation.entry.busy = False
    state.preempting[operation.entry.key] = operation.entry


def sweep_committed(state: State, operation: SweepOne, revision: int, turn: Turn) -> None:
    entry = operation.entry
    entry.busy = False
    account = state.account(entry.task.owner.tenant)
    account.commit_on_lane(operation.lane, operation.credit)
    state.unsettled_slices[account.tenant] = account
    state.put_slots(((entry.task, entry.index, operation.record),), revision)
    _give_back(state, entry, turn.now_ms)


SETTLED: Handlers = {
    Preempt: (preempt_committed, preempt_rejected),
    BindPreempting: (bind_committed, step_rejected),
    SweepOne: (sweep_committed, step_rejected),
}
