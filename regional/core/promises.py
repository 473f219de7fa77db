"""Room and quota for replicas that are on their way to another node, each promised once in a look at all that moves.

`beside`: a replica's successor is made while it runs on, so it needs room and quota of its own. `instead`: it ends
first. Neither takes what other tenants have protected, and so nothing is begun, or ended, for a place that placement
would refuse. Quota that is lacking for successors is added up, to be asked of the global plane (surging.py). Changes
nothing.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

from atoll.model.accounts import BURST, HARD, NONE, Account, ByAccount, charged_to
from atoll.model.resources import NOTHING
from regional.core import protection
from regional.core.colocation import Around
from regional.core.records import SlotEntry, TaskEntry
from regional.core.state import State


class Promises:
    def __init__(self, state: State, now_ms: int) -> None:
        self.wishes: dict[str, ByAccount] = {}  # quota that is lacking, by tenant
        self.wished: Counter[TaskEntry] = Counter()  # successors that it is lacking for
        self.moving: set[str] = {task.owner.tenant for task in state.surging}  # tenants whose quota is on its way
        self._state = state
        self._now_ms = now_ms
        self._rows: dict[int, npt.NDArray[np.int64]] = {}  # promised, by row
        self._promised = NOTHING  # on all rows
        self._charges: dict[str, ByAccount] = {}  # likewise of quota, by tenant
        for node in state.leaving.values():
            for entry in node.slots.values():
                if entry.closing and entry.wanted:
                    self.instead(entry)
                elif entry.closing:
                    self.moving.add(entry.task.owner.tenant)  # its quota comes back
        for task in state.surging:
            for new, old in task.surges.items():
                surge, its = task.entries.get(new), task.entries.get(old)
                if its and its.bound and not (surge and surge.bound) and new not in task.in_flight:
                    self.beside(its)

    def pays(self, entry: SlotEntry) -> bool:
        """Whether quota holds a successor beside it."""
        return self._payer(entry) is not None

    def _payer(self, entry: SlotEntry) -> Account | None:
        tenant = self._state.account(entry.task.owner.tenant)
        room = tenant.ceiling() - tenant.in_use() - self._charges.get(tenant.tenant, NONE)
        payers = (HARD, BURST) if entry.task.may_burst else (HARD,)
        return next((payer for payer in payers if entry.task.request.vector.fits(room.of(payer))), None)

    def awaits_quota(self, entry: SlotEntry) -> bool:
        """Asks for what it lacks; whether that is still worth waiting for."""
        tenant = entry.task.owner.tenant
        wish = charged_to(entry.successor_account, entry.task.request.vector)
        self.wishes[tenant] = self.wishes.get(tenant, NONE) + wish
        self.wished[entry.task] += 1
        since_ms = self._state.account(tenant).wishes_since_ms or self._now_ms
        return tenant in self.moving or self._now_ms < since_ms + self._state.settings.surge_wait_ms

    def beside(self, entry: SlotEntry) -> bool:
        """Whether another node takes a successor; quota is promised too."""
        tenant, payer = entry.task.owner.tenant, self._payer(entry) or entry.successor_account
        charge = charged_to(payer, entry.task.request.vector)
        self._charges[tenant] = self._charges.get(tenant, NONE) + charge
        return self._takes(entry, entry.task.around)

    def instead(self, entry: SlotEntry) -> bool:
        """Whether another node takes it, and quota lets it be bound again."""
        tenant, node = self._state.account(entry.task.owner.tenant), self._state.nodes[entry.record.node]
        same = entry.account == entry.successor_account  # then what it leaves pays
        pays = tenant.in_use().of(entry.account).fits(tenant.ceiling().of(entry.account)) if same else self.pays(entry)
        return pays and self._takes(entry, entry.task.around.without(node.row))

    def _takes(self, entry: SlotEntry, around: Around) -> bool:
        task, table = entry.task, self._state.table
        if not protection.leaves(self._state, task.owner.tenant, task.request.vector, self._promised):
            return False
        row = self._state.class_row(task)
        row.refresh(task.copies)
        amounts = np.array(task.request.vector.amounts(), np.int64)
        own = self._state.nodes[entry.record.node].row
        for candidate in row.allowed(around).tolist():
            promised = self._rows.get(candidate, np.zeros_like(amounts))
            free = table.capacity[candidate] - table.used[candidate] - promised
            if candidate != own and (free >= amounts).all():
                self._rows[candidate] = promised + amounts
                self._promised += task.request.vector
                return True
        return False
