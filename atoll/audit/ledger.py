"""I3: the budget identities of each tenant and account, exact at every revision, all terms ≥ 0.

(G)  effective + extras = free + recovery pool + sum over regions of (A + B)
(S)  sum over lanes of used = sum over slots, reserved and bound, of the current epoch  ≤ C
     (mode strict: that, the zombies and the slots of older epochs together ≤ C)
(X)  C ≤ A + B, where one store holds both roots
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.audit.findings import Findings
from atoll.audit.records import Edit
from atoll.model.resources import Vector, total, vector

COUNTED = {"slot", "used", "zombie", "slice", "budget"}
CHARGED = (objects_pb2.SLOT_STATE_RESERVED, objects_pb2.SLOT_STATE_BOUND)
ZERO = Vector()


@dataclass(slots=True)
class _Account:
    """One tenant's account: at the global plane `have` and `spent`, in one region the others."""

    have: Vector = ZERO  # effective + extras
    spent: Vector = ZERO  # free + pool + granted in every region
    granted: Vector = ZERO  # A + B
    limit: Vector = ZERO  # C
    lanes: Vector = ZERO
    zombies: Vector = ZERO
    slots: dict[int, Vector] = field(default_factory=dict)  # by epoch

    def add(self, name: str | int, amount: Vector) -> None:
        """To the field `name`, or to the slots of an epoch."""
        if isinstance(name, int):
            self.slots[name] = self.slots.get(name, ZERO) + amount
        else:
            setattr(self, name, getattr(self, name) + amount)


_Where = tuple[str, str, int]  # region ("" = the global plane), tenant, account
_Entry = tuple[_Where, str | int, Vector]  # arguments of _Account.add


class Ledger:
    def __init__(self) -> None:
        self._accounts: defaultdict[_Where, _Account] = defaultdict(_Account)
        self._slices: dict[tuple[str, str], Any] = {}
        self.sees_global = False

    def check(self, edits: Sequence[Edit], findings: Findings) -> None:
        """After the whole revision is entered, every account it touched."""
        touched: dict[_Where, bytes] = {}
        for edit in edits:
            self.sees_global = self.sees_global or not edit.region
            if edit.kind not in COUNTED:
                continue
            if edit.region and edit.kind == "slice":
                self._slices[edit.region, edit.names[0]] = edit.after
            for message, sign in ((edit.before, -1), (edit.after, 1)):
                for where, name, amount in _entries(edit, message):
                    self._accounts[where].add(name, amount * sign)
                    touched[where] = edit.key
                    if message is edit.after and name != "lanes" and not amount.is_legal():
                        findings.add("I3", edit.key, f"an amount is negative: {amount}")
        for where, key in touched.items():
            self._check_account(where, key, findings)

    def _check_account(self, where: _Where, key: bytes, findings: Findings) -> None:
        region, tenant, _ = where
        account = self._accounts[where]
        if account.have != account.spent:
            findings.add("I3", key, f"(G) {tenant} has {account.have}, free and granted are {account.spent}")
        slice_ = self._slices.get((region, tenant)) or objects_pb2.RegionSlice()
        held = total(list(account.slots.values()))
        if held != account.lanes:
            findings.add("I3", key, f"(S) slots of {tenant} hold {held}, its lanes say {account.lanes}")
        if slice_.mode == objects_pb2.QUOTA_MODE_STRICT:
            spent = held + account.zombies
        else:
            spent = total([amount for epoch, amount in account.slots.items() if epoch >= slice_.epoch])
        if not spent.fits(account.limit):
            findings.add("I3", key, f"(S) {tenant} holds {spent} of {account.limit}")
        if self.sees_global and not account.limit.fits(account.granted):
            findings.add("I3", key, f"(X) {tenant} may spend {account.limit}, granted is {account.granted}")


def _entries(edit: Edit, m: Any) -> Iterator[_Entry]:
    """What the record `m` adds to which account."""
    if m is None:
        return
    region, kind = edit.region, edit.kind
    if kind == "slot" and m.state in CHARGED:
        yield (region, edit.names[0], m.account), m.epoch, vector(m.vector)
    elif kind == "used":
        for charge in m.charges:
            yield (region, edit.names[0], charge.account), "lanes", vector(charge.charged)
    elif kind == "zombie":
        yield (region, m.slot.tenant, m.account), "zombies", vector(m.vector)
    elif kind == "slice" and region:
        for part in m.limits:
            yield (region, m.tenant, part.account), "limit", vector(part.limit)
    elif kind == "slice":
        for part in m.accounts:
            for amount in map(vector, (part.granted, part.recovery)):
                yield (m.region, m.tenant, part.account), "granted", amount
                yield ("", m.tenant, part.account), "spent", amount
    elif kind == "budget":
        for part in m.accounts:
            where = ("", m.tenant, part.account)
            yield from ((where, "have", vector(amount)) for amount in (part.effective, part.extras))
            yield from ((where, "spent", vector(amount)) for amount in (part.free, part.recovery_pool))
