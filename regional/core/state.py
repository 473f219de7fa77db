"""What a regional leader knows: the committed records, their indices and sums, and what is in flight.

The only place that changes records in memory, so that indices and sums (node table, ledger, tallies) cannot drift from
them: `put_slots`, `put_node`, `put_zombie`. Records are the published messages and never mutated. Decides nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.errors import require
from atoll.lane import Authority, Plan
from atoll.model.accounts import BURST, Account, charged_to
from atoll.model.lifecycle import SLOT, step
from atoll.model.resources import NOTHING, Vector, vector
from atoll.store import keys
from regional.config import CoreSettings
from regional.core import overcommit
from regional.core.ailing import ails
from regional.core.balance import Balance
from regional.core.class_row import ClassRow
from regional.core.class_rows import ClassRows, Evaluator
from regional.core.commands import Command
from regional.core.demand import Demand
from regional.core.events import NodeChangeAsked
from regional.core.filters import driver_labels
from regional.core.ledger import TenantAccount
from regional.core.liveness import Liveness
from regional.core.neighbours import Neighbours
from regional.core.node_table import POOL, NodeTable
from regional.core.queue import Hold, Queue, SchedulingClass
from regional.core.records import (
    BOUND,
    RESERVED,
    GangEntry,
    NodeEntry,
    SlotEntry,
    TaskEntry,
    WorkloadEntry,
    ZombieEntry,
    marks_of,
)
from regional.core.sums import check_sums
from regional.core.transactions import Binding, Operation, StoredSlot

_Held = tuple[TaskEntry, Vector, bool, Account]  # so much each, reserved or bound
_Alike = defaultdict[_Held, Counter[int]]  # slots of a task that hold alike, by row of their node


@dataclass(slots=True)
class Turn:
    """One call of `handle`: the time, and the commands so far. `woken`: nothing but time brought it about, and no round
    of decisions was begun by it yet."""

    now_ms: int
    woken: bool = False
    commands: list[Command] = field(default_factory=list)

    def do(self, command: Command) -> None:
        self.commands.append(command)


class State:
    def __init__(self, region: str, settings: CoreSettings, authority: Authority, now_ms: int) -> None:
        self.region, self.settings, self.authority = region, settings, authority
        self.root, self.revision, self.epoch = authority.root, 0, 0  # everything committed up to here is known
        self.table = NodeTable()
        self.neighbours, self.demand = Neighbours(), Demand()
        self.liveness = Liveness(now_ms)
        self.nodes: dict[str, NodeEntry] = {}
        self.sessions: dict[int, NodeEntry] = {}
        self.workloads: dict[tuple[str, str], WorkloadEntry] = {}
        self.accounts: dict[str, TenantAccount] = {}
        self.protected: dict[str, TenantAccount] = {}  # those with a protected part
        self.burst = NOTHING  # bound or reserved by burst accounts: hard ones may have its room
        self.zombies: dict[bytes, ZombieEntry] = {}
        self.queue = Queue(settings.ageing_ms, settings.overdue_turn)
        self.rows = ClassRows(self.table, settings.cached_classes)
        self.evaluator: Evaluator | None = None  # who evaluates classes ahead of their turn; None: nobody does
        self.in_flight: dict[int, Operation] = {}
        self.last_attempt = self.last_decision = 0
        self.applied_sent_ms = 0  # when the newest applied transaction of this term was sent
        self.looks_left = -1  # at classes, until the core is woken next; below zero: not known yet
        self.uplink = False
        self.deaf = False  # to a deposed leader of the global plane, until another has said its welcome
        self.heard = self.noted = (0, 0)  # (store life, term): the newest reign of the global plane, and that stored
        self.noting = False
        # what topics have still to do, in order of arrival
        self.releases: dict[bytes, SlotEntry] = {}  # bound, and their certificate has come
        self.clears: dict[bytes, ZombieEntry] = {}  # their certificate has come
        self.lost: dict[str, NodeEntry] = {}  # LOST as committed, with work to move
        self.unsettled_nodes: dict[str, NodeEntry] = {}  # with a record to write
        self.unlisted: dict[tuple[str, str], WorkloadEntry] = {}  # not named by the global plane since its welcome
        self.interactive_until_ms = 0
        self.prompt_shares: dict[tuple[str, str], WorkloadEntry] = {}  # interactive ones with a share to admit
        self.unsettled_shares: dict[tuple[str, str], WorkloadEntry] = {}  # with a share to admit
        self.unsettled_slices: dict[str, TenantAccount] = {}  # with a slice to apply, or draining
        self.forgettable: dict[tuple[str, str], WorkloadEntry] = {}  # with ended, unwanted slots
        self._begin_reserving()
        self.asked: list[tuple[int, Plan]] = []
        self.node_changes, self.removals_asked = list[NodeChangeAsked](), list[NodeChangeAsked]()
        self.leaving: dict[str, NodeEntry] = {}  # nodes whose work, or part of it, has to go
        self.balance, self.surging, self.wishing = Balance(), dict[TaskEntry, None](), dict[str, TenantAccount]()
        self.speculating: dict[TaskEntry, None] = {}  # tasks whose stragglers get second copies
        self.resting: dict[str, int] = {}  # nodes that get no work until then
        self.going: dict[str, None] = {}  # nodes to be removed by themselves
        self.removed: dict[str, tuple[objects_pb2.RemovedNode, int]] = {}  # with their revisions
        # what may have cured parked classes since they were last looked at; opened = freed earlier, not all offered yet
        self.freed_rows, self.opened_rows = dict[int, None](), dict[int, None]()
        self.freed_tenants: dict[str, None] = {}
        self.nodes_changed = False
        # what is to be told upwards
        self.changed: dict[tuple[str, str], WorkloadEntry] = {}

    def _begin_reserving(self) -> None:
        self.hold: Hold | None = None  # see backfill.py
        self.preempted_ms = 0  # when all that finds no room was looked at
        self.gangs: dict[bytes, GangEntry] = {}  # that may have a step to take
        self.preempting: dict[bytes, SlotEntry] = {}  # reserved, with victims, and perhaps a step to take
        self.victims: dict[bytes, SlotEntry] = {}  # to be stopped for others, and not asked yet
        self.roomless: dict[SchedulingClass, None] = {}  # parked for want of room since they were last looked at

    # ---- lookups

    def slot(self, name: objects_pb2.SlotId) -> SlotEntry | None:
        workload = self.workloads.get((name.tenant, name.workload))
        task = workload.tasks.get(name.task) if workload else None
        return task.entries.get(name.index) if task else None

    def account(self, tenant: str) -> TenantAccount:
        found = self.accounts.get(tenant)
        if found is None:
            found = self.accounts[tenant] = TenantAccount(tenant)
        return found

    def drop_idle_account(self, tenant: str) -> None:
        """Forgets a tenant that was granted nothing here, and has and charges nothing."""
        account = self.accounts.get(tenant)
        if account and account.is_idle and not any(owner == tenant for owner, _ in self.workloads):
            del self.accounts[tenant]
            self.unsettled_slices.pop(tenant, None)

    def workload(self, tenant: str, name: str) -> WorkloadEntry:
        found = self.workloads.get((tenant, name))
        if found is None:
            found = WorkloadEntry(tenant, name, keys.region_workload(self.root, tenant, name))
            self.workloads[tenant, name] = found
        return found

    def task(self, workload: WorkloadEntry, name: str) -> TaskEntry:
        found = workload.tasks.get(name)
        if found is None:
            slots = keys.task_slots(self.root, workload.tenant, workload.name, name)
            found = workload.tasks[name] = TaskEntry(workload, name, slots)
        return found

    def node(self, name: str) -> NodeEntry:
        found = self.nodes.get(name)
        if found is None:
            row = self.table.add(name)
            self.liveness.cover(self.table.size)
            found = self.nodes[name] = NodeEntry(name, keys.node(self.root, name), row)
        return found

    def class_row(self, task: TaskEntry) -> ClassRow:
        """The remembered answers for the task's request, shared by all that ask alike."""
        return self.rows.of(task)

    def total_capacity(self) -> Vector:
        return Vector(*self.table.total.tolist())

    def next_attempt(self) -> int:
        """The second half of an attempt's id, after the term: never goes back."""
        self.last_attempt += 1
        return self.last_attempt

    def token(self, attempt: objects_pb2.Attempt) -> objects_pb2.Token:
        token = objects_pb2.Token()
        self.fill_token(token, attempt)
        return token

    def fill_token(self, token: objects_pb2.Token, attempt: objects_pb2.Attempt) -> None:
        """In place: messages inside of messages cost twice as much when they are made first and copied then."""
        token.store_life, token.epoch, token.term = self.authority.store_life, self.epoch, self.authority.term
        token.attempt.CopyFrom(attempt)

    # ---- records

    def put_slot(self, task: TaskEntry, index: int, record: objects_pb2.Slot, mod_revision: int) -> None:
        """The slot as now stored."""
        self.put_slots(((task, index, vector(record.vector), record),), mod_revision)

    def put_slots(self, stored: Iterable[StoredSlot], mod_revision: int, *, charged: bool = False) -> list[SlotEntry]:
        """Slots as now stored by one transaction. `charged`: their nodes were charged when the BIND was sent. Sums are
        moved once for all that are alike."""
        entries: list[SlotEntry] = []
        taken: _Alike = defaultdict(Counter)
        freed: _Alike = defaultdict(Counter)
        for task, index, amount, record in stored:
            entry = task.entries.get(index)
            if entry is None:
                entry = SlotEntry(task.slot_key(index), task, index, record, mod_revision, amount)
                task.entries[index] = entry
            else:
                step(SLOT, entry.record.state, record.state)
                self._leave_node(entry, freed)
                entry.record, entry.mod_revision, entry.vector = record, mod_revision, amount
            entry.derive()
            entry.status, entry.closing, entry.grace_s = None, "", 0
            if entry.placed:
                taken[entry.held][self._enter_node(entry).row] += 1
            self.retally(entry)
            entries.append(entry)
        self._free(freed)
        for (task, one, reserved, account), rows in taken.items():
            self._hold(task, one * rows.total(), reserved, account)
            if not charged:
                self.table.charge_all(list(rows), [one * count for count in rows.values()])
                for row, count in rows.items():
                    task.move_copies(row, count)
        if not charged:
            self._charge_gpus(entries)
        return entries

    def adopt_slots(self, task: TaskEntry, stored: Iterable[tuple[int, objects_pb2.Slot, int]]) -> None:
        """Slots of one task with their revisions, as a takeover finds them. Each is counted when its share is known."""
        rows: list[int] = []
        amounts: list[Vector] = []
        entries: list[SlotEntry] = []
        for index, record, mod_revision in stored:
            entry = SlotEntry(task.slot_key(index), task, index, record, mod_revision, vector(record.vector))
            task.entries[index] = entry
            entries.append(entry)
            entry.bound, entry.reserved = record.state == BOUND, record.state == RESERVED
            entry.exit_reason = "" if entry.bound else record.exit.reason
            if entry.placed:
                node = self._enter_node(entry)
                rows.append(node.row)
                amounts.append(entry.vector)
                self._hold(task, entry.vector, entry.reserved, entry.account)
                task.move_copies(node.row, 1)
        if rows:
            self.table.charge_all(rows, amounts)
            self._charge_gpus(entries)

    def _charge_gpus(self, entries: Iterable[SlotEntry]) -> None:
        """The devices that placed slots name."""
        for entry in entries:
            if entry.placed and entry.vector.gpu_milli and entry.record.gpus:
                row = self.nodes[entry.record.node].row
                self.table.charge_gpus(row, entry.record.gpus, entry.vector.gpu_milli, promised=True)

    def drop_slots(self, entries: Iterable[SlotEntry]) -> None:
        """The slots' records were deleted."""
        freed: _Alike = defaultdict(Counter)
        for entry in entries:
            self._leave_node(entry, freed)
            if entry.marks:
                entry.task.tally.move(entry.marks, 0)
            entry.task.ailing.pop(entry.index, None)
            del entry.task.entries[entry.index]
        self._free(freed)

    def _enter_node(self, entry: SlotEntry) -> NodeEntry:
        node = self.node(entry.record.node)
        (node.reserved if entry.reserved else node.slots)[entry.key] = entry
        if entry.bound and entry.account == BURST:
            node.burst[entry.key] = entry
        return node

    def _leave_node(self, entry: SlotEntry, freed: _Alike) -> None:
        if entry.placed:
            node = self.nodes[entry.record.node]
            del (node.reserved if entry.reserved else node.slots)[entry.key]
            node.burst.pop(entry.key, None)
            self.preempting.update(node.reserved)  # perhaps for one of them
            if entry.vector.gpu_milli and entry.record.gpus:
                self.table.credit_gpus(node.row, entry.record.gpus, entry.vector.gpu_milli)
            freed[entry.held][node.row] += 1

    def _hold(self, task: TaskEntry, amount: Vector, reserved: bool, account: Account) -> None:
        """U or V."""
        tenant, held = self.account(task.owner.tenant), charged_to(account, amount)
        if reserved:
            tenant.reserved += held
        else:
            tenant.bound += held
        if account == BURST:
            self.burst += amount

    def _free(self, freed: _Alike) -> None:
        for (task, one, reserved, account), rows in freed.items():
            self._hold(task, one * -rows.total(), reserved, account)
            self.table.credit_all(list(rows), [one * count for count in rows.values()])
            for row, count in rows.items():
                task.move_copies(row, -count)
            self.freed_rows.update(dict.fromkeys(rows))
            self.freed_tenants[task.owner.tenant] = None
            self.note_freed(task)

    def note_freed(self, task: TaskEntry) -> None:
        """Replicas of the task have left their nodes."""
        if task.request.topology or task.parallel is not None:
            self.neighbours.freed(task)
        if task.parallel is not None:
            self.mark_changed(task.owner)  # the others wait for what it runs beyond its part

    def retally(self, entry: SlotEntry) -> None:
        """Counts the entry anew after its record, status or share changed."""
        task, before, after = entry.task, entry.marks, marks_of(entry)
        if before != after:
            entry.marks = after
            task.tally.move(before, after)
        if ails(entry):
            task.ailing[entry.index] = entry
        elif task.ailing:
            task.ailing.pop(entry.index, None)
        self.mark_changed(task.owner)

    def mark_changed(self, workload: WorkloadEntry) -> None:
        self.changed[workload.place] = workload
        self.demand.mark(workload.place)

    def put_node(self, node: NodeEntry, record: objects_pb2.Node, mod_revision: int) -> None:
        node.record, node.mod_revision = record, mod_revision
        if record.draining or any(t.effect == objects_pb2.TAINT_EFFECT_NO_EXECUTE for t in record.taints):
            self.leaving[node.name] = node
        else:
            self.leaving.pop(node.name, None)
        node.drained = node.drained and record.draining
        self.preempting.update(node.reserved)
        there, labels = vector(record.capacity), {label.key: label.value for label in record.metadata.labels}
        promised = overcommit.promised(there, record.pool, self.settings)
        self.table.describe(
            node.row,
            promised,
            {POOL: record.pool} | labels | driver_labels(record.drivers),
            ((t.key, t.value, int(t.effect)) for t in record.taints),
            record.cordoned or record.draining,
            {gpu.number: gpu.model for gpu in record.gpus},
            there if promised != there else None,
        )
        self.nodes_changed = True

    def drop_node(self, node: NodeEntry) -> None:
        """The node's record was deleted: its row is free for another one."""
        require(not node.slots and not node.reserved and not node.zombies, f"I7: node {node.name} goes with work on it")
        self.sessions.pop(node.session, None)
        for names in (self.nodes, self.lost, self.leaving, self.resting, self.unsettled_nodes):
            names.pop(node.name, None)
        self.liveness.clear(node.row)
        self.table.remove(node.name)

    def set_ready(self, node: NodeEntry, ready: bool) -> None:
        self.table.set_ready(node.row, ready)
        if ready:
            self.liveness.calm_until_ms = 0  # its silence counts sooner
        self.nodes_changed = self.nodes_changed or ready

    def set_unfit(self, node: NodeEntry, words: str) -> None:
        self.table.set_unfit(node.row, words)
        self.nodes_changed = True  # as well when it goes out of use: its domain may no longer count

    def put_zombie(self, key: bytes, record: objects_pb2.Zombie, mod_revision: int) -> ZombieEntry:
        require(key not in self.zombies, "I7: an attempt is a zombie once")
        entry = ZombieEntry(key, record, mod_revision)
        node = self.node(record.node)
        self.zombies[key] = node.zombies[key] = entry
        amount = vector(record.vector)
        self.account(record.slot.tenant).zombie += charged_to(record.account, amount)
        self.table.charge(node.row, amount.amounts())
        if record.gpus:
            self.table.charge_gpus(node.row, record.gpus, amount.gpu_milli, promised=True)
        return entry

    def drop_zombie(self, entry: ZombieEntry) -> None:
        node = self.nodes[entry.record.node]
        del self.zombies[entry.key]
        del node.zombies[entry.key]
        amount = vector(entry.record.vector)
        self.account(entry.record.slot.tenant).zombie -= charged_to(entry.record.account, amount)
        self.table.credit(node.row, amount.amounts())
        if entry.record.gpus:
            self.table.credit_gpus(node.row, entry.record.gpus, amount.gpu_milli)
        self.freed_rows[node.row] = None
        self.freed_tenants[entry.record.slot.tenant] = None

    def planned_on(self, node: str) -> list[Binding]:
        """Members of gangs that are placed there and not sent yet."""
        return [b for gang in self.gangs.values() for b in gang.planned if b.record.node == node]

    def check(self) -> None:
        """The sums that hold between any two events; for tests and the simulator."""
        check_sums(self)


# what follows when an operation of a type is committed, or rejected
Handlers = dict[type[Operation], tuple[Callable[[State, Any, int, Turn], None], Callable[[State, Any, Turn], None]]]
