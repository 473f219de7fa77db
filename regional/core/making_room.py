"""Room made by stopping bound replicas of lower priorities, or charged to burst: on which node, and whom. Changes
nothing but its own notes.

Asked for one replica after the other: who is to be stopped for those before counts as gone. On a node one preemption at
a time is under way. The cheapest node is taken of the first few that have victims, those that lack least first; those
where what is charged to burst is enough come before all others. Which victims of one node: victims.py.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import BURST, HARD, Account
from atoll.model.resources import NOTHING, Vector, total
from regional.core import gpus, protection
from regional.core.class_row import FEASIBLE
from regional.core.filters import FIRST_OF_ROOM, Request
from regional.core.node_table import Integers, Rows
from regional.core.queue import NEVER_MS
from regional.core.records import NodeEntry, SlotEntry, TaskEntry
from regional.core.state import State
from regional.core.tally import UP
from regional.core.victims import Candidate, Cost, Lacking, choose, cost, freed_gpus

MOST_VICTIMS = 64  # of one replica: all are compared in one transaction


_Known = dict[int, tuple[Candidate, ...] | None]  # victims by row; None: no way


class Room(NamedTuple):
    """Where one replica may go when its victims are gone, and the devices that it gets then."""

    node: NodeEntry
    victims: tuple[SlotEntry, ...]
    gpus: tuple[int, ...]


class Asker(NamedTuple):
    """For whom room is made."""

    tenant: str
    band: int
    account: Account  # that is to pay for it

    def may_stop(self, entry: SlotEntry) -> bool:
        """What is of a lower priority and not of a better account; and, for what the hard account pays for, whatever
        the burst account of another tenant does. So nothing that was stopped can stop what it was stopped for."""
        lower = (entry.task.owner.share.spec.priority or objects_pb2.PRIORITY_DEFAULT) < self.band
        if entry.account == HARD:
            return lower and self.account == HARD
        return lower or (self.account == HARD and entry.task.owner.tenant != self.tenant)


class Search:
    """For replicas of one asker. Whoever takes a room charges it before the next is asked for, and notes its victims
    in `state.victims`."""

    def __init__(self, state: State, asker: Asker, now_ms: int) -> None:
        self._state = state
        self._asker = asker
        self._now_ms = now_ms
        self._taken = {entry.record.node for entry in state.victims.values()}  # by others
        self._guard = protection.Guard(state)
        self._freed: dict[int, Vector] = {}  # by row
        self._freed_gpus: dict[int, Counter[int]] = {}
        self._known: dict[tuple[TaskEntry, bool], _Known] = {}  # of burst alone, or of all

    def next_room(self, task: TaskEntry) -> Room | None:
        """The cheapest for one more replica, which is taken then."""
        state = self._state
        if not state.burst:
            return self._room(task, self._rows(task), False) if self._asker.account == HARD else None
        rows = self._rows(task)
        bursting = [row for row in rows if state.nodes[state.table.names[row]].burst or row in self._freed]
        room = self._room(task, bursting, True)
        return room or (self._room(task, rows, False) if self._asker.account == HARD else None)

    def in_the_way(self, task: TaskEntry, most: int) -> Iterator[tuple[NodeEntry, tuple[SlotEntry, ...], bool]]:
        """Of the `most` nodes that lack least those where there would be room if all that gives way went. With it, be
        it stopped now or not; and whether what may be stopped now is enough."""
        state, request = self._state, task.request
        protected = protection.lacking(state, task.owner.tenant, request.vector)
        for row in self._rows(task)[:most]:
            node = state.nodes[state.table.names[row]]
            entries = tuple(e for _, e in sorted(node.slots.items()) if e.bound and self._asker.may_stop(e))
            if entries and self._lacks(row, request, protected).met_by([_candidate(e, self._now_ms) for e in entries]):
                yield node, entries, self._victims(row, task, False) is not None

    def _room(self, task: TaskEntry, rows: list[int], burst: bool) -> Room | None:
        while (row := self._cheapest(task, rows, burst)) is not None:
            known = self._known[task, burst]
            victims, known[row] = known[row], self._victims(row, task, burst)
            if victims is not None and victims == known[row]:  # others may have used up the budget of a service
                return self._take(row, task.request, victims)
        return None

    def _rows(self, task: TaskEntry) -> list[int]:
        """Nodes that lack nothing but room, those that lack least first."""
        state, table, request = self._state, self._state.table, task.request
        row = state.class_row(task)
        row.refresh(task.copies)
        short = row.refusal >= FIRST_OF_ROOM
        if protection.lacking(state, task.owner.tenant, request.vector):
            short |= row.refusal == FEASIBLE
        rows = np.flatnonzero(short)
        rows = rows[row.topology(task.around).allowed(rows)] if row.ruled(task.around) and len(rows) else rows
        rows = rows[(table.largest[rows] >= np.array(request.vector.amounts())).all(axis=1)]
        capacity = np.maximum(table.capacity[rows], 1)
        order = np.argsort((self._lacking(rows, request) / capacity).max(axis=1, initial=0.0), kind="stable")
        found: list[int] = rows[order].tolist()
        return found

    def _lacking(self, rows: Rows, request: Request) -> Integers:
        table = self._state.table
        lacking: Integers = np.array(request.vector.amounts(), np.int64) - table.capacity[rows] + table.used[rows]
        for row, freed in self._freed.items():
            lacking[rows == row] -= freed
        return lacking.clip(min=0)

    def _cheapest(self, task: TaskEntry, rows: list[int], burst: bool) -> int | None:
        state, known = self._state, self._known.setdefault((task, burst), {})
        best: tuple[Cost, int] | None = None
        seen = 0
        for row in rows:
            node = state.nodes[state.table.names[row]]
            if node.reserved or node.name in self._taken or not node.welcomed:
                continue  # victims must hear of it
            if row not in known:
                known[row] = self._victims(row, task, burst)
            victims = known[row]
            if victims is None:
                continue
            seen += 1
            if best is None or cost(victims) < best[0]:
                best = cost(victims), row
            if seen == state.settings.preemption_nodes:
                break
        return best[1] if best else None

    def _victims(self, row: int, task: TaskEntry, burst: bool) -> tuple[Candidate, ...] | None:
        state = self._state
        protected = protection.lacking(state, task.owner.tenant, task.request.vector)
        lacking = self._lacks(row, task.request, protected)
        if lacking.met_by(()) and not protected.gpu_milli:
            return ()
        node = state.nodes[state.table.names[row]]
        found = candidates(state, node.burst if burst else node.slots, self._asker, self._now_ms)
        chosen = choose(self._guard.beyond(task.owner.tenant, found), lacking)
        freed = total([one.vector for one in chosen])
        return chosen if 0 < len(chosen) <= MOST_VICTIMS and protected.gpu_milli <= freed.gpu_milli else None

    def _lacks(self, row: int, request: Request, protected: Vector) -> Lacking:
        amount = Vector(*self._lacking(np.array([row]), request)[0].tolist()).at_least(protected)._replace(gpu_milli=0)
        if not request.vector.gpu_milli:
            return Lacking(amount)
        left, may_have = self._left(row), gpus.may_have(self._state.table, request, np.array([row]))[0]
        devices = tuple((number, int(left[number])) for number in np.flatnonzero(may_have).tolist())
        return Lacking(amount, request.vector.gpu_milli, devices)

    def _left(self, row: int) -> Integers:
        """Milli of each device; below zero where more is promised than there is."""
        left: Integers = self._state.table.gpus.left[row].copy()
        for number, milli in self._freed_gpus.get(row, Counter()).items():
            left[number] += milli
        return left

    def _take(self, row: int, request: Request, victims: tuple[Candidate, ...]) -> Room:
        state = self._state
        for known in self._known.values():
            known.pop(row, None)
        self._freed[row] = self._freed.get(row, NOTHING) + total([one.vector for one in victims])
        self._freed_gpus.setdefault(row, Counter()).update(freed_gpus(victims))
        numbers: tuple[int, ...] = ()
        if asked := request.vector.gpu_milli:
            may_have = gpus.may_have(state.table, request, np.array([row]))[0]
            numbers = gpus.choose(np.where(may_have, self._left(row), 0).tolist(), asked)
        node = state.nodes[state.table.names[row]]
        return Room(node, tuple(node.slots[one.key] for one in victims), numbers)


def candidates(state: State, slots: Mapping[bytes, SlotEntry], asker: Asker, now_ms: int) -> Iterator[Candidate]:
    """What of one node's slots may be stopped for it. A service is left alone while as many of its replicas are down as
    its budget allows; what finds no room is not down by anybody's doing, and one room may need more of them."""
    taken = Counter(e.task for e in state.victims.values() if e.marks & UP)
    spent: dict[TaskEntry, bool] = {}
    for key, entry in sorted(slots.items()):
        task = entry.task
        if not asker.may_stop(entry) or key in state.victims:
            continue
        if entry.closing or entry.busy or key in state.releases or entry.status is None or task.gang:
            continue
        if not entry.is_job and entry.marks & UP:
            if task not in spent:
                down, allowed = disrupted(state, task)
                spent[task] = down + taken[task] >= allowed
            if spent[task]:
                continue
        yield _candidate(entry, now_ms)


def disrupted(state: State, task: TaskEntry) -> tuple[int, int]:
    """How many replicas of a service's task are down by somebody's doing, and how many may be: its budget."""
    roomless = task.cls.size if task.cls and task.cls.parked else 0  # to ask for too much is no shield
    down = task.replicas - task.tally.up - roomless
    return down, max(1, task.replicas * state.settings.disruption_percent // 100)


def _candidate(entry: SlotEntry, now_ms: int) -> Candidate:
    task, spec = entry.task, entry.task.owner.share.spec
    started_ms = entry.status.started_ms if entry.is_job and entry.status else 0
    lost_ms = now_ms - started_ms if started_ms else 0
    left_ms = max(0, (spec.estimate_ms or NEVER_MS) - lost_ms) if entry.is_job else 0
    owner = (task.owner.tenant, task.owner.name)
    held = tuple(entry.record.gpus)
    return Candidate(entry.key, owner, entry.vector, lost_ms, held, left_ms, entry.account == BURST)
