"""Every transaction of a regional leader, each written once.

A function here builds the compares and writes of one operation and says which invariant they keep; lane, term and store
life are added by the lane. What the leader does when it is settled lives with its topic. Limits of the store: 128
compares and 128 writes, of which the lane takes 3 and 1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.lane import MOST_COMPARES, MOST_WRITES, Plan
from atoll.model.accounts import ByAccount, charged_to
from atoll.model.resources import NOTHING, Vector
from atoll.store import keys
from atoll.store.store import Delete, Put, mod_is, not_written_since, prefix_end, put

if TYPE_CHECKING:
    from regional.core.events import NodeChangeAsked
    from regional.core.ledger import TenantAccount
    from regional.core.records import NodeEntry, SlotEntry, TaskEntry, WorkloadEntry, ZombieEntry

COMPARES, WRITES = MOST_COMPARES, MOST_WRITES


@dataclass(frozen=True, slots=True)
class Operation:
    """A plan in flight on a lane, with what its settlement needs."""

    lane: int
    plan: Plan

    def charged_to(self, node: str) -> Vector:
        """What was charged to a node when this was sent; given back if it is rejected."""
        return NOTHING


StoredSlot = tuple["TaskEntry", int, Vector, objects_pb2.Slot]  # index, what it asks for, record


class Binding(NamedTuple):
    """One slot of a BIND: the record to be, and where its replica goes."""

    task: "TaskEntry"
    replica: int  # the index of its slot
    row: int
    vector: Vector  # that of the record
    record: objects_pb2.Slot
    avoid: str  # for the queue, should it come back

    @property
    def stored(self) -> "StoredSlot":
        """Once it is committed."""
        return self.task, self.replica, self.vector, self.record

    @property
    def charge(self) -> ByAccount:
        return charged_to(self.record.account, self.vector)


@dataclass(frozen=True, slots=True)
class Bind(Operation):
    bindings: tuple[Binding, ...]
    charges: tuple[tuple[str, ByAccount], ...]  # by tenant
    decisions: tuple[objects_pb2.Decision, ...]

    def charged_to(self, node: str) -> Vector:
        return sum((b.vector for b in self.bindings if b.record.node == node), NOTHING)


class Released(NamedTuple):
    """One slot of a RELEASE or REPLACE: its next record, and the zombie left behind, if any."""

    entry: "SlotEntry"
    record: objects_pb2.Slot
    zombie: tuple[bytes, objects_pb2.Zombie] | None = None

    @property
    def stored(self) -> "StoredSlot":
        """Once it is committed."""
        return self.entry.task, self.entry.index, self.entry.vector, self.record


@dataclass(frozen=True, slots=True)
class Release(Operation):
    released: tuple[Released, ...]
    credits: tuple[tuple[str, ByAccount], ...]  # by tenant, as negative charges


@dataclass(frozen=True, slots=True)
class Clear(Operation):
    zombies: tuple["ZombieEntry", ...]


@dataclass(frozen=True, slots=True)
class ApplySlice(Operation):
    account: "TenantAccount"
    record: objects_pb2.RegionSlice


@dataclass(frozen=True, slots=True)
class NoteGlobal(Operation):
    reign: objects_pb2.GlobalReign


@dataclass(frozen=True, slots=True)
class AdmitShares(Operation):
    admitted: tuple[tuple["WorkloadEntry", objects_pb2.Share], ...]


@dataclass(frozen=True, slots=True)
class WriteNodes(Operation):
    records: tuple[tuple["NodeEntry", objects_pb2.Node], ...]


@dataclass(frozen=True, slots=True)
class ChangeNode(Operation):
    """What an operator asked of a node."""

    node: "NodeEntry"
    record: objects_pb2.Node
    asked: "NodeChangeAsked"


@dataclass(frozen=True, slots=True)
class RemoveNode(Operation):
    node: "NodeEntry"
    record: objects_pb2.RemovedNode
    expired: tuple[str, ...]  # earlier removals that go with it, by name
    asked: "NodeChangeAsked | None"  # None: by itself


class Forgotten(NamedTuple):
    """What goes of one workload."""

    workload: "WorkloadEntry"
    entries: tuple["SlotEntry", ...]
    whole: bool  # the workload's record goes with them
    ranged: bool = False  # all of them at once

    @property
    def operations(self) -> int:
        """Of the store: compares or writes, whichever are more, at most."""
        return (1 if self.ranged else len(self.entries)) + (2 if self.whole else 1)


@dataclass(frozen=True, slots=True)
class Forget(Operation):
    forgotten: tuple[Forgotten, ...]


@dataclass(frozen=True, slots=True)
class Asked(Operation):
    reply_to: int


@dataclass(frozen=True, slots=True)
class Touch(Operation):
    pass


def bind(
    root: bytes,
    lane: int,
    bindings: Sequence[Binding],
    nodes: Iterable["NodeEntry"],
    accounts: Iterable[tuple["TenantAccount", ByAccount]],
    decisions: Iterable[objects_pb2.Decision],
) -> Bind:
    """I1, I3, I9. Slots are absent or as read; their workloads, nodes and the tenants' slices are unchanged, so nothing
    is bound beyond a limit, to a lost node, or for a generation that a newer one has stopped."""
    accounts = tuple(accounts)
    plan = charge_slots("BIND", root, lane, bindings, nodes, accounts)
    charges = tuple((account.tenant, charge) for account, charge in accounts)
    return Bind(lane, plan, tuple(bindings), charges, tuple(decisions))


def charge_slots(
    name: str,
    root: bytes,
    lane: int,
    bindings: Sequence[Binding],
    nodes: Iterable["NodeEntry"],
    accounts: Sequence[tuple["TenantAccount", ByAccount]],
) -> Plan:
    """The slots as they are to be, charged; what a BIND compares."""
    compares, writes = [], []
    for b in bindings:
        entry = b.task.entries.get(b.replica)
        key = entry.key if entry else b.task.slot_key(b.replica)
        compares.append(mod_is(key, entry.mod_revision if entry else 0))
        writes.append(put(key, stored(b.record)))
    compares += [mod_is(node.key, node.mod_revision) for node in nodes]
    workloads = {b.task.owner.key: b.task.owner for b in bindings}
    compares += [mod_is(key, workload.mod_revision) for key, workload in workloads.items()]
    compares += [mod_is(keys.region_slice(root, a.tenant), a.mod_revision) for a, _ in accounts]
    writes += [lane_use(root, lane, account, charge) for account, charge in accounts]
    return Plan(name, tuple(compares), tuple(writes))


def release(
    root: bytes, lane: int, released: Sequence[Released], credits: Iterable[tuple["TenantAccount", ByAccount]]
) -> Release:
    """I1, I3. Each slot is as it was when its attempt's certificate was seen (the agent closed it, or its fence has
    passed), so no attempt but the closed one loses its binding; the credit is exactly what that attempt held."""
    return _leave("RELEASE", root, lane, released, credits, ())


def replace(
    root: bytes,
    lane: int,
    released: Sequence[Released],
    credits: Iterable[tuple["TenantAccount", ByAccount]],
    nodes: Iterable["NodeEntry"],
) -> Release:
    """I1, I7. Without a certificate: the slot is free for a new attempt elsewhere only together with a zombie that
    accounts for the old one; the node is still lost."""
    return _leave("REPLACE", root, lane, released, credits, nodes)


def _leave(
    name: str,
    root: bytes,
    lane: int,
    released: Sequence[Released],
    credits: Iterable[tuple["TenantAccount", ByAccount]],
    nodes: Iterable["NodeEntry"],
) -> Release:
    credits = tuple(credits)
    compares = [mod_is(r.entry.key, r.entry.mod_revision) for r in released]
    compares += [mod_is(node.key, node.mod_revision) for node in nodes]
    writes = [put(r.entry.key, stored(r.record)) for r in released]
    for r in released:
        if r.zombie:
            compares.append(mod_is(r.zombie[0], 0))
            writes.append(Put(r.zombie[0], stored(r.zombie[1])))
    writes += [lane_use(root, lane, account, credit) for account, credit in credits]
    plan = Plan(name, tuple(compares), tuple(writes))
    return Release(lane, plan, tuple(released), tuple((account.tenant, credit) for account, credit in credits))


def clear(lane: int, zombies: Sequence["ZombieEntry"]) -> Clear:
    """I7. A zombie goes when its attempt's certificate has come, and only once."""
    compares = tuple(mod_is(z.key, z.mod_revision) for z in zombies)
    return Clear(lane, Plan("CLEAR", compares, tuple(Delete(z.key) for z in zombies)), tuple(zombies))


def apply_slice(root: bytes, lane: int, account: "TenantAccount", record: objects_pb2.RegionSlice) -> ApplySlice:
    """I3. C moves in the order of (epoch, seq) and never below what is bound or may be bound by a plan in flight."""
    key = keys.region_slice(root, account.tenant)
    plan = Plan("APPLY-SLICE", (mod_is(key, account.mod_revision),), (Put(key, stored(record)),))
    return ApplySlice(lane, plan, account, record)


def admit_shares(lane: int, admitted: Sequence[tuple["WorkloadEntry", objects_pb2.Share]]) -> AdmitShares:
    """I9. From its commit on no BIND of an older generation can apply: they compare these records."""
    compares = tuple(mod_is(workload.key, workload.mod_revision) for workload, _ in admitted)
    writes = tuple(Put(workload.key, stored(share)) for workload, share in admitted)
    return AdmitShares(lane, Plan("ADMIT-SHARE", compares, writes), tuple(admitted))


def write_nodes(lane: int, records: Sequence[tuple["NodeEntry", objects_pb2.Node]]) -> WriteNodes:
    """I1. A node's move between READY and LOST is seen by every BIND and REPLACE that names it."""
    compares = tuple(mod_is(node.key, node.mod_revision) for node, _ in records)
    writes = tuple(Put(node.key, stored(record)) for node, record in records)
    return WriteNodes(lane, Plan("NODE", compares, writes), tuple(records))


def change_node(lane: int, node: "NodeEntry", record: objects_pb2.Node, asked: "NodeChangeAsked") -> ChangeNode:
    """I1. From its commit on no BIND decided on the node as it was before can apply."""
    compares = (mod_is(node.key, node.mod_revision),)
    return ChangeNode(lane, Plan("CHANGE-NODE", compares, (Put(node.key, stored(record)),)), node, record, asked)


def remove_node(
    root: bytes,
    lane: int,
    node: "NodeEntry",
    record: objects_pb2.RemovedNode,
    expired: Sequence[tuple[str, int]],
    asked: "NodeChangeAsked | None",
) -> RemoveNode:
    """I7. The record as read gets no work and nothing is bound to it, so nothing can be after this; its certificates
    are refused from the same revision on. `expired`: names and revisions of removals that are forgotten."""
    keys_of = {name: keys.removed_node(root, name) for name, _ in expired}
    compares = [mod_is(node.key, node.mod_revision), *(mod_is(keys_of[name], mod) for name, mod in expired)]
    removed = Put(keys.removed_node(root, node.name), stored(record))
    deletes = [Delete(key) for key in keys_of.values()]
    plan = Plan("REMOVE-NODE", tuple(compares), (Delete(node.key), removed, *deletes))
    return RemoveNode(lane, plan, node, record, tuple(keys_of), asked)


def forget(root: bytes, lane: int, forgotten: Sequence[Forgotten]) -> Forget:
    """I7. Records of replicas that have ended and are wanted no more; a removed workload's own with the last of them.
    A range goes only when none of its slots was written after the last that is known of."""
    compares, writes = [], []
    for workload, entries, whole, ranged in forgotten:
        compares.append(mod_is(workload.key, workload.mod_revision))
        if ranged:
            prefix = keys.slots(root, workload.tenant, workload.name)
            compares.append(not_written_since(prefix, max(e.mod_revision for e in entries)))
            writes.append(Delete(prefix, prefix_end(prefix)))
        else:
            compares += [mod_is(e.key, e.mod_revision) for e in entries]
            writes += [Delete(e.key) for e in entries]
        if whole:
            writes += [Delete(workload.key), *_gang_of(workload)]
    return Forget(lane, Plan("FORGET", tuple(compares), tuple(writes)), tuple(forgotten))


def _gang_of(workload: "WorkloadEntry") -> Iterable[Delete]:
    return [Delete(workload.gang.key)] if workload.gang and workload.gang.record else []


def asked(lane: int, reply_to: int, plan: Plan) -> Asked:
    """A guarded write of another part of the process, under this leader's authority."""
    return Asked(lane, plan, reply_to)


def note_global(root: bytes, lane: int, store_life: int, term: int) -> NoteGlobal:
    """I6. From its commit on every leader of this region refuses the global leaders before that one."""
    record = objects_pb2.GlobalReign(store_life=store_life, term=term)
    return NoteGlobal(lane, Plan("NOTE-GLOBAL", (), (Put(keys.heard_global(root), stored(record)),)), record)


def touch(lane: int) -> Touch:
    """I5. Proves that this leader's term still rules: agents are acknowledged only shortly after such proof."""
    return Touch(lane, Plan("TOUCH"))


def lane_use(root: bytes, lane: int, account: "TenantAccount", charge: ByAccount) -> Put:
    return Put(keys.used(root, account.tenant, lane), stored(account.lane_sum(lane, charge)))


def stored(
    message: objects_pb2.Slot
    | objects_pb2.Gang
    | objects_pb2.LaneUse
    | objects_pb2.RegionSlice
    | objects_pb2.Share
    | objects_pb2.GlobalReign
    | objects_pb2.Node
    | objects_pb2.RemovedNode
    | objects_pb2.Zombie,
) -> bytes:
    """Messages have no maps, so these bytes are always the same; to ask for that takes half as long again."""
    return message.SerializeToString()
