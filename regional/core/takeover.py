"""Records as stored, read into memory: all of them when leadership is won, single ones when a refusal read them.

The list of a takeover is complete: it was read at a revision not before the election, and older leaders' transactions
are dead by the compare of the term. It comes in parts, in the order of its keys: slots before the workloads that they
are counted for. Bound slots stay bound; phases and readiness come back with the agents' hellos. Every node gets a full
grace period, and exclusive work counts as running until T_l + T_s after the takeover at least.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from operator import attrgetter

from atoll.api.v1 import objects_pb2
from atoll.errors import require
from atoll.lane import Authority
from atoll.model.accounts import by_account
from atoll.store.store import KeyValue
from regional.core import gangs, global_plane, liveness, resting, shares, slices
from regional.core.state import State, Turn


class Takeover:
    """A state in the making: nothing is decided by it before it is complete."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._last_key = b""

    def read(self, records: Iterable[KeyValue], turn: Turn) -> None:
        for kind, items in groupby(self._in_order(records), lambda item: _kind(self.state.authority, item.key)):
            if reader := _READERS.get(kind):
                reader(self.state, items, turn)
        self.state.demand.keep_up(self.state.workloads)

    def _in_order(self, records: Iterable[KeyValue]) -> Iterable[KeyValue]:
        for item in records:
            require(item.key > self._last_key, "I7: a takeover reads each key once, in their order")
            self._last_key = item.key
            yield item

    def complete(self, revision: int, turn: Turn) -> State:
        """All records have been read, as of `revision`."""
        state, live = self.state, self.state.liveness
        state.revision = revision
        live.grace_from_ms = turn.now_ms
        rows = slice(state.table.size)
        live.heard_ms[rows] = turn.now_ms
        live.acknowledged_ms[rows] = turn.now_ms + state.settings.acknowledge_within_ms  # by the leader before us
        for workload in state.workloads.values():
            if not workload.mod_revision:  # slots that nobody accounts for: closed and forgotten
                nobody = objects_pb2.Metadata(tenant=workload.tenant, name=workload.name)
                shares.open_slots(state, workload, objects_pb2.Share(metadata=nobody, removed=True), 0, turn)
        state.forgettable = dict(state.workloads)
        return state


def _kind(authority: Authority, key: bytes) -> bytes:
    return key.removeprefix(authority.root).partition(b"/")[0]


def _read_nodes(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    live = state.liveness
    for item in items:
        record = objects_pb2.Node.FromString(item.value)
        node = state.node(record.metadata.name)
        state.put_node(node, record, item.mod_revision)
        live.heartbeat_ms[node.row] = record.heartbeat_ms or state.settings.heartbeat_ms
        live.fence_after_ms[node.row] = liveness.recorded_fence_ms(state.settings, record)
        if record.state == objects_pb2.NODE_STATE_LOST:
            live.lost[node.row] = True
            state.lost[node.name] = node


def _read_removed(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for item in items:
        record = objects_pb2.RemovedNode.FromString(item.value)
        state.removed[record.name] = record, item.mod_revision


def _read_slices(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for item in items:
        record = objects_pb2.RegionSlice.FromString(item.value)
        slices.adopt(state, state.account(record.tenant), record, item.mod_revision)


def _read_slots(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for slots, of_task in groupby(items, lambda item: item.key.rpartition(b"/")[0]):
        tenant, name, task = slots.removeprefix(state.root + b"slot/").decode().split("/")
        stored = ((_index(item.key), objects_pb2.Slot.FromString(item.value), item.mod_revision) for item in of_task)
        state.adopt_slots(state.task(state.workload(tenant, name), task), stored)


def _index(key: bytes) -> int:
    return int(key.rpartition(b"/")[2])


def _read_uses(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for item in items:
        tenant, _, lane = item.key.removeprefix(state.root + b"used/").decode().partition("/")
        use = objects_pb2.LaneUse.FromString(item.value)
        state.account(tenant).lane_use[int(lane)] = by_account(use.charges, attrgetter("charged"))


def _read_shares(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for item in items:
        share = objects_pb2.Share.FromString(item.value)
        workload = state.workload(share.metadata.tenant, share.metadata.name)
        state.epoch = max(state.epoch, share.epoch)
        state.heard = max(state.heard, (share.store_life, share.global_term))
        shares.open_slots(state, workload, share, item.mod_revision, turn)


def _read_zombies(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for item in items:
        state.put_zombie(item.key, objects_pb2.Zombie.FromString(item.value), item.mod_revision)


def _read_global(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for item in items:
        global_plane.adopt(state, objects_pb2.GlobalReign.FromString(item.value))


def _read_gangs(state: State, items: Iterable[KeyValue], turn: Turn) -> None:
    for item in items:
        record = objects_pb2.Gang.FromString(item.value)
        gangs.adopt(state, state.workload(record.tenant, record.workload), record, item.mod_revision)


_READERS: dict[bytes, Callable[[State, Iterable[KeyValue], Turn], None]] = {
    b"gang": _read_gangs,
    b"global": _read_global,
    b"node": _read_nodes,
    b"removed": _read_removed,
    b"slice": _read_slices,
    b"slot": _read_slots,
    b"used": _read_uses,
    b"workload": _read_shares,
    b"zombie": _read_zombies,
}


def adopt(state: State, stale: Iterable[tuple[bytes, KeyValue | None]], turn: Turn) -> bool:
    """What was read after a plan was refused, where it is newer than what is known. What has a transaction in flight on
    another lane is left to that one's answer. False: nothing was learnt, so the same plan would be refused again."""
    adopted = False
    for key, item in stale:
        match _kind(state.authority, key):
            case b"node":
                adopted |= _adopt_node(state, key, item, turn)
            case b"slice":
                adopted |= _adopt_slice(state, key, item)
            case b"workload":
                adopted |= _adopt_workload(state, key, item, turn)
            case b"slot":
                adopted |= _adopt_slot(state, key, item)
            case b"gang":
                adopted |= _adopt_gang(state, key, item)
    return adopted


def _adopt_node(state: State, key: bytes, item: KeyValue | None, turn: Turn) -> bool:
    node = state.nodes.get(key.removeprefix(state.root + b"node/").decode())
    if node is None or node.busy or item is None or item.mod_revision <= node.mod_revision:
        return False
    state.put_node(node, objects_pb2.Node.FromString(item.value), item.mod_revision)
    resting.missed(state, node, turn)
    return True


def _adopt_slice(state: State, key: bytes, item: KeyValue | None) -> bool:
    account = state.account(key.removeprefix(state.root + b"slice/").decode())
    if account.applying or item is None or item.mod_revision <= account.mod_revision:
        return False
    slices.adopt(state, account, objects_pb2.RegionSlice.FromString(item.value), item.mod_revision)
    return True


def _adopt_workload(state: State, key: bytes, item: KeyValue | None, turn: Turn) -> bool:
    tenant, _, name = key.removeprefix(state.root + b"workload/").decode().partition("/")
    workload = state.workloads.get((tenant, name))
    if workload is None or workload.busy or item is None or item.mod_revision <= workload.mod_revision:
        return False
    shares.open_slots(state, workload, objects_pb2.Share.FromString(item.value), item.mod_revision, turn)
    return True


def _adopt_slot(state: State, key: bytes, item: KeyValue | None) -> bool:
    tenant, name, task_name, index = key.removeprefix(state.root + b"slot/").decode().split("/")
    workload = state.workloads.get((tenant, name))
    task = workload.tasks.get(task_name) if workload else None
    if task is None:
        return False
    entry = task.entries.get(int(index))
    if entry and entry.busy:
        return False
    if item is None:
        if entry:
            state.drop_slots((entry,))
            state.mark_changed(task.owner)
        return entry is not None
    if entry and item.mod_revision <= entry.mod_revision:
        return False
    state.put_slot(task, int(index), objects_pb2.Slot.FromString(item.value), item.mod_revision)
    return True


def _adopt_gang(state: State, key: bytes, item: KeyValue | None) -> bool:
    tenant, _, name = key.removeprefix(state.root + b"gang/").decode().partition("/")
    workload = state.workloads.get((tenant, name))
    known = workload.gang.mod_revision if workload and workload.gang else 0
    if workload is None or known == (item.mod_revision if item else 0):
        return False
    record = objects_pb2.Gang.FromString(item.value) if item else None
    gangs.adopt(state, workload, record, item.mod_revision if item else 0)
    return True
