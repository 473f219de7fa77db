"""Slices: what the region was granted, applied in order, acknowledged after the commit, lowered as work drains, frozen
when the global plane has not renewed them in time."""

from atoll.api.v1 import objects_pb2, regional_pb2
from regional.core import bursting, transactions
from regional.core.commands import SendUp
from regional.core.ledger import STRICT, TenantAccount, is_newer
from regional.core.state import State, Turn
from regional.core.transactions import ApplySlice


def slice_arrived(state: State, stamp: regional_pb2.SliceStamp, turn: Turn) -> None:
    account = state.account(stamp.slice.tenant)
    if is_newer(stamp, account.record) and (account.stamp is None or _supersedes(stamp, account.stamp)):
        account.stamp, account.told_strict = stamp, stamp.slice.mode == STRICT
        state.unsettled_slices[account.tenant] = account
    elif account.mod_revision:
        if not _supersedes(_stored(account), stamp):  # as stored, but that it may wait to become strict
            account.told_strict = stamp.slice.mode == STRICT
            state.unsettled_slices[account.tenant] = account
        acknowledge(state, account, turn)


def _supersedes(stamp: regional_pb2.SliceStamp, other: regional_pb2.SliceStamp) -> bool:
    return (stamp.store_life, stamp.slice.epoch, stamp.slice.seq) > (
        other.store_life,
        other.slice.epoch,
        other.slice.seq,
    )


def _stored(account: TenantAccount) -> regional_pb2.SliceStamp:
    record = account.record
    return regional_pb2.SliceStamp(
        store_life=record.store_life, slice=objects_pb2.Slice(epoch=record.epoch, seq=record.seq)
    )


def check(state: State, now_ms: int) -> None:
    """Finds the slices whose validity is over."""
    for account in state.accounts.values():
        if account.expired(now_ms):
            state.unsettled_slices[account.tenant] = account


def next_slice(state: State, lane: int, turn: Turn) -> ApplySlice | None:
    while state.unsettled_slices:
        account = state.unsettled_slices.pop(next(iter(state.unsettled_slices)))
        record = account.next_record(turn.now_ms)
        if record is not None:
            account.applying = record
            return transactions.apply_slice(state.root, lane, account, record)
    return None


def slice_committed(state: State, operation: ApplySlice, revision: int, turn: Turn) -> None:
    account = operation.account
    account.applying = None
    adopt(state, account, operation.record, revision)
    bursting.look_at(state, account)  # what waited for a higher limit has it now
    acknowledge(state, account, turn)


def adopt(state: State, account: TenantAccount, record: objects_pb2.RegionSlice, mod_revision: int) -> None:
    before = account.protected
    account.adopt(record, mod_revision)
    if account.protected:
        state.protected[account.tenant] = account
    else:
        state.protected.pop(account.tenant, None)
    state.nodes_changed = state.nodes_changed or account.protected != before  # others may have more room
    state.epoch = max(state.epoch, record.epoch)
    state.freed_tenants[account.tenant] = None
    state.unsettled_slices[account.tenant] = account


def slice_rejected(state: State, operation: ApplySlice, turn: Turn) -> None:
    account = operation.account
    account.applying = None
    state.unsettled_slices[account.tenant] = account
    state.freed_tenants[account.tenant] = None


def acknowledge(state: State, account: TenantAccount, turn: Turn) -> None:
    """Absolute, committed numbers; sent again whenever they changed and when the global plane is back."""
    if state.uplink:
        account.reported = account.standing()
        ack = account.acknowledgement(state.region, state.authority.term)
        turn.do(SendUp(regional_pb2.UplinkMessage(slice_ack=ack)))
