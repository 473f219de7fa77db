"""Gangs: replicas that are placed all or none. Keeps I12.

The gang of a workload is what its tasks with `gang` ask for; it stands in the queue as one item. When its turn has come
all members are placed at once, in memory, or none is. Then they are RESERVEd, in several transactions when there are
many; when all are, one GANG-COMMIT binds them, and BIND-RESERVED only carries that out: whoever leads rolls it forward.
Before the commit any trouble has everything swept, and the gang comes back after a pause: nobody waits for others
while holding room, so no two gangs wait for each other. Where room is made for it, the victims are asked to go when all
members are reserved, and the commit waits for them; another leader goes on with what it finds reserved whole.

A member that has to be placed again breaks the gang of a job: the others are stopped, and it starts again as one; what
completed stays so. Of a service it is placed alone, as long as another is there. Leaves to others: where members go
(gang_placing.py), releases and stops (releasing.py, closing.py), the order (queue.py).
"""

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.pauses import doubled_ms
from atoll.store import keys
from regional.core import binding, closing, gang_placing, making_way, reservations
from regional.core.classes import class_of, class_of_gang
from regional.core.classes import together as together
from regional.core.queue import SchedulingClass
from regional.core.records import BOUND, WAITING, GangEntry, SlotEntry, TaskEntry, WorkloadEntry
from regional.core.reservations import BindReserved, CommitGang, DissolveGang, Reserve, Sweep
from regional.core.state import Handlers, State, Turn
from regional.core.transactions import Operation, Released

_CHANGED = "the workload has changed"
_LATE = "not all of it could be reserved in time"
_LEAVES = "a node that was reserved for it gets no more work"


def stands_as(task: TaskEntry) -> SchedulingClass | None:
    """The item of the queue that the task's waiting replicas are, or are part of."""
    return task.owner.gang.cls if task.owner.gang and together(task) else task.cls


def members_waiting(task: TaskEntry) -> int:
    """Of the task, how many its gang is still to place; the gang itself is one item of the queue."""
    gang = task.owner.gang
    return next((len(indices) for one, indices in gang_placing.waiting(gang) if one is task), 0) if gang else 0


def progress(state: State, gang: GangEntry) -> str:
    """For people, while its members are being reserved; else empty."""
    reserved = len(gang.reserved)
    if gang.record or not (reserved or gang.planned or gang.flying):
        return ""
    wanted = reserved + sum(len(indices) for _, indices in gang_placing.waiting(gang))
    wanted += sum(len(task.in_flight) for task in gang.tasks)
    victims = [victim for entry in gang.reserved for victim in making_way.pending(state, entry)]
    waits_for = f"; it gets the room of {making_way.told(victims)}" if victims else ""
    return f"{reserved} of {wanted} reserved{waits_for}" + (f"; given up: {gang.giving_up}" if gang.giving_up else "")


def look(state: State, workload: WorkloadEntry) -> None:
    """Something about the workload has changed: its gang may have a step to take."""
    if workload.gang:
        state.gangs[workload.gang.key] = workload.gang


def adopt(state: State, workload: WorkloadEntry, record: objects_pb2.Gang | None, mod_revision: int) -> None:
    """The gang's record as now stored; None: it is not committed."""
    gang = _entry(state, workload)
    gang.record, gang.mod_revision = record, mod_revision
    look(state, workload)


def _entry(state: State, workload: WorkloadEntry) -> GangEntry:
    if workload.gang is None:
        workload.gang = GangEntry(workload, keys.gang(state.root, workload.tenant, workload.name))
    return workload.gang


def opened(state: State, workload: WorkloadEntry, turn: Turn) -> None:
    """The share is another one. Members that are reserved and not committed were placed for what it was before."""
    if workload.gang is None and not any(task.gang for task in workload.tasks.values()):
        return
    gang = _entry(state, workload)
    since_ms = turn.now_ms
    if gang.cls:
        since_ms = gang.cls.queued_ms if gang.cls.size else since_ms
        state.queue.drop(gang.cls)
    gang.due, gang.cls = False, class_of_gang(gang) if gang.tasks else None
    if gang.cls:
        gang.cls.queued_ms = since_ms
    for_another = any(entry.mod_revision < workload.mod_revision for entry in gang.reserved)
    if gang.record is None and (gang.planned or gang.flying or for_another):
        gang.giving_up = _CHANGED
    look(state, workload)


def forgotten(state: State, workload: WorkloadEntry) -> None:
    """The workload's records are gone, the gang's among them."""
    if gang := workload.gang:
        gang.record, gang.mod_revision = None, 0
        state.gangs.pop(gang.key, None)
        if gang.cls:
            state.queue.drop(gang.cls)


# ---- what it does next


def next_step(state: State, lane: int, turn: Turn) -> Operation | None:
    while state.gangs:
        key, gang = next(iter(state.gangs.items()))
        del state.gangs[key]
        if operation := _step(state, lane, gang, turn):
            gang.flying += 1
            state.gangs[key] = gang  # there may be more to do on another lane
            return operation
    return None


def _step(state: State, lane: int, gang: GangEntry, turn: Turn) -> Operation | None:
    if gang.record is not None:
        return _after_commit(state, lane, gang, turn)
    if gang.giving_up:
        return _give_up(state, lane, gang, turn)
    if gang.planned:
        return gang_placing.reserve_some(state, lane, gang)
    if gang.flying or _stop_all(state, gang, "its gang starts together", turn):
        return None
    if any(
        entry.reserved and not entry.record.reservation.gang for task in gang.tasks for entry in task.entries.values()
    ):
        return None  # it was to be bound alone, and is swept
    waiting = gang_placing.waiting(gang)
    if gang.reserved:
        gang.giving_up = _trouble(state, gang, turn)
        if not gang.giving_up and not waiting:
            if _victims_left(state, gang, turn):
                return None
            return reservations.commit_gang(lane, gang, _record(gang, turn.now_ms))
        if not gang.giving_up and not gang_placing.place(state, gang, waiting, turn):
            return gang_placing.reserve_some(state, lane, gang)
        gang.giving_up = gang.giving_up or _LATE
        return _give_up(state, lane, gang, turn)
    if gang.cls is None or not waiting:
        return None
    if not gang.due:
        _offer(state, gang, waiting, turn.now_ms)
        return None
    gang.due = False
    if refusals := gang_placing.place(state, gang, waiting, turn):
        state.queue.put(gang.cls, (0,), gang.cls.queued_ms, ran=_ran(waiting))
        binding.park(state, gang.cls, refusals.cures, refusals.reasons, turn)
        return None
    return gang_placing.reserve_some(state, lane, gang)


def _after_commit(state: State, lane: int, gang: GangEntry, turn: Turn) -> Operation | None:
    """The members that are reserved are bound, in truth. When none is left the next start is all or none again."""
    if members := [e for e in gang.reserved if not e.busy][: state.settings.release_batch_slots]:
        for entry in members:
            entry.busy = True
        return reservations.bind_reserved(lane, gang, [(e, bound_record(e.record)) for e in members])
    if gang.flying or gang.owner.share.removed:
        return None  # the record goes with the workload's
    waits = any(indices for _, indices in gang_placing.waiting(gang))
    if gang.committed and gang.tasks and not waits:
        return None
    if gang.tasks and (not gang.committed or gang.owner.is_job):
        why = "its gang starts again" if gang.committed else "its gang starts together"
        if _stop_all(state, gang, f"{why}: {_first_waiting(gang)}", turn):
            return None
    if any(task.copies or task.in_flight for task in gang.tasks):
        return None
    for task in gang.tasks:
        if task.cls:
            state.queue.drop(task.cls)  # nobody is bound alone from here on
    return reservations.dissolve_gang(lane, gang)


def _first_waiting(gang: GangEntry) -> str:
    """For people: which member broke it, and why."""
    for task, indices in gang_placing.waiting(gang):
        entry = task.entries.get(indices[0])
        return f"{task.name}/{indices[0]} {entry.record.exit.reason or 'waits' if entry else 'is new'}"
    return "it is of another workload"


def _stop_all(state: State, gang: GangEntry, reason: str, turn: Turn) -> bool:
    """Whether any member still is bound."""
    bound = [entry for task in gang.tasks for entry in task.entries.values() if entry.bound]
    for entry in bound:
        closing.stop(state, entry, reason, turn)
    return bool(bound)


def _victims_left(state: State, gang: GangEntry, turn: Turn) -> bool:
    """Whether any still is where a member is to be. All are asked to go, unless the gang may be another one in a
    moment."""
    asked = [victim for entry in gang.reserved for victim in making_way.pending(state, entry) if not victim.closing]
    if asked and gang.owner.next_share:
        return True
    left = [victim for entry in gang.reserved for victim in making_way.ask(state, entry, turn)]
    if asked:
        owner = gang.owner
        binding.announce(
            turn, state, owner.tenant, owner.name, "Preempts", f"it gets the room of {making_way.told(asked)}"
        )
    return bool(left)


def _trouble(state: State, gang: GangEntry, turn: Turn) -> str:
    """Why what is reserved is to be swept; empty when it may go on."""
    if turn.now_ms >= gang.deadline_ms:
        return _LATE
    nodes = [state.nodes[entry.record.node].record for entry in gang.reserved]
    leaves = any(n.state != objects_pb2.NODE_STATE_READY or n.cordoned or n.draining for n in nodes)
    return _LEAVES if leaves else ""


def _give_up(state: State, lane: int, gang: GangEntry, turn: Turn) -> Sweep | None:
    gang_placing.give_back(state, gang)
    if gang.flying:
        return None
    swept = [Released(e, swept_record(e.record)) for e in gang.reserved][: state.settings.release_batch_slots]
    if swept:
        for released in swept:
            released.entry.busy = True
            making_way.forget(state, released.entry.record)
        account = state.account(gang.owner.tenant)
        return reservations.sweep(state.root, lane, gang, swept, account)
    gang_placing.journal(gang, "Refused", turn)
    changed, gang.giving_up = gang.giving_up == _CHANGED, ""
    gang.given_up = 0 if changed else gang.given_up + 1
    look(state, gang.owner)
    return None


def _offer(state: State, gang: GangEntry, waiting: gang_placing.Waiting, now_ms: int) -> None:
    """Into the queue, once: at once, or after the pause of a member that failed or of a start that was given up."""
    cls = gang.cls
    if cls is None or cls.size or cls.delayed:
        return
    pause_ms = _pause_ms(state, gang) if gang.given_up else 0
    ended = [task.entries[i] for task, indices in waiting for i in indices if i in task.entries]
    until_ms = max([now_ms + pause_ms, *(e.record.not_before_ms for e in ended if not e.outdated)])
    ran = _ran(waiting)
    if until_ms > now_ms:
        state.queue.delay(cls, 0, until_ms, "", ran=ran)
    else:
        state.queue.put(cls, (0,), cls.queued_ms or now_ms, ran=ran)


def _ran(waiting: gang_placing.Waiting) -> bool:
    """Whether it starts again through no failure of its members."""
    ended = [task.entries[i] for task, indices in waiting for i in indices if i in task.entries]
    return bool(ended) and all(entry.ran for entry in ended)


def _pause_ms(state: State, gang: GangEntry) -> int:
    """Two that got into each other's way do not meet again."""
    settings, owner = state.settings, gang.owner
    return doubled_ms(settings.retry_first_ms, settings.retry_longest_ms, gang.given_up, f"{owner.tenant}/{owner.name}")


def _record(gang: GangEntry, now_ms: int) -> objects_pb2.Gang:
    owner = gang.owner
    record = objects_pb2.Gang(
        tenant=owner.tenant, workload=owner.name, uid=owner.uid, generation=owner.generation, committed_ms=now_ms
    )
    for task in gang.tasks:
        record.tasks.add(task=task.name, reserved=sum(entry.reserved for entry in task.entries.values()))
    return record


def bound_record(reserved: objects_pb2.Slot) -> objects_pb2.Slot:
    record = objects_pb2.Slot()
    record.CopyFrom(reserved)
    record.state = BOUND
    record.ClearField("reservation")
    return record


def swept_record(reserved: objects_pb2.Slot) -> objects_pb2.Slot:
    record = objects_pb2.Slot()
    record.CopyFrom(reserved)
    record.state = WAITING
    record.ClearField("reservation")
    record.ClearField("node")
    record.ClearField("gpus")
    return record


# ---- what follows when a step is settled


def _settled(state: State, gang: GangEntry) -> None:
    gang.flying -= 1
    look(state, gang.owner)


def reserve_committed(state: State, operation: Reserve, revision: int, turn: Turn) -> None:
    gang_placing.reserved(state, operation, revision)
    _settled(state, operation.gang)


def reserve_rejected(state: State, operation: Reserve, turn: Turn) -> None:
    gang_placing.uncharge(state, operation.bindings)
    _settled(state, operation.gang)


def commit_committed(state: State, operation: CommitGang, revision: int, turn: Turn) -> None:
    gang, record = operation.gang, operation.record
    gang.record, gang.mod_revision, gang.giving_up, gang.given_up = record, revision, "", 0
    gang_placing.journal(gang, "Bound", turn)
    members = explain.counted(sum(task.reserved for task in record.tasks), "replica")
    owner = gang.owner
    binding.announce(turn, state, owner.tenant, owner.name, "GangBound", f"all {members} at once")
    _settled(state, gang)


def nothing_done(state: State, operation: CommitGang | DissolveGang, turn: Turn) -> None:
    """Decided anew."""
    gang = operation.gang
    _settled(state, gang)
    if isinstance(operation, DissolveGang):
        _reopen(state, gang, turn.now_ms)


def bind_committed(state: State, operation: BindReserved, revision: int, turn: Turn) -> None:
    for entry, _ in operation.bound:
        entry.busy = False
    entries = state.put_slots(((e.task, e.index, e.vector, record) for e, record in operation.bound), revision)
    binding.dispatch(state, entries, turn)
    _settled(state, operation.gang)


def bind_rejected(state: State, operation: BindReserved, turn: Turn) -> None:
    for entry, _ in operation.bound:
        entry.busy = False
    _settled(state, operation.gang)


def sweep_committed(state: State, operation: Sweep, revision: int, turn: Turn) -> None:
    for tenant, credit in operation.credits:
        account = state.account(tenant)
        account.commit_on_lane(operation.lane, credit)
        state.unsettled_slices[tenant] = account
    for released in operation.released:
        released.entry.busy = False
    swept = state.put_slots([r.stored for r in operation.released], revision)
    for entry in swept:
        _wait_again(state, entry, turn.now_ms)
    _settled(state, operation.gang)


def sweep_rejected(state: State, operation: Sweep, turn: Turn) -> None:
    for released in operation.released:
        released.entry.busy = False
    _settled(state, operation.gang)


def dissolve_committed(state: State, operation: DissolveGang, revision: int, turn: Turn) -> None:
    gang = operation.gang
    gang.record, gang.mod_revision = None, 0
    _settled(state, gang)
    _reopen(state, gang, turn.now_ms)


def _reopen(state: State, gang: GangEntry, now_ms: int) -> None:
    for task in gang.tasks:
        task.cls = class_of(task)
    for task, indices in gang_placing.waiting(gang):
        if task.cls and not together(task):
            state.queue.put(task.cls, indices, now_ms)


def _wait_again(state: State, entry: SlotEntry, now_ms: int) -> None:
    """A slot that was swept: its task may be of no gang any more."""
    task = entry.task
    if not entry.wanted or task.cls is None:
        state.forgettable[task.owner.tenant, task.owner.name] = task.owner
    elif not task.gang:
        state.queue.put(task.cls, (entry.index,), now_ms)


SETTLED: Handlers = {
    Reserve: (reserve_committed, reserve_rejected),
    CommitGang: (commit_committed, nothing_done),
    BindReserved: (bind_committed, bind_rejected),
    Sweep: (sweep_committed, sweep_rejected),
    DissolveGang: (dissolve_committed, nothing_done),
}
