"""Where the members of a gang go: all at once, or none.

Members are placed task by task, the largest first, each task as any class is (placement.py), and charged in memory at
once, so that nothing else takes their room before they are reserved. Gives everything back when one does not fit. When
room is made for them, the victims are named in the records of those that get it, and nobody is asked to go yet.
"""

from collections.abc import Iterable
from typing import TypeVar

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.accounts import HARD, charged_to, summed
from atoll.model.resources import Vector, total
from regional.core import binding, decisions, gpu_scores, kept_room, making_way, protection, reservations, transactions
from regional.core.filters import Cure
from regional.core.making_room import Room, Search
from regional.core.placement import Filling, Refusals
from regional.core.records import RESERVED, GangEntry, NodeEntry, TaskEntry
from regional.core.reservations import Reserve
from regional.core.spread_filling import fill
from regional.core.state import State, Turn
from regional.core.transactions import Binding

T = TypeVar("T")
Waiting = list[tuple[TaskEntry, list[int]]]
_UNLIMITED = 1 << 30
_ROOM = frozenset({Cure.NODES, Cure.RESOURCES})


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


def place(state: State, gang: GangEntry, members: Waiting, turn: Turn, search: Search | None = None) -> Refusals | None:
    """Plans all of `members`, or says why not; then nothing is planned. With a `search` room is made for them."""
    if any(task.parallel is not None and task.at_once + len(indices) > task.parallel for task, indices in members):
        return Refusals((binding.AT_PARALLELISM,), binding.TURN_CURES)
    account = state.account(gang.owner.tenant)
    asked = total([task.request.vector * len(indices) for task, indices in members])
    if not account.affordable(asked, may_burst=False):
        known = account.refusal(asked, may_burst=False, asked=f"the gang asks for {asked} at once; ")
        return Refusals((known,), binding.quota_cures(account))
    if not protection.replicas(state, gang.owner.tenant, asked):
        return Refusals((protection.reason(state, gang.owner.tenant, asked),), protection.CURES)
    assert gang.cls is not None
    with kept_room.passing(state, gang.cls, gang.owner, turn.now_ms):
        refusals = _place_all(state, gang, members, turn, search)
    if not refusals:
        _set_deadline(state, gang, turn.now_ms)
    return refusals


def _place_all(state: State, gang: GangEntry, members: Waiting, turn: Turn, search: Search | None) -> Refusals | None:
    for task, indices in largest_first(state, members):
        placed, refusals = _place_task(state, gang, task, indices, turn, search)
        if refusals:
            placed += len(gang.planned)
            _take_back(state, gang)
            return _too_little_room(placed, members, refusals)
    return None


def _place_task(
    state: State, gang: GangEntry, task: TaskEntry, indices: list[int], turn: Turn, search: Search | None
) -> tuple[int, Refusals | None]:
    """Plans all of these, or as many as there is room for, and why not more; the number of those that would fit beside
    what is planned."""
    decision: objects_pb2.Decision | None = None
    while indices:
        filling = fill(state.class_row(task), len(indices), task.around)
        beside = protection.replicas(state, gang.owner.tenant, task.request.vector)
        rows = filling.take(min(len(indices), beside), _UNLIMITED)
        rooms = [Room(state.nodes[state.table.names[row]], (), ()) for row in rows]
        if len(rows) < len(indices) and not search:
            return len(rows), filling.refusals
        if not rows:
            if not search or not (room := search.next_room(task)):
                return 0, filling.refusals
            rooms = [room]
        decision = decision or _new_decision(state, gang, task, indices[0], filling, turn)
        _plan(state, gang, task, list(zip(indices, rooms, strict=False)), decision)
        indices = indices[len(rooms) :]
    return 0, None


def _set_deadline(state: State, gang: GangEntry, now_ms: int) -> None:
    """The reservation expires as one: members that are placed anew do so with those that are reserved already."""
    victims = [entry for b in gang.planned for entry in making_way.of(state, b.record)]
    due_ms = making_way.deadline_ms(state, victims, now_ms) if victims else now_ms + state.settings.gang_reserve_ms
    for b in gang.planned:
        b.record.reservation.deadline_ms = gang.deadline_ms or due_ms


def largest_first(state: State, members: list[tuple[TaskEntry, T]]) -> list[tuple[TaskEntry, T]]:
    """In the order in which they are placed."""
    capacity = state.total_capacity()
    return sorted(members, key=lambda one: -_size(one[0].request.vector, capacity))


def _size(amount: Vector, capacity: Vector) -> float:
    shares = [a / c for a, c in zip(amount.amounts(), capacity.amounts(), strict=True) if c]
    return max(shares, default=0.0)


def _too_little_room(placed: int, members: Waiting, refusals: Refusals) -> Refusals:
    wanted = sum(len(indices) for _, indices in members)
    reason = explain.reason(explain.GANG_ROOM, detail=f"there is room for {placed} of {wanted}")
    return Refusals((reason, *refusals.reasons), refusals.cures | _ROOM)


def _new_decision(
    state: State,
    gang: GangEntry,
    task: TaskEntry,
    index: int,
    filling: Filling,
    turn: Turn,
) -> objects_pb2.Decision:
    assert gang.cls is not None
    decision = decisions.begin(state, gang.cls, turn)
    decision.slot.task, decision.slot.index = task.name, index
    decision.quota = decisions.quota_of(state.account(gang.owner.tenant))
    decision.filters.extend(filling.refusals.reasons)
    decision.scores.extend(filling.shown(state.settings.shown_scores))
    decision.nodes, decision.feasible, decision.next_owner = len(state.nodes), filling.feasible, "agent"
    gang.decisions.append(decision)
    return decision


def _plan(
    state: State,
    gang: GangEntry,
    task: TaskEntry,
    places: list[tuple[int, Room]],
    decision: objects_pb2.Decision,
) -> None:
    """Charges the places, and notes the records to be."""
    amount = task.request.vector
    state.account(gang.owner.tenant).charging += charged_to(HARD, amount * len(places))
    alike = binding.alike(state, task, decision.id, HARD)
    alike.state = RESERVED
    alike.reservation.gang = True
    for index, room in places:
        node = room.node
        task.in_flight.add(index)
        task.move_copies(node.row, 1)
        record = objects_pb2.Slot()
        record.CopyFrom(alike)
        record.id.index = index
        record.node, record.node_incarnation = node.name, node.record.incarnation
        record.attempt.n = state.next_attempt()
        record.tries = binding.tries(task, index)
        state.table.charge(node.row, amount.amounts())
        if room.gpus:
            state.table.charge_gpus(node.row, room.gpus, amount.gpu_milli, promised=True)
        record.gpus.extend(room.gpus or gpu_scores.take(state.table, task.request, node.row))
        making_way.name(state, record, room.victims)
        gang.planned.append(Binding(task, index, node.row, amount, record, ""))
    decisions.add_places(decision, (b.record for b in gang.planned[-len(places) :]))


def reserve_some(state: State, lane: int, gang: GangEntry) -> Reserve:
    """As many of the planned members as one transaction takes."""
    nodes: dict[str, NodeEntry] = {}
    compares = transactions.COMPARES - 2  # beside those of the workload and the slice
    chunk: list[Binding] = []
    for b in gang.planned[: state.settings.bind_batch_slots]:
        compares -= (1 if b.record.node in nodes else 2) + len(b.record.reservation.victims)
        if compares < 0:
            break
        nodes[b.record.node] = state.nodes[b.record.node]
        chunk.append(b)
    del gang.planned[: len(chunk)]
    account = state.account(gang.owner.tenant)
    charge = summed(b.charge for b in chunk)
    victims = [entry for b in chunk for entry in making_way.of(state, b.record)]
    return reservations.reserve(state.root, lane, gang, chunk, nodes.values(), account, charge, victims)


def reserved(state: State, operation: Reserve, revision: int) -> None:
    for tenant, charge in operation.charges:
        account = state.account(tenant)
        account.charging -= charge
        account.commit_on_lane(operation.lane, charge)
    for b in operation.bindings:
        b.task.in_flight.discard(b.replica)
        making_way.settled(state, b.record)
    state.put_slots([b.stored for b in operation.bindings], revision, charged=True)


def give_back(state: State, gang: GangEntry) -> None:
    """What is planned and not sent."""
    uncharge(state, gang.planned)
    gang.planned.clear()


def uncharge(state: State, bindings: Iterable[Binding]) -> None:
    for b in bindings:
        _uncharge(state, b)
        tenant = b.task.owner.tenant
        state.freed_tenants[tenant] = None
        state.unsettled_slices[tenant] = state.account(tenant)  # a draining limit may have stopped at this charge
        state.freed_rows[b.row] = None
        state.note_freed(b.task)


def _take_back(state: State, gang: GangEntry) -> None:
    """What was planned a moment ago, when it does not fit whole: nothing has become free by that."""
    for b in gang.planned:
        _uncharge(state, b)
    gang.planned.clear()
    gang.decisions.clear()


def _uncharge(state: State, b: Binding) -> None:
    amount = b.vector
    state.account(b.task.owner.tenant).charging -= b.charge
    state.table.credit(b.row, amount.amounts())
    if b.record.gpus:
        state.table.credit_gpus(b.row, b.record.gpus, amount.gpu_milli)
    b.task.move_copies(b.row, -1)
    b.task.in_flight.discard(b.replica)
    making_way.forget(state, b.record)
    making_way.settled(state, b.record)


def journal(gang: GangEntry, result: str, turn: Turn) -> None:
    """The decisions about its members are complete."""
    for decision in gang.decisions:
        decisions.publish(decision, result, turn)
    gang.decisions.clear()
