"""What is offered again: replicas whose back-off is over, and parked classes that something may have cured since.

A class is parked under the cures of what refused it, and tried again after events of those kinds alone, as many at a
time as the event has made room for: parking.py. Between two times the core is woken a bounded number of classes is
looked at, so that heartbeats are heard meanwhile; what is parked waits until a round that was cut short is through.
"""

import numpy as np

from regional.core import headroom, protection
from regional.core.filters import Cure
from regional.core.ledger import UNLIMITED
from regional.core.node_table import Integers
from regional.core.queue import SchedulingClass
from regional.core.state import State, Turn


def begin_round(state: State, turn: Turn) -> None:
    """Of decisions: offers again what something since may have cured, and says at how many classes it may look."""
    goes_on = not state.looks_left
    if turn.woken or state.looks_left < 0:
        looks = state.settings.round_evaluations // max(1, state.table.size)
        state.looks_left = max(1, min(looks, state.settings.round_looks))
        turn.woken = False
    if not state.looks_left:
        return
    queue = state.queue
    if queue.next_due_ms() <= turn.now_ms:
        queue.offer_due(turn.now_ms)
    if not goes_on:
        _wake(state, turn.now_ms)
    queue.age(turn.now_ms)


def _wake(state: State, now_ms: int) -> None:
    """Offers again of the parked classes what something since may have cured."""
    queue = state.queue
    _tell(state)
    if state.neighbours:
        for cls in queue.parking.under(Cure.REPLICAS):
            if _touched(state, cls):
                queue.unpark(cls)
        state.neighbours.settle()
    if queue.parking.pressing:
        queue.wake(_Room(state), state.settings.bind_batch_slots, now_ms)
    if not queue.parking.waits_for(Cure.RESOURCES):
        state.opened_rows.clear()


def _tell(state: State) -> None:
    """What has happened since, to what is parked."""
    parking = state.queue.parking
    if state.nodes_changed:
        parking.happened(Cure.NODES)
        state.nodes_changed = False
    if state.freed_rows:
        for cure in (Cure.HEADROOM, Cure.PROTECTED, Cure.RESOURCES):
            parking.happened(cure)
        state.opened_rows.update(state.freed_rows)
        state.freed_rows.clear()
    for tenant in state.freed_tenants:
        if not state.account(tenant).awaits_slice:
            parking.happened(Cure.SLICE, tenant)
        parking.happened(Cure.QUOTA, tenant)
    state.freed_tenants.clear()


class _Room:
    """How many replicas like those of a class an event has made room for. What it looks at is read at most once."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._free: Integers | None = None
        self._headroom: headroom.Room | None = None

    def __call__(self, cure: Cure, cls: SchedulingClass) -> int:
        match cure:
            case Cure.RESOURCES:
                return self._on_freed_nodes(cls)
            case Cure.QUOTA:
                return self._state.account(cls.tenant).affordable(cls.request.vector, cls.may_burst)
            case Cure.HEADROOM:
                self._headroom = self._headroom or headroom.room(self._state)
                payer, _ = self._state.account(cls.tenant).payer(cls.request.vector, cls.may_burst)
                return headroom.replicas(self._headroom, cls, payer)
            case Cure.PROTECTED:
                return protection.replicas(self._state, cls.tenant, cls.request.vector)
            case _:
                return UNLIMITED

    def _on_freed_nodes(self, cls: SchedulingClass) -> int:
        if self._free is None:
            self._free = self._state.table.free(list(self._state.opened_rows))
        request = np.array(cls.request.vector.amounts())
        asked = request > 0
        if not asked.any():
            return UNLIMITED
        return int((self._free[:, asked] // request[asked]).min(axis=1).clip(min=0).sum())


def _touched(state: State, cls: SchedulingClass) -> bool:
    """Whether the rules of the class's task, or of any task of its gang, may allow more than before."""
    tasks = state.workloads[cls.tenant, cls.workload].tasks
    return any(map(state.neighbours.curable, [tasks[cls.task]] if cls.task in tasks else tasks.values()))
