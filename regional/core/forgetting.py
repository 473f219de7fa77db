"""What is deleted: zombies whose certificate has come (CLEAR), and records nobody wants any more (FORGET). Keeps I7."""

import itertools

from regional.core import closing, gangs, interactive, transactions
from regional.core.records import WorkloadEntry
from regional.core.state import State, Turn
from regional.core.transactions import Clear, Forget, Forgotten

_FEWEST = 3  # operations that a workload with nothing left, or one slot, takes


def next_clear(state: State, lane: int, turn: Turn) -> Clear | None:
    if not state.clears:
        return None
    zombies = [z for z in list(state.clears.values())[: transactions.COMPARES] if not z.busy]
    for z in zombies:
        z.busy = True
        del state.clears[z.key]
    return transactions.clear(lane, zombies) if zombies else None


def clear_committed(state: State, operation: Clear, revision: int, turn: Turn) -> None:
    for zombie in operation.zombies:
        state.drop_zombie(zombie)
        tenant = zombie.record.slot.tenant
        state.unsettled_slices[tenant] = state.account(tenant)
    records = [zombie.record for zombie in operation.zombies]
    closing.settled(state, [(z.node, z.slot, z.attempt) for z in records], turn)


def clear_rejected(state: State, operation: Clear, turn: Turn) -> None:
    for zombie in operation.zombies:
        zombie.busy = False
        state.clears[zombie.key] = zombie


def next_forget(state: State, lane: int, turn: Turn) -> Forget | None:
    """Records nobody wants, of as many workloads as one transaction takes, or as may be looked at before other events
    are handled. One that is doubted goes alone: its refusal holds up no other."""
    forgotten: list[Forgotten] = []
    operations, slots = transactions.COMPARES, state.settings.forget_batch_slots
    for key, workload in list(itertools.islice(state.forgettable.items(), state.settings.round_looks)):
        if operations < _FEWEST or slots <= 0:
            break
        if forgotten and (workload.doubted or forgotten[0].workload.doubted):
            break
        del state.forgettable[key]
        if workload.busy:
            continue  # `look_again` follows when that is settled
        _prune(state, workload)
        one = _forgotten(state, workload, operations)
        if one is None:
            continue
        _mark(one)
        forgotten.append(one)
        operations -= one.operations
        slots -= len(one.entries)
    return transactions.forget(state.root, lane, forgotten) if forgotten else None


def _forgotten(state: State, workload: WorkloadEntry, operations: int) -> Forgotten | None:
    """What goes of it: as a range where that is all there is and not too much, else as many slots as fit."""
    most = state.settings.forget_batch_slots
    ended = [
        e
        for e in workload.entries()
        if not e.placed and not e.busy and not e.wanted and e.index not in e.task.in_flight
    ]
    if 0 < len(ended) <= most and _ends(state, workload, len(ended)) and not workload.doubted:
        return Forgotten(workload, tuple(ended), whole=True, ranged=True)
    batch = tuple(ended[: operations - 2])
    whole = _ends(state, workload, len(batch))
    return Forgotten(workload, batch, whole) if batch or whole else None


def _prune(state: State, workload: WorkloadEntry) -> None:
    """Forgets tasks that the share names no more and that have nothing left."""
    for name, task in list(workload.tasks.items()):
        if task.spec is None and not task.entries and not task.in_flight:
            del workload.tasks[name]
            state.rows.forget(task)
            state.speculating.pop(task, None)
            state.neighbours.forget(task)


def _mark(forgotten: Forgotten) -> None:
    forgotten.workload.busy = True
    for entry in forgotten.entries:
        entry.busy = True


def _ends(state: State, workload: WorkloadEntry, forgotten: int) -> bool:
    """Whether nothing is left of a removed workload once so many of its slots are forgotten, and every leader to come
    refuses a leader of the global plane that does not know of the removal."""
    share = workload.share
    if (share.store_life, share.global_term) > state.noted:
        return False
    slots = sum(len(task.entries) for task in workload.tasks.values())
    flying = any(task.in_flight for task in workload.tasks.values())
    return share.removed and not workload.next_share and slots == forgotten and not flying


def forget_committed(state: State, operation: Forget, revision: int, turn: Turn) -> None:
    for workload, entries, whole, _ in operation.forgotten:
        workload.busy = False
        state.drop_slots(entries)
        if whole:
            _drop(state, workload)
        state.mark_changed(workload)
        look_again(state, workload)


def _drop(state: State, workload: WorkloadEntry) -> None:
    """Its record is gone."""
    workload.mod_revision = 0
    gangs.forgotten(state, workload)
    for task in workload.tasks.values():
        state.speculating.pop(task, None)
        if task.cls:
            state.queue.drop(task.cls)
        state.neighbours.forget(task)
    if not workload.next_share:
        del state.workloads[workload.tenant, workload.name]
        state.drop_idle_account(workload.tenant)


def forget_rejected(state: State, operation: Forget, turn: Turn) -> None:
    for workload, entries, whole, _ in operation.forgotten:
        workload.busy = False
        workload.doubted |= whole
        for entry in entries:
            entry.busy = False
        look_again(state, workload)


def look_again(state: State, workload: WorkloadEntry) -> None:
    """After a transaction on a workload's record: what came meanwhile, and what is left to forget."""
    key = (workload.tenant, workload.name)
    if workload.next_share:
        interactive.unsettle(state, workload)
    elif key in state.workloads:
        state.forgettable[key] = workload
    gangs.look(state, workload)
