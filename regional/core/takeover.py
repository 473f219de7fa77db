"""Records as stored, read into memory: all of them when leadership is won, single ones when a refusal read them.

The list of a takeover is complete: it was read at a revision not before the election, and older leaders' transactions
are dead by the compare of the term. Bound slots stay bound; phases and readiness come back with the agents' hellos.
Every node gets a full grace period, and exclusive work counts as running until T_l + T_s after the takeover at least.
"""

from collections.abc import Iterable

from atoll.api.v1 import objects_pb2
from atoll.lane import Authority
from atoll.model.resources import total, vector
from atoll.store.store import KeyValue
from regional.config import CoreSettings
from regional.core import liveness, resting, shares, slices
from regional.core.events import LeadershipWon
from regional.core.state import State, Turn


def take_over(region: str, settings: CoreSettings, event: LeadershipWon, turn: Turn) -> State:
    state = State(region, settings, event.authority, event.revision, turn.now_ms)
    by_kind = _by_kind(event.authority, event.records)
    for item in by_kind.get(b"node", ()):
        _read_node(state, item, turn.now_ms)
    for item in by_kind.get(b"removed", ()):
        state.removed[objects_pb2.RemovedNode.FromString(item.value).name] = (
            objects_pb2.RemovedNode.FromString(item.value),
            item.mod_revision,
        )
    for item in by_kind.get(b"slice", ()):
        record = objects_pb2.RegionSlice.FromString(item.value)
        slices.adopt(state, state.account(record.tenant), record, item.mod_revision)
    for item in by_kind.get(b"used", ()):
        _read_use(state, item)
    for item in by_kind.get(b"slot", ()):
        _read_slot(state, item)
    for item in by_kind.get(b"zombie", ()):
        state.put_zombie(item.key, objects_pb2.Zombie.FromString(item.value), item.mod_revision)
    for item in by_kind.get(b"workload", ()):
        share = objects_pb2.Share.FromString(item.value)
        workload = state.workload(share.metadata.tenant, share.metadata.name)
        state.epoch = max(state.epoch, share.epoch)
        shares.open_slots(state, workload, share, item.mod_revision, turn)
    for workload in state.workloads.values():
        if not workload.mod_revision:  # slots that nobody accounts for: closed and forgotten
            nobody = objects_pb2.Metadata(tenant=workload.tenant, name=workload.name)
            shares.open_slots(state, workload, objects_pb2.Share(metadata=nobody, removed=True), 0, turn)
        state.forgettable[workload.tenant, workload.name] = workload
    return state


def _by_kind(authority: Authority, records: Iterable[KeyValue]) -> dict[bytes, list[KeyValue]]:
    kinds: dict[bytes, list[KeyValue]] = {}
    for item in records:
        kinds.setdefault(_kind(authority, item.key), []).append(item)
    return kinds


def _kind(authority: Authority, key: bytes) -> bytes:
    return key.removeprefix(authority.root).partition(b"/")[0]


def _read_node(state: State, item: KeyValue, now_ms: int) -> None:
    record = objects_pb2.Node.FromString(item.value)
    node = state.node(record.metadata.name)
    state.put_node(node, record, item.mod_revision)
    live = state.liveness
    live.heartbeat_ms[node.row] = record.heartbeat_ms or state.settings.heartbeat_ms
    live.fence_after_ms[node.row] = liveness.recorded_fence_ms(state.settings, record)
    live.heard_ms[node.row] = now_ms
    live.acknowledged_ms[node.row] = now_ms + state.settings.acknowledge_within_ms  # by the leader before us
    if record.state == objects_pb2.NODE_STATE_LOST:
        live.lost[node.row] = True
        state.lost[node.name] = node


def _read_use(state: State, item: KeyValue) -> None:
    tenant, _, lane = item.key.removeprefix(state.root + b"used/").decode().partition("/")
    use = objects_pb2.LaneUse.FromString(item.value)
    state.account(tenant).lane_use[int(lane)] = total([vector(charge.charged) for charge in use.charges])


def _read_slot(state: State, item: KeyValue) -> None:
    record = objects_pb2.Slot.FromString(item.value)
    workload = state.workload(record.id.tenant, record.id.workload)
    task = state.task(workload, record.id.task)
    state.put_slot(task, record.id.index, record, item.mod_revision)


def adopt(state: State, stale: Iterable[tuple[bytes, KeyValue | None]], turn: Turn) -> bool:
    """What a refused plan's Else branch read, where it is newer than what is known. What has a transaction in flight on
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
        return entry is not None
    if entry and item.mod_revision <= entry.mod_revision:
        return False
    state.put_slot(task, int(index), objects_pb2.Slot.FromString(item.value), item.mod_revision)
    return True
