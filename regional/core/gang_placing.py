"""Where the members of a gang go: all at once, or none.

Members are placed task by task, the largest first, each task as any class is (placement.py), and charged in memory at
once, so that nothing else takes their room before they are reserved. Gives everything back when one does not fit.
"""

from collections import Counter
from collections.abc import Iterable

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.resources import Vector, total, vector
from regional.core import binding, gpu_scores, reservations, transactions
from regional.core.commands import Journal
from regional.core.filters import Cure
from regional.core.placement import Refusals
from regional.core.records import RESERVED, GangEntry, NodeEntry, TaskEntry
from regional.core.reservations import Reserve
from regional.core.spread_filling import fill
from regional.core.state import State, Turn
from regional.core.transactions import Binding

Waiting = list[tuple[TaskEntry, list[int]]]
_UNLIMITED = 1 << 30
_ROOM = frozenset({Cure.NODES, Cure.RESOURCES})
_QUOTA = frozenset({Cure.QUOTA})


def waiting(gang: GangEntry) -> Waiting:
    """The members that are to be placed; tasks without any are left out."""
    found = []
    for task in gang.tasks:
        indices = [i for i in sorted(task.wanted) if i not in task.in_flight and _waits(task, i)]
        if indices:
            found.append((task, indices))
    return found


def _waits(task: TaskEntry, index: int) -> bool:
    entry = task.entries.get(index)
    return entry is None or (not entry.placed and entry.waits)


def place(state: State, gang: GangEntry, members: Waiting, turn: Turn) -> Refusals | None:
    """Plans all of `members`, or says why not; then nothing is planned."""
    if any(task.parallel is not None and task.at_once + len(indices) > task.parallel for task, indices in members):
        return Refusals((binding.AT_PARALLELISM,), binding.TURN_CURES)
    account = state.account(gang.owner.tenant)
    asked = total([task.request.vector * len(indices) for task, indices in members])
    if not account.affordable(asked):
        detail = f"the gang asks for {asked} at once; {account.shortage(asked)}"
        known = explain.reason(explain.QUOTA, detail=detail) if account.mod_revision else binding.SLICE_AWAITED
        return Refusals((known,), _QUOTA)
    capacity = state.total_capacity()
    for task, indices in sorted(members, key=lambda one: -_size(one[0].request.vector, capacity)):
        filling = fill(state.class_row(task), len(indices), task.around)
        rows = filling.take(len(indices), _UNLIMITED)
        if len(rows) < len(indices):
            placed = len(gang.planned) + len(rows)
            give_back(state, gang)
            gang.decisions.clear()
            return _too_little_room(placed, members, filling.refusals)
        _plan(state, gang, task, list(zip(indices, rows, strict=True)), filling.refusals.reasons, turn)
    return None


def _size(amount: Vector, capacity: Vector) -> float:
    shares = [a / c for a, c in zip(amount.amounts(), capacity.amounts(), strict=True) if c]
    return max(shares, default=0.0)


def _too_little_room(placed: int, members: Waiting, refusals: Refusals) -> Refusals:
    wanted = sum(len(indices) for _, indices in members)
    reason = explain.reason(explain.GANG_ROOM, detail=f"there is room for {placed} of {wanted}")
    return Refusals((reason, *refusals.reasons), refusals.cures | _ROOM)


def _plan(
    state: State,
    gang: GangEntry,
    task: TaskEntry,
    places: list[tuple[int, int]],
    reasons: Iterable[objects_pb2.PendingReason],
    turn: Turn,
) -> None:
    """Charges the places, and notes the records to be."""
    assert gang.cls is not None
    decision = binding.new_decision(state, gang.cls, turn)
    decision.slot.task, decision.slot.index = task.name, places[0][0]
    decision.filters.extend(reasons)
    decision.nodes = len(state.nodes)
    amount = task.request.vector
    for row, count in Counter(row for _, row in places).items():
        if not amount.gpu_milli:
            state.table.charge(row, (amount * count).amounts())
        task.move_copies(row, count)
    state.account(gang.owner.tenant).charging += amount * len(places)
    alike = binding.alike(state, task, decision.id)
    alike.state = RESERVED
    alike.reservation.gang = True
    alike.reservation.deadline_ms = turn.now_ms + state.settings.gang_reserve_ms
    for index, row in places:
        node = state.nodes[state.table.names[row]]
        task.in_flight.add(index)
        record = objects_pb2.Slot()
        record.CopyFrom(alike)
        record.id.index = index
        record.node, record.node_incarnation = node.name, node.record.incarnation
        record.attempt.n = state.next_attempt()
        record.tries = binding.tries(task, index)
        if amount.gpu_milli:  # which devices the next one gets depends on this one
            state.table.charge(row, amount.amounts())
            record.gpus.extend(gpu_scores.take(state.table, task.request, row))
        decision.placed.add(index=index, node=node.name, attempt=record.attempt, gpus=record.gpus)
        gang.planned.append(Binding(task, index, row, record, ""))
    decision.node, decision.next_owner = decision.placed[0].node, "agent"
    decision.attempt.CopyFrom(decision.placed[0].attempt)
    gang.decisions.append(decision)


def reserve_some(state: State, lane: int, gang: GangEntry) -> Reserve:
    """As many of the planned members as one transaction takes."""
    nodes: dict[str, NodeEntry] = {}
    compares = transactions.COMPARES - 2  # beside those of the workload and the slice
    chunk: list[Binding] = []
    for b in gang.planned[: state.settings.bind_batch_slots]:
        compares -= 1 if b.record.node in nodes else 2
        if compares < 0:
            break
        nodes[b.record.node] = state.nodes[b.record.node]
        chunk.append(b)
    del gang.planned[: len(chunk)]
    account = state.account(gang.owner.tenant)
    charge = total([vector(b.record.vector) for b in chunk])
    return reservations.reserve(state.root, lane, gang, chunk, nodes.values(), account, charge)


def reserved(state: State, operation: Reserve, revision: int) -> None:
    for tenant, charge in operation.charges:
        account = state.account(tenant)
        account.charging -= charge
        account.commit_on_lane(operation.lane, charge)
    for b in operation.bindings:
        b.task.in_flight.discard(b.replica)
    state.put_slots(((b.task, b.replica, b.record) for b in operation.bindings), revision, charged=True)


def give_back(state: State, gang: GangEntry) -> None:
    """What is planned and not sent."""
    uncharge(state, gang.planned)
    gang.planned.clear()


def uncharge(state: State, bindings: Iterable[Binding]) -> None:
    for b in bindings:
        amount, tenant = vector(b.record.vector), b.task.owner.tenant
        account = state.account(tenant)
        account.charging -= amount
        state.freed_tenants[tenant] = None
        state.unsettled_slices[tenant] = account  # a draining limit may have stopped at this charge
        state.table.credit(b.row, amount.amounts())
        if b.record.gpus:
            state.table.credit_gpus(b.row, b.record.gpus, b.record.vector.gpu_milli)
        state.freed_rows[b.row] = None
        b.task.move_copies(b.row, -1)
        state.note_freed(b.task)
        b.task.in_flight.discard(b.replica)


def journal(gang: GangEntry, result: str, turn: Turn) -> None:
    """The decisions about its members are complete."""
    for decision in gang.decisions:
        decision.result = result
        if result != "Bound":
            decision.next_owner = "queue"
        turn.do(Journal(decision))
    gang.decisions.clear()
