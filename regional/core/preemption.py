"""Preemption: room for a replica, or a gang, that no node takes, made by stopping bound ones of lower priorities.

One RESERVE gives the preemptor its node, names its victims and compares that each is bound as it was: so nobody is
stopped for what did not happen, and the reservation is the one record of who is stopped for whom, for the next leader
too. The node is charged for both at once, so what becomes free is kept for the preemptor. Victims are asked to close,
with the grace of their class; when the last one is released BIND-RESERVED binds the preemptor. A reservation that is
late, unwanted, or on a node that gets no more work is swept. A gang's members are reserved like this all or none, and
nobody is asked to close before all of them are: gangs.py.

Only work of a lower priority, as it was asked for and not as it has aged, is stopped, and never work that the hard
account pays for by work that the burst account does; for what the hard account pays for, any work of other tenants that
a burst account does. So nothing that was preempted can preempt back, and since each preemption binds something of a
better account, or of the same and of a higher priority, they end. A service is not brought below
its disruption budget. Victims come back at the head of their class, after a pause. Which ones: making_room.py.
"""

import itertools

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.accounts import HARD, Account, charged_to
from regional.core import backfill, binding, decisions, gang_placing, kept_room, making_way, reservations
from regional.core.gangs import bound_record, look, swept_record, together
from regional.core.making_room import Asker, Room, Search
from regional.core.queue import MAY_PREEMPT, SchedulingClass
from regional.core.records import RESERVED, SlotEntry, TaskEntry, WorkloadEntry
from regional.core.reservations import BindPreempting, Preempt, SweepOne
from regional.core.state import Handlers, State, Turn
from regional.core.transactions import Binding, Operation

LOOKS = 10  # for room for a class, before other events are handled


def next_preemption(state: State, lane: int, turn: Turn) -> Operation | None:
    """First what is under way, then a class that found no room."""
    while state.preempting:
        key = next(iter(state.preempting))
        entry = state.preempting.pop(key)
        if operation := _step(state, lane, entry, turn):
            return operation
    for cls in list(itertools.islice(state.roomless, LOOKS)):
        del state.roomless[cls]
        if operation := _preempt(state, lane, cls, turn):
            return operation
    return None


def check(state: State, turn: Turn) -> None:
    """Looks again at what is under way, and now and then at classes that still find no room; room is kept for one."""
    backfill.check(state, turn.now_ms)
    for node in state.nodes.values():
        state.preempting.update(node.reserved)
    if turn.now_ms >= state.preempted_ms + state.settings.preemption_period_ms:
        state.preempted_ms = turn.now_ms
        state.roomless.update(dict.fromkeys(state.queue.parking.under(*MAY_PREEMPT)))


# ---- whom to stop


def _preempt(state: State, lane: int, cls: SchedulingClass, turn: Turn) -> Preempt | None:
    workload = state.workloads.get((cls.tenant, cls.workload))
    if workload is None or not cls.parked or cls.dropped or not cls.size or not workload.share.preempts:
        return None
    if cls.gang:
        _for_gang(state, cls, workload, turn)
        return None
    task = workload.tasks.get(cls.task)
    if task is None or task.cls is not cls or together(task):
        return None
    if task.parallel is not None and task.at_once >= task.parallel:
        return None
    payer, affordable = state.account(cls.tenant).payer(task.request.vector, task.may_burst)
    if not affordable:
        return None
    with kept_room.passing(state, cls, workload, turn.now_ms):
        room = Search(state, Asker(cls.tenant, cls.band, payer), turn.now_ms).next_room(task)
    return _reserve(state, lane, task, payer, room, turn) if room else None


def _for_gang(state: State, cls: SchedulingClass, workload: WorkloadEntry, turn: Turn) -> None:
    """Room for all its members, or none: what is planned then is reserved by gangs.py."""
    gang = workload.gang
    if gang is None or gang.cls is not cls or gang.record or gang.flying or gang.planned or gang.giving_up:
        return
    members = gang_placing.waiting(gang)
    search = Search(state, Asker(cls.tenant, cls.band, HARD), turn.now_ms)
    if members and not gang_placing.place(state, gang, members, turn, search):
        cls.take(1)
        look(state, workload)


def _reserve(state: State, lane: int, task: TaskEntry, payer: Account, room: Room, turn: Turn) -> Preempt:
    cls = task.cls
    assert cls is not None
    indices, _ = cls.take(1)
    node, victims = room.node, room.victims
    decision = decisions.begin(state, cls, turn)
    record = binding.alike(state, task, decision.id, payer)
    record.state, record.id.index = RESERVED, indices[0]
    record.node, record.node_incarnation = node.name, node.record.incarnation
    record.gpus.extend(room.gpus)
    record.attempt.n = state.next_attempt()
    record.tries = binding.tries(task, indices[0])
    record.reservation.deadline_ms = making_way.deadline_ms(state, victims, turn.now_ms)
    making_way.name(state, record, victims)
    decisions.add_places(decision, (record,))
    decision.nodes = len(state.nodes)
    decision.filters.extend(cls.reasons)
    decision.filters.append(explain.reason(explain.PREEMPTING, detail=making_way.told(victims)))
    amount = task.request.vector
    state.table.charge(node.row, amount.amounts())
    if room.gpus:
        state.table.charge_gpus(node.row, room.gpus, amount.gpu_milli, promised=True)
    task.move_copies(node.row, 1)
    state.demand.mark(task.owner.place)
    task.in_flight.add(indices[0])
    account = state.account(cls.tenant)
    account.charging += charged_to(payer, amount)
    one = Binding(task, indices[0], node.row, amount, record, "")
    return reservations.preempt(state.root, lane, one, node, victims, account, decision)


# ---- what is under way


def _step(state: State, lane: int, entry: SlotEntry, turn: Turn) -> Operation | None:
    record, task = entry.record, entry.task
    if record.reservation.gang:
        look(state, task.owner)
        return None
    if not entry.reserved or entry.busy:
        making_way.forget(state, record)
        return None
    node = state.nodes[record.node]
    of = node.record
    leaves = of.state != objects_pb2.NODE_STATE_READY or of.cordoned or of.draining
    unwanted = not entry.wanted or entry.outdated or together(task)  # of a gang since, it is placed with the others
    if unwanted or leaves or turn.now_ms >= record.reservation.deadline_ms:
        making_way.forget(state, record)
        entry.busy = True
        account = state.account(task.owner.tenant)
        return reservations.sweep_one(state.root, lane, entry, swept_record(record), account)
    if making_way.ask(state, entry, turn) or not node.welcomed:
        return None
    entry.busy = True
    return reservations.bind_preempting(lane, entry, bound_record(record), node, making_way.of(state, record))


def _give_back(state: State, entry: SlotEntry, now_ms: int) -> None:
    task = entry.task
    if not entry.wanted or task.cls is None:
        state.forgettable[task.owner.tenant, task.owner.name] = task.owner
    elif together(task):
        look(state, task.owner)
    else:
        state.queue.put(task.cls, (entry.index,), task.cls.queued_ms or now_ms, ran=entry.ran)


# ---- what follows when a step is settled


def preempt_committed(state: State, operation: Preempt, revision: int, turn: Turn) -> None:
    (b,) = operation.bindings
    for tenant, charge in operation.charges:
        account = state.account(tenant)
        account.charging -= charge
        account.commit_on_lane(operation.lane, charge)
    making_way.settled(state, b.record)
    b.task.in_flight.discard(b.replica)
    (entry,) = state.put_slots((b.stored,), revision, charged=True)
    state.preempting[entry.key] = entry
    if b.task.cls and b.task.cls.may_preempt and b.task.cls.size:
        state.roomless[b.task.cls] = None
    (decision,) = operation.decisions
    decisions.publish(decision, "Reserved", turn)
    owner = b.task.owner
    victims = making_way.told(making_way.of(state, b.record))
    text = f"{b.task.name}/{b.replica} gets room on {b.record.node}: {victims}"
    binding.announce(turn, state, owner.tenant, owner.name, "Preempts", text)


def preempt_rejected(state: State, operation: Preempt, turn: Turn) -> None:
    (b,) = operation.bindings
    making_way.forget(state, b.record)
    making_way.settled(state, b.record)
    binding.bind_rejected(state, operation, turn)


def bind_committed(state: State, operation: BindPreempting, revision: int, turn: Turn) -> None:
    entry = operation.entry
    entry.busy = False
    bound = state.put_slots(((entry.task, entry.index, entry.vector, operation.record),), revision)
    binding.dispatch(state, bound, turn)
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
    state.put_slots(((entry.task, entry.index, entry.vector, operation.record),), revision)
    _give_back(state, entry, turn.now_ms)


SETTLED: Handlers = {
    Preempt: (preempt_committed, preempt_rejected),
    BindPreempting: (bind_committed, step_rejected),
    SweepOne: (sweep_committed, step_rejected),
}
