"""Writes store histories by hand, right ones and wrong ones, on the memory store: what the auditor is tested with."""

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2
from atoll.audit import Auditor, Verdict
from atoll.model.resources import Vector
from atoll.store import keys
from atoll.store.memory import MemoryState, MemoryStore
from atoll.store.store import Applied, Delete, Put, Txn

REGION = "north"
ROOT = keys.region_root(REGION)
UNIT = Vector(cpu_milli=500, memory_mib=256)
HARD, BURST = objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST


def put(key: bytes, record: Message, lease: int = 0) -> Put:
    return Put(key, record.SerializeToString(deterministic=True), lease)


class _StandingClock:
    """Leases last as long as the test does not end them."""

    def now_ms(self) -> int:
        return 0


class History:
    """A store whose every revision a test decides."""

    def __init__(self) -> None:
        self.state = MemoryState()
        self.terms: dict[bytes, int] = {}
        self._leases: dict[bytes, int] = {}
        self._n = 0

    def raw(self, *writes: Put | Delete) -> int:
        """One transaction, nothing added."""
        outcome = self.state.transact(Txn(success=writes))
        assert isinstance(outcome, Applied)
        return outcome.revision

    def elect(self, root: bytes) -> int:
        """A new leader, after the end of the old one."""
        if root in self._leases:
            self.depose(root)
        self._leases[root] = self.state.grant(6, now_ms=0).id
        leader = objects_pb2.Leader(name="a", nonce=str(len(self.terms)))
        self.terms[root] = self.raw(put(keys.leader(root), leader, self._leases[root]))
        return self.terms[root]

    def lane(
        self,
        root: bytes,
        *,
        term: int | None = None,
        index: int = 0,
        entry: "objects_pb2.LaneEntry.ValueType" = objects_pb2.LANE_ENTRY_OPERATION,
        operation: str = "",
    ) -> Put:
        self._n += 1
        term = self.terms[root] if term is None else term
        return put(keys.lane(root, index), objects_pb2.Lane(entry=entry, term=term, n=self._n, operation=operation))

    def write(self, root: bytes, *writes: Put | Delete, operation: str = "") -> int:
        """As a leader writes: with its lane."""
        return self.raw(self.lane(root, operation=operation), *writes)

    def release(self, *writes: Put | Delete) -> int:
        return self.write(ROOT, *writes, operation="RELEASE")

    def depose(self, root: bytes) -> None:
        self.state.revoke(self._leases[root])

    def store(self) -> MemoryStore:
        return MemoryStore(self.state, _StandingClock())

    def verdict(self) -> Verdict:
        auditor = Auditor()
        for batch in self.state.batches(b"/", 1):
            auditor.feed(batch)
        return auditor.verdict()

    def broken(self) -> list[str]:
        """The invariants that do not hold somewhere in this history."""
        return [invariant for invariant, _ in self.verdict().broken]


def budget(*, effective: int, free: int, pool: int = 0, burst: int = 0, burst_free: int = 0) -> Put:
    part = objects_pb2.AccountBudget(
        account=HARD,
        target=(UNIT * effective).to_proto(),
        effective=(UNIT * effective).to_proto(),
        free=(UNIT * free).to_proto(),
        recovery_pool=(UNIT * pool).to_proto(),
    )
    of_burst = objects_pb2.AccountBudget(
        account=BURST, effective=(UNIT * burst).to_proto(), free=(UNIT * burst_free).to_proto()
    )
    return put(keys.budget("acme"), objects_pb2.Budget(tenant="acme", accounts=[part, of_burst]))


def slice_(granted: int, *, recovery: int = 0, burst: int = 0, epoch: int = 1, seq: int = 1) -> Put:
    part = objects_pb2.AccountSlice(
        account=HARD, granted=(UNIT * granted).to_proto(), recovery=(UNIT * recovery).to_proto()
    )
    of_burst = objects_pb2.AccountSlice(account=BURST, granted=(UNIT * burst).to_proto())
    record = objects_pb2.Slice(tenant="acme", region=REGION, epoch=epoch, seq=seq, accounts=[part, of_burst])
    return put(keys.slice_("acme", REGION), record)


def region(epoch: int) -> Put:
    metadata = objects_pb2.Metadata(name=REGION)
    return put(keys.region(REGION), objects_pb2.Region(metadata=metadata, epoch=epoch))


def region_slice(limit: int, *, burst: int = 0, epoch: int = 1, revision: int = 1, strict: bool = False) -> Put:
    record = objects_pb2.RegionSlice(
        tenant="acme",
        epoch=epoch,
        seq=1,
        limits=[
            objects_pb2.AccountLimit(account=HARD, limit=(UNIT * limit).to_proto()),
            objects_pb2.AccountLimit(account=BURST, limit=(UNIT * burst).to_proto()),
        ],
        mode=objects_pb2.QUOTA_MODE_STRICT if strict else objects_pb2.QUOTA_MODE_AVAILABLE,
        global_revision=revision,
    )
    return put(keys.region_slice(ROOT, "acme"), record)


def workload(
    generation: int, *, name: str = "web", uid: str = "u1", revision: int = 1, gang: int = 0, priority: int = 0
) -> Put:
    """`gang`: how many replicas its task has, all in a gang; 0 = the share names no task."""
    metadata = objects_pb2.Metadata(tenant="acme", name=name, generation=generation, uid=uid)
    record = objects_pb2.Share(metadata=metadata, region=REGION, epoch=1, global_revision=revision)
    record.spec.priority = objects_pb2.Priority.ValueType(priority)
    if gang:
        record.spec.tasks.add(name="main", replicas=gang, gang=True)
    return put(keys.region_workload(ROOT, "acme", name), record)


def used(count: int, *, burst: int = 0, lane: int = 0) -> Put:
    charge = objects_pb2.AccountCharge(account=HARD, charged=(UNIT * count).to_proto())
    of_burst = objects_pb2.AccountCharge(account=BURST, charged=(UNIT * burst).to_proto())
    return put(keys.used(ROOT, "acme", lane), objects_pb2.LaneUse(charges=[charge, of_burst]))


def gang(reserved: int, *, uid: str = "u1") -> Put:
    tasks = [objects_pb2.GangTask(task="main", reserved=reserved)]
    return put(keys.gang(ROOT, "acme", "web"), objects_pb2.Gang(tenant="acme", workload="web", uid=uid, tasks=tasks))


def slot_id(index: int = 0) -> objects_pb2.SlotId:
    return objects_pb2.SlotId(tenant="acme", workload="web", task="main", index=index)


def slot(
    attempt: tuple[int, int] = (0, 0),
    *,
    index: int = 0,
    state: "objects_pb2.SlotState.ValueType" = objects_pb2.SLOT_STATE_BOUND,
    generation: int = 1,
    epoch: int = 1,
    node: str = "n1",
    uid: str = "u1",
    gang: bool = False,
    account: "objects_pb2.Account.ValueType" = HARD,
) -> Put:
    record = objects_pb2.Slot(
        id=slot_id(index),
        state=state,
        node=node,
        node_incarnation=1,
        attempt=objects_pb2.Attempt(term=attempt[0], n=attempt[1]),
        generation=generation,
        epoch=epoch,
        account=account,
        vector=UNIT.to_proto(),
        uid=uid,
        reservation=objects_pb2.Reservation(gang=True) if gang else None,
    )
    return put(keys.slot(ROOT, record.id), record)


def zombie(
    attempt: tuple[int, int],
    *,
    index: int = 0,
    node: str = "n1",
    units: int = 1,
    account: "objects_pb2.Account.ValueType" = HARD,
) -> Put:
    number = objects_pb2.Attempt(term=attempt[0], n=attempt[1])
    record = objects_pb2.Zombie(
        slot=slot_id(index), node=node, attempt=number, account=account, vector=(UNIT * units).to_proto()
    )
    return put(keys.zombie(ROOT, node, record.slot, number), record)
