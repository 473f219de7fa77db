"""Every transaction about reserved slots, each written once; the others are in transactions.py.

A slot is reserved to be charged to a node before it may run there: RESERVE. It becomes bound by BIND-RESERVED, or waits
again by SWEEP. The members of a gang are bound by one GANG-COMMIT; what follows it is only carried out.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.lane import Plan
from atoll.model.accounts import ByAccount, summed
from atoll.store.store import Compare, Delete, Put, mod_is, not_written_since
from regional.core.transactions import Bind, Binding, Operation, Release, Released, charge_slots, lane_use, stored

if TYPE_CHECKING:
    from regional.core.ledger import TenantAccount
    from regional.core.records import GangEntry, NodeEntry, SlotEntry


@dataclass(frozen=True, slots=True)
class Reserve(Bind):
    gang: "GangEntry"


@dataclass(frozen=True, slots=True)
class CommitGang(Operation):
    gang: "GangEntry"
    record: objects_pb2.Gang


@dataclass(frozen=True, slots=True)
class BindReserved(Operation):
    gang: "GangEntry"
    bound: tuple[tuple["SlotEntry", objects_pb2.Slot], ...]


@dataclass(frozen=True, slots=True)
class DissolveGang(Operation):
    gang: "GangEntry"


@dataclass(frozen=True, slots=True)
class Sweep(Release):
    gang: "GangEntry"


@dataclass(frozen=True, slots=True)
class Preempt(Bind):
    """A RESERVE of one slot that is in no gang. It names its victims."""


@dataclass(frozen=True, slots=True)
class BindPreempting(Operation):
    entry: "SlotEntry"
    record: objects_pb2.Slot


@dataclass(frozen=True, slots=True)
class SweepOne(Operation):
    entry: "SlotEntry"
    record: objects_pb2.Slot
    credit: ByAccount


def reserve(
    root: bytes,
    lane: int,
    gang: "GangEntry",
    bindings: Sequence[Binding],
    nodes: Iterable["NodeEntry"],
    account: "TenantAccount",
    charge: ByAccount,
    victims: Iterable["SlotEntry"],
) -> Reserve:
    """I3, I9, I12. As BIND, but nothing runs by it: some members of a gang are charged to their nodes; and each victim
    is bound as it was when it was chosen."""
    plan = charge_slots("RESERVE", root, lane, bindings, nodes, ((account, charge),))
    plan = plan._replace(compares=(*plan.compares, *(mod_is(v.key, v.mod_revision) for v in victims)))
    return Reserve(lane, plan, tuple(bindings), ((account.tenant, charge),), (), gang)


def commit_gang(lane: int, gang: "GangEntry", record: objects_pb2.Gang) -> CommitGang:
    """I9, I12: the only bind point of a gang. No slot of its tasks was written since all members were seen reserved,
    and its workload is as it was when they were chosen."""
    owner = gang.owner
    compares = (mod_is(gang.key, gang.mod_revision), mod_is(owner.key, owner.mod_revision), *_as_known(gang))
    return CommitGang(lane, Plan("GANG-COMMIT", compares, (Put(gang.key, stored(record)),)), gang, record)


def bind_reserved(lane: int, gang: "GangEntry", bound: Sequence[tuple["SlotEntry", objects_pb2.Slot]]) -> BindReserved:
    """I1, I12. Members of a committed gang, each as it was reserved. What they hold is charged already."""
    compares = (mod_is(gang.key, gang.mod_revision), *(mod_is(e.key, e.mod_revision) for e, _ in bound))
    writes = tuple(Put(e.key, stored(record)) for e, record in bound)
    return BindReserved(lane, Plan("BIND-RESERVED", compares, writes), gang, tuple(bound))


def dissolve_gang(lane: int, gang: "GangEntry") -> DissolveGang:
    """I12. No member is reserved or bound any more, and its workload asks for no other ones: the next start is all or
    none again."""
    owner = gang.owner
    compares = (mod_is(gang.key, gang.mod_revision), mod_is(owner.key, owner.mod_revision), *_as_known(gang))
    return DissolveGang(lane, Plan("GANG-DISSOLVE", compares, (Delete(gang.key),)), gang)


def _as_known(gang: "GangEntry") -> Iterable[Compare]:
    """No slot of the gang's tasks was written after the last that is known of."""
    for task in gang.tasks:
        yield not_written_since(task.slots, max((e.mod_revision for e in task.entries.values()), default=0))


def sweep(root: bytes, lane: int, gang: "GangEntry", released: Sequence[Released], account: "TenantAccount") -> Sweep:
    """I3, I12. Reservations of a gang that is not committed, which is compared, too. Nothing ran by them, so no
    certificate is asked for."""
    compares = [mod_is(gang.key, gang.mod_revision), *(mod_is(r.entry.key, r.entry.mod_revision) for r in released)]
    writes = [Put(r.entry.key, stored(r.record)) for r in released]
    credit = -summed(r.entry.charge for r in released)
    writes.append(lane_use(root, lane, account, credit))
    plan = Plan("SWEEP", tuple(compares), tuple(writes))
    return Sweep(lane, plan, tuple(released), ((account.tenant, credit),), gang)


def preempt(
    root: bytes,
    lane: int,
    binding: Binding,
    node: "NodeEntry",
    victims: Sequence["SlotEntry"],
    account: "TenantAccount",
    decision: objects_pb2.Decision,
) -> Preempt:
    """I3, I9. As BIND of one slot, but nothing runs by it: and each victim is bound as it was when it was chosen."""
    charges = ((account, binding.charge),)
    plan = charge_slots("RESERVE", root, lane, (binding,), (node,), charges)
    plan = plan._replace(compares=(*plan.compares, *(mod_is(v.key, v.mod_revision) for v in victims)))
    return Preempt(lane, plan, (binding,), ((account.tenant, charges[0][1]),), (decision,))


def bind_preempting(
    lane: int, entry: "SlotEntry", record: objects_pb2.Slot, node: "NodeEntry", victims: Iterable["SlotEntry"]
) -> BindPreempting:
    """I1, I9. The slot is reserved as read, its victims are as they were seen released, its node takes work and its
    workload wants it. What it holds is charged already."""
    owner = entry.task.owner
    compares = [mod_is(entry.key, entry.mod_revision), mod_is(node.key, node.mod_revision)]
    compares += [mod_is(owner.key, owner.mod_revision), *(mod_is(v.key, v.mod_revision) for v in victims)]
    plan = Plan("BIND-RESERVED", tuple(compares), (Put(entry.key, stored(record)),))
    return BindPreempting(lane, plan, entry, record)


def sweep_one(
    root: bytes, lane: int, entry: "SlotEntry", record: objects_pb2.Slot, account: "TenantAccount"
) -> SweepOne:
    """I3. The reservation of a slot that is in no gang; nothing ran by it."""
    credit = -entry.charge
    writes = (Put(entry.key, stored(record)), lane_use(root, lane, account, credit))
    plan = Plan("SWEEP", (mod_is(entry.key, entry.mod_revision),), writes)
    return SweepOne(lane, plan, entry, record, credit)
