"""BIND: which waiting replicas are bound next, and what follows when that is settled.

A plan takes classes in the queue's order until its room for compares is used. Everything is charged in memory when the
plan is sent, so that the next plan sees it; dispatch to agents waits for the commit. A refused plan gives everything
back and its replicas wait again; what the refusal read has been adopted before.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

from atoll.api.v1 import objects_pb2
from atoll.model import explain
from atoll.model.accounts import NONE, Account, ByAccount, charged_to
from regional.core import (
    ahead,
    closing,
    decisions,
    gpu_scores,
    headroom,
    interactive,
    kept_room,
    protection,
    transactions,
    waking,
)
from regional.core.announcing import announce as announce
from regional.core.classes import together
from regional.core.commands import Journal, SendToNode
from regional.core.filters import Cure
from regional.core.gpus import Devices
from regional.core.ledger import SLICE_AWAITED, TenantAccount
from regional.core.node_table import NOWHERE
from regional.core.placement import Filling
from regional.core.queue import SchedulingClass
from regional.core.records import BOUND, WAITING, NodeEntry, SlotEntry, TaskEntry
from regional.core.spread_filling import fill
from regional.core.state import State, Turn
from regional.core.transactions import Bind, Binding

_QUOTA_CURES, _SLICE_CURES = frozenset({Cure.QUOTA}), frozenset({Cure.QUOTA, Cure.SLICE})
TURN_CURES = frozenset({Cure.REPLICAS})
AT_PARALLELISM = explain.reason(explain.PARALLELISM)


class _Batch:
    """A BIND being put together: what it holds, and how much room is left in it."""

    def __init__(self, state: State, lane: int, now_ms: int) -> None:
        self.state = state
        self.lane = lane
        self.most_slots = state.settings.bind_batch_slots
        self.beside_slots = interactive.batch_slots(state, self.most_slots, now_ms)
        self.prompt = False  # it has interactive work, and so nothing else
        self.bindings: list[Binding] = []
        self.nodes: dict[int, NodeEntry] = {}  # by row
        self.workloads: set[bytes] = set()
        self.charges: dict[str, ByAccount] = {}
        self.decisions: list[objects_pb2.Decision] = []
        self._filling: Filling | None = None
        self._scores: list[objects_pb2.NodeScore] = []
        self._new_room: headroom.Room | None = None  # headroom leaves to replicas that have not run yet
        self._quota: dict[str, str] = {}  # as it was before this batch, by tenant

    def filling(self, task: TaskEntry, avoid: str) -> Filling:
        """The one under way when it can go on, else a new one."""
        row = self.state.class_row(task)
        avoided = self.state.table.row_of.get(avoid, NOWHERE)
        if self._filling is None or not self._filling.continues(row, task.around, avoided):
            ahead.evaluate(self.state, task)
            self._filling = fill(row, self.slots_left, task.around, avoided)
            self._scores = self._filling.shown(self.state.settings.shown_scores)
        return self._filling

    def add_evidence(self, decision: objects_pb2.Decision, filling: Filling) -> None:
        tenant = decision.slot.tenant
        if tenant not in self._quota:
            self._quota[tenant] = decisions.quota_of(self.state.account(tenant))
        decision.quota = self._quota[tenant]
        decision.filters.extend(filling.refusals.reasons)
        decision.scores.extend(self._scores)
        decision.nodes, decision.feasible = len(self.state.nodes), filling.feasible
        if filling.left_out != NOWHERE:
            decision.avoided = self.state.table.names[filling.left_out]

    @property
    def new_room(self) -> headroom.Room:
        """What replicas that have not run yet may still be charged."""
        if self._new_room is None:
            self._new_room = headroom.room(self.state)
        return self._new_room

    def charge(self, tenant: str, charge: ByAccount) -> None:
        self.charges[tenant] = self.charges.get(tenant, NONE) + charge
        self._new_room = self.new_room._replace(left=self.new_room.left - charge.both)

    @property
    def slots_left(self) -> int:
        return (self.most_slots if self.prompt else self.beside_slots) - len(self.bindings)

    @property
    def compares_left(self) -> int:
        """For replicas and nodes of one more class, whose workload and slice may be new here. There are never more
        writes than compares."""
        used = len(self.bindings) + len(self.nodes) + len(self.workloads) + len(self.charges)
        return transactions.COMPARES - used - 2

    @property
    def has_room(self) -> bool:
        return self.slots_left > 0 and self.compares_left >= 2

    def plan(self) -> Bind | None:
        if not self.bindings:
            return None
        accounts = [(self.state.account(tenant), charge) for tenant, charge in self.charges.items()]
        return transactions.bind(
            self.state.root, self.lane, self.bindings, self.nodes.values(), accounts, self.decisions
        )


def due_ms(state: State, handled_ms: int) -> int:
    """When to go on with what was not looked at, so that other events are handled; `handled_ms`: when the last was."""
    due_ms = state.queue.next_due_ms() if state.looks_left else 0
    return min(due_ms, handled_ms + 1) if state.forgettable or state.roomless else due_ms


def next_prompt_bind(state: State, lane: int, turn: Turn) -> Bind | None:
    """Of what stands where interactive work does, and above."""
    return _next_bind(state, lane, turn, state.settings.interactive_priority)


def next_bind(state: State, lane: int, turn: Turn) -> Bind | None:
    """The next BIND for this lane, charged in memory; None when nothing can be bound now."""
    return _next_bind(state, lane, turn, 0)


def _next_bind(state: State, lane: int, turn: Turn, lowest: int) -> Bind | None:
    waking.begin_round(state, turn)
    if not state.queue:
        return None
    if state.table.gpus.any and (typical := state.table.demand.news()):
        state.table.expect(typical)
    batch = _Batch(state, lane, turn.now_ms)
    total = state.total_capacity().amounts()
    shares: dict[str, float] = {}  # that no charge has changed since

    def share_of(tenant: str) -> float:
        share = shares.get(tenant)
        if share is None:
            share = shares[tenant] = weighted_share(state.account(tenant), total)
        return share

    while batch.has_room and state.looks_left:
        cls = state.queue.pick(share_of, lowest)
        if cls is None:
            break
        state.looks_left -= 1
        if cls.gang:
            _give_turn(state, cls)
            break
        prompt = interactive.is_interactive(state, cls.band)
        if batch.bindings and prompt != batch.prompt:
            break  # interactive work goes at once, and alone
        if prompt:
            interactive.seen(state, turn)
        batch.prompt = prompt
        task = state.workloads[cls.tenant, cls.workload].tasks[cls.task]
        with kept_room.passing(state, cls, task.owner, turn.now_ms):
            _place_some(state, batch, cls, turn)
        shares.pop(cls.tenant, None)
    return batch.plan()


def _give_turn(state: State, cls: SchedulingClass) -> None:
    """A gang is placed before anything that comes after it in the order."""
    gang = state.workloads[cls.tenant, cls.workload].gang
    if gang and gang.cls is cls:
        cls.take(1)
        gang.due = True
        state.gangs[gang.key] = gang


def weighted_share(account: TenantAccount, total: Sequence[int]) -> float:
    """DRF: the largest share of any resource that the tenant holds or is being given, by its weight."""
    held = (account.held + account.charging).both
    shares = [h / t for h, t in zip(held, total, strict=True) if t]
    return max(shares, default=0.0) / account.weight


def _place_some(state: State, batch: _Batch, cls: SchedulingClass, turn: Turn) -> None:
    """Takes replicas of one class into the batch, or parks the class with the reason."""
    task = state.workloads[cls.tenant, cls.workload].tasks[cls.task]
    room = batch.slots_left if task.parallel is None else task.parallel - task.at_once
    if room <= 0:
        state.queue.park(cls, TURN_CURES, (AT_PARALLELISM,))
        return
    account = state.account(cls.tenant)
    payer, affordable = account.payer(cls.request.vector, cls.may_burst)
    if not affordable:
        known = account.refusal(cls.request.vector, cls.may_burst)
        park(state, cls, quota_cures(account), (known,), turn)
        return
    beside = protection.replicas(state, cls.tenant, cls.request.vector)
    if not beside:
        why = protection.reason(state, cls.tenant, cls.request.vector)
        park(state, cls, protection.CURES, (why,), turn)
        return
    most = min(batch.slots_left, room, affordable, beside, state.settings.class_turn_slots)
    ran = cls.ran  # then these alone are taken
    if unspoken := headroom.replicas(batch.new_room, cls, payer):
        indices, avoid = cls.take(min(most, unspoken))
    else:
        indices, avoid = cls.take_among(most, task.entries)
    if not indices:
        park(state, cls, headroom.CURES, (headroom.reason(state, batch.new_room, cls.request.vector),), turn)
        return
    filling = batch.filling(task, avoid)
    chosen = filling.take(len(indices), batch.compares_left, batch.nodes)
    cls.put(indices[len(chosen) :], avoid, ran=ran)
    if not chosen:
        park(state, cls, filling.refusals.cures, filling.refusals.reasons, turn)
        return
    decision = decisions.begin(state, cls, turn)
    batch.add_evidence(decision, filling)
    _bind(state, batch, task, payer, list(zip(indices[: len(chosen)], chosen, strict=True)), avoid, decision)
    filling.charged()


def quota_cures(account: TenantAccount) -> frozenset[Cure]:
    """Of what the account cannot pay for. The first slice is one for all that wait: what it lacks is then known."""
    return _SLICE_CURES if account.awaits_slice else _QUOTA_CURES


def park(
    state: State,
    cls: SchedulingClass,
    cures: frozenset[Cure],
    reasons: tuple[objects_pb2.PendingReason, ...],
    turn: Turn,
) -> None:
    if [r.code for r in cls.reasons] != [r.code for r in reasons]:
        decision = decisions.begin(state, cls, turn)
        decision.quota = decisions.quota_of(state.account(cls.tenant))
        decision.filters.extend(reasons)
        decision.slot.index = next(cls.indices())
        decision.nodes = len(state.nodes)
        turn.do(Journal(decision))
        if reasons != (SLICE_AWAITED,):  # which mostly comes a moment later: no alarm
            announce(turn, state, cls.tenant, cls.workload, "NotPlaced", f"{cls.task}: {explain.summary(reasons)}")
    state.queue.park(cls, cures, reasons)
    if cls.may_preempt:
        state.roomless[cls] = None
    state.mark_changed(state.workloads[cls.tenant, cls.workload])


def _bind(
    state: State,
    batch: _Batch,
    task: TaskEntry,
    payer: Account,
    places: Sequence[tuple[int, int]],
    avoid: str,
    decision: objects_pb2.Decision,
) -> None:
    """Charges the places and adds their records to be."""
    amount = task.request.vector
    counts = Counter(row for _, row in places)
    state.table.charge_all(list(counts), [amount * count for count in counts.values()])
    devices: dict[int, Iterator[Devices]] = {}  # of each row's replicas, in their order
    for row, count in counts.items():
        task.move_copies(row, count)
        if amount.gpu_milli:
            devices[row] = iter(gpu_scores.take_all(state.table, task.request, row, count))
    state.demand.mark(task.owner.place)
    tenant, workload = task.owner.tenant, task.owner
    charge = charged_to(payer, amount * len(places))
    state.account(tenant).charging += charge
    batch.charge(tenant, charge)
    batch.workloads.add(workload.key)
    common = alike(state, task, decision.id, payer)
    for index, row in places:
        node = batch.nodes.get(row)
        if node is None:
            node = batch.nodes[row] = state.nodes[state.table.names[row]]
        task.in_flight.add(index)
        record = objects_pb2.Slot()
        record.CopyFrom(common)
        record.id.index = index
        record.node, record.node_incarnation = node.name, node.record.incarnation
        record.attempt.n = state.next_attempt()
        record.tries = tries(task, index)
        if devices:
            record.gpus.extend(next(devices[row]))
        batch.bindings.append(Binding(task, index, row, amount, record, avoid))
    decisions.add_places(decision, (b.record for b in batch.bindings[-len(places) :]))
    batch.decisions.append(decision)


def alike(state: State, task: TaskEntry, decision_id: str, account: Account) -> objects_pb2.Slot:
    """What the records of all slots of one decision have in common, as bound."""
    workload, spec = task.owner, task.owner.share.spec
    return objects_pb2.Slot(
        id=objects_pb2.SlotId(tenant=workload.tenant, workload=workload.name, task=task.name),
        state=BOUND,
        attempt=objects_pb2.Attempt(term=state.authority.term),
        generation=workload.generation,
        epoch=state.epoch,
        account=account,
        vector=task.request.vector.to_proto(),
        decision_id=decision_id,
        uid=workload.uid,
        run_class=spec.run_class,
        bounded_s=spec.bounded_s,
    )


def tries(task: TaskEntry, index: int) -> int:
    """They count on only while they tried the same template."""
    entry = task.entries.get(index)
    counts = entry and entry.record.state == WAITING and not entry.outdated and not entry.resumed
    return entry.record.tries if entry and counts else 0


def bind_committed(state: State, operation: Bind, revision: int, turn: Turn) -> None:
    """The slots are bound: their nodes are told, unless a newer generation has stopped them meanwhile."""
    for tenant, charge in operation.charges:
        account = state.account(tenant)
        account.charging -= charge
        account.commit_on_lane(operation.lane, charge)
    for b in operation.bindings:
        b.task.in_flight.discard(b.replica)
    bound = state.put_slots([b.stored for b in operation.bindings], revision, charged=True)
    dispatch(state, bound, turn)
    for decision in operation.decisions:
        decisions.publish(decision, "Bound", turn)
        name = decision.slot
        announce(
            turn,
            state,
            name.tenant,
            name.workload,
            "Bound",
            f"{name.task}: {explain.counted(len(decision.placed), 'replica')}",
        )


def dispatch(state: State, bound: Sequence[SlotEntry], turn: Turn) -> None:
    """Tells the nodes of what is bound since this moment."""
    started = []
    for entry in bound:
        node = state.nodes[entry.record.node]
        if node.record.state == objects_pb2.NODE_STATE_LOST:
            state.lost[node.name] = node  # it was taken for lost after the BIND applied, and before its answer came
        if not entry.wanted or entry.outdated:
            closing.stop(state, entry, "a newer generation", turn)
        elif node.welcomed:
            started.append((node.session, entry))
    for session, message in closing.assign_messages(state, started):
        turn.do(SendToNode(session, message))


def bind_rejected(state: State, operation: Bind, turn: Turn) -> None:
    """Nothing was bound and never will be: everything is given back and waits again."""
    for tenant, charge in operation.charges:
        account = state.account(tenant)
        account.charging -= charge
        state.freed_tenants[tenant] = None
        state.unsettled_slices[tenant] = account  # a draining limit may have stopped at this charge
    for b in operation.bindings:
        state.table.credit(b.row, b.vector)
        if b.record.gpus:
            state.table.credit_gpus(b.row, b.record.gpus, b.vector.gpu_milli)
        state.freed_rows[b.row] = None
        b.task.move_copies(b.row, -1)
        state.demand.mark(b.task.owner.place)
        state.note_freed(b.task)
        b.task.in_flight.discard(b.replica)
        if not b.task.cls or b.replica not in b.task.wanted or _bound_by_another(b):
            # unwanted meanwhile: this was perhaps the last that kept its workload
            state.forgettable[b.task.owner.tenant, b.task.owner.name] = b.task.owner
        elif not together(b.task):
            ran = b.task.ran(b.replica)
            state.queue.put(b.task.cls, (b.replica,), b.task.cls.queued_ms, b.avoid, ran=ran)  # its age goes on
        elif gang := b.task.owner.gang:  # it is a member of one meanwhile
            state.gangs[gang.key] = gang
    for decision in operation.decisions:
        decisions.publish(decision, "Refused", turn)


def _bound_by_another(b: Binding) -> bool:
    """The refusal showed that the slot has a binding already."""
    entry = b.task.entries.get(b.replica)
    return entry is not None and entry.bound
