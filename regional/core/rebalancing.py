"""Migration: when the nodes of a region are unevenly used, replicas go from the fullest ones to where there is room.

It begins when the imbalance (balance.py) has been above `rebalance_percent` for `rebalance_after_ms`, and ends when it
is half of that. A replica moves make-before-break, as a surge (surging.py): never without room and quota for both, and
never when its task has one down. Few move at once, and few a minute.

Who moves: replicas of services of class `keep` that are up, whose strategy spreads load (`rebalance_strategies`: one
that packs fills nodes on purpose), and whose workload does not say `migratable: false`. Each has run for
`rebalance_rest_ms`: so none moves twice within that, whoever leads. Where to: the node that placement would take; and
it moves only if that is then less used than its own node was. So the larger utilization of the two falls with every
move, and none undoes another: it comes to an end. A new leader gives up what it finds under way (indices.py).
"""

from collections.abc import Iterator

import numpy as np

from regional.core import closing, surging
from regional.core.announcing import announce
from regional.core.balance import Evenness, Migration, evenness, utilization
from regional.core.placement import Filling
from regional.core.promises import Promises
from regional.core.records import NodeEntry, SlotEntry, TaskEntry
from regional.core.spread_filling import fill
from regional.core.state import State, Turn
from regional.core.tally import UP

_PERIOD_MS = 5_000
_MINUTE_MS = 60_000
_NODES, _TASKS = 64, 32  # that are compared at a look


def is_to_look(state: State, now_ms: int) -> bool:
    """Whether anything is under way, or it is time to look whether something should be."""
    balance = state.balance
    return bool(balance.migrations or (state.settings.rebalance_percent and now_ms >= balance.looked_ms + _PERIOD_MS))


def check(state: State, promises: Promises, turn: Turn) -> None:
    """To be called now and then."""
    balance = state.balance
    for key, migration in list(balance.migrations.items()):
        if not _goes_on(state, promises, migration, turn):
            del balance.migrations[key]
    if state.settings.rebalance_percent and turn.now_ms >= balance.looked_ms + _PERIOD_MS:
        balance.looked_ms = turn.now_ms
        going = [(state.nodes[m.entry.record.node].row, m.entry.vector) for m in balance.migrations.values()]
        even = evenness(state.table, going)
        if _is_due(state, even, turn.now_ms):
            _begin(state, promises, even, turn)


def _is_due(state: State, even: Evenness, now_ms: int) -> bool:
    balance, percent = state.balance, state.settings.rebalance_percent
    if even.imbalance_percent <= (percent / 2 if balance.evening else percent):
        balance.evening, balance.uneven_since_ms = False, 0
        return False
    balance.uneven_since_ms = balance.uneven_since_ms or now_ms
    balance.evening = balance.evening or now_ms >= balance.uneven_since_ms + state.settings.rebalance_after_ms
    return balance.evening


def _begin(state: State, promises: Promises, even: Evenness, turn: Turn) -> None:
    """One more, if the budget allows it."""
    balance, settings = state.balance, state.settings
    while balance.begun_ms and balance.begun_ms[0] <= turn.now_ms - _MINUTE_MS:
        balance.begun_ms.popleft()
    for rested in [one for one, until_ms in balance.resting.items() if until_ms <= turn.now_ms]:
        del balance.resting[rested]
    if len(balance.migrations) >= settings.rebalance_at_once:
        return
    if len(balance.begun_ms) >= settings.rebalance_per_minute:
        return
    found = _best(state, even, turn.now_ms)
    if found is None:
        return
    entry, share = found
    used, mean = f"{share * 100:.0f} %", f"{even.mean * 100:.0f} %"
    reason = f"node {entry.record.node} is used to {used}, the mean of the region is {mean}"
    until_ms = turn.now_ms + settings.rebalance_rest_ms
    balance.begun_ms.append(turn.now_ms)
    balance.migrations[entry.key] = migration = Migration(entry, entry.mod_revision, reason, until_ms)
    if not _goes_on(state, promises, migration, turn):
        del balance.migrations[entry.key]


def _best(state: State, even: Evenness, now_ms: int) -> tuple[SlotEntry, float] | None:
    """Of the fullest node that has any: the replica whose move leaves the larger of the two utilizations lowest."""
    looks = _TASKS
    for row, share in zip(even.rows[:_NODES].tolist(), even.shares[:_NODES].tolist(), strict=True):
        if 100 * (share - even.mean) <= state.settings.rebalance_percent / 2 or not looks:
            return None
        found: list[tuple[float, bytes, SlotEntry]] = []
        for entry in _movable(state, state.nodes[state.table.names[row]], now_ms):
            looks -= 1
            after = _after(state, even, entry, row)
            if after < share:
                found.append((after, entry.key, entry))
            if not looks:
                break
        if found:
            return min(found)[2], share
    return None


def _movable(state: State, node: NodeEntry, now_ms: int) -> Iterator[SlotEntry]:
    """At most one of each task."""
    seen: set[TaskEntry] = set()
    for _, entry in sorted(node.slots.items()):
        if entry.task not in seen and _may_move(state, entry, now_ms):
            seen.add(entry.task)
            yield entry


def _may_move(state: State, entry: SlotEntry, now_ms: int) -> bool:
    task, status = entry.task, entry.status
    if not entry.wanted or entry.closing or entry.busy or entry.key in state.releases or not entry.marks & UP:
        return False
    if not surging.may_surge(entry) or task.request.strategy not in state.settings.rebalance_strategies:
        return False
    spec = task.owner.share.spec
    if task.request.vector.gpu_milli or (spec.HasField("migratable") and not spec.migratable):
        return False
    resting = state.balance.resting
    if task.surges or task.tally.up < task.replicas or task in resting or task.owner.tenant in resting:
        return False
    return status is not None and 0 < status.started_ms <= now_ms - state.settings.rebalance_rest_ms


def _after(state: State, even: Evenness, entry: SlotEntry, row: int) -> float:
    """The larger utilization of the two nodes, were it moved; without end where no other node takes it."""
    task = entry.task
    filling: Filling = fill(state.class_row(task), 1, task.around, row)
    if not filling.ranked or filling.ranked[0] == row:
        return float("inf")
    amounts = np.array(task.request.vector.amounts(), np.int64)
    rows = np.array([row, filling.ranked[0]])
    return float(utilization(state.table, rows, even.less[rows] + np.array([-amounts, amounts])).max())


def _goes_on(state: State, promises: Promises, migration: Migration, turn: Turn) -> bool:
    """The next step of a migration; False when it is over. Whoever gives it up gives up its surge: see surging.py."""
    entry, task = migration.entry, migration.entry.task
    if migration.handed_over or not entry.wanted or entry.closing or entry.mod_revision != migration.revision:
        return migration.handed_over and entry.mod_revision == migration.revision
    successor = surging.successor_of(entry)
    if turn.now_ms >= migration.until_ms:
        return _rest(state, task, turn.now_ms)
    if successor is not None:
        if surging.is_up(task, successor):
            return _hand_over(state, migration, successor, turn)
        return True
    pays = promises.pays(entry)
    if not migration.made and pays and promises.beside(entry):
        migration.made = True
        surging.start(state, entry, turn)
        _tell(state, entry, "Migrating", f"{migration.reason}: another one is made first", turn)
        return True
    if not migration.made and not pays and promises.awaits_quota(entry):
        return True
    return _rest(state, task if pays else task.owner.tenant, turn.now_ms)


def _hand_over(state: State, migration: Migration, successor: int, turn: Turn) -> bool:
    """Unless others have filled that node meanwhile."""
    entry, task, reason = migration.entry, migration.entry.task, migration.reason
    old, new = (state.nodes[e.record.node].row for e in (entry, task.entries[successor]))
    before, after = utilization(state.table, np.array([old, new])).tolist()
    if after >= before:
        return _rest(state, task, turn.now_ms)
    surging.take_over(state, task, successor, entry.index)
    closing.stop(state, entry, reason, turn)
    node = task.entries[successor].record.node
    _tell(state, entry, "Migrated", f"{reason}; {task.name}/{successor} on {node} has taken its place", turn)
    migration.handed_over = True
    return True


def _rest(state: State, which: TaskEntry | str, now_ms: int) -> bool:
    state.balance.resting[which] = now_ms + state.settings.rebalance_rest_ms
    return False


def _tell(state: State, entry: SlotEntry, kind: str, text: str, turn: Turn) -> None:
    owner = entry.task.owner
    announce(turn, state, owner.tenant, owner.name, kind, f"{entry.task.name}/{entry.index}: {text}")
