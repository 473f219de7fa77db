"""The auditor: replays a store's history and checks the invariants at every revision.

I1: attempts of a slot only go up, each is minted once, by the term that leads; a bound attempt leaves its slot only in
a transaction that says it has the attempt's certificate, or together with a zombie, of the same amount (I3).
I3: the identities (G), (S) and (X) of docs/protocols.md hold for each account of a tenant, all terms ≥ 0; burst pays
only for work of priority low and below, in no gang.
I4: a record's own identity is the one in its key, its tenant first.
I5: only the present leader of a root writes there, on one of its lanes, and lanes only move forward.
I6: no older order replaces a newer one; no record is of an epoch that its region does not have.
I7: a reserved or bound slot has its workload, at the slot's generation or a later one.
I9: an attempt's generation is not below that of the attempt before. I12: gangs are all or none (gang_audit.py).
Schema: nothing else stands under `/g` and `/r`, and every value can be read.
Out of sight: I2 and I11, for a store does not show what runs, nor what could; I8 and I10: no such records yet.

Shares no decision with the programs it audits, and keeps only what the next revision's check needs.
How a store is followed: verification.py.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from atoll.api.v1 import objects_pb2
from atoll.gang_audit import Gangs
from atoll.model.resources import Vector, total, vector
from atoll.store.store import Batch, Change, KeyValue, Read

CHECKED = ("I1", "I3", "I4", "I5", "I6", "I7", "I9", "I12")
UNSEEN = ("I2 I11: a store does not show what runs", "I8 I10: no such record yet")
TRANSITIONS = ("I1", "I5", "I9", "I12")  # about how a state came about; the others are seen in one state
KEPT = 1000  # violations kept for showing; all are counted


class Violation(NamedTuple):
    invariant: str  # or "schema": a key nobody knows, or a value that cannot be read
    revision: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant} at revision {self.revision}, {self.key}: {self.message}"


class Verdict(NamedTuple):
    """Every revision from `since` to `revision` was checked; `checked` of them changed something."""

    revision: int
    since: int
    checked: int
    violations: tuple[Violation, ...]  # the first KEPT of them
    broken: tuple[tuple[str, int], ...]  # each broken invariant with the count of its violations
    notes: tuple[str, ...]  # what this verdict does not say

    def line(self, age_s: float) -> str:
        """`I1 I3 … hold at revision 812, 2 s ago`."""
        parts = [f"{invariant} BROKEN {count} times" for invariant, count in self.broken]
        if held := " ".join(invariant for invariant in CHECKED if invariant not in dict(self.broken)):
            parts.append(f"{held} hold")
        return f"{'; '.join(parts)} at revision {self.revision}, {age_s:.0f} s ago"


Expect = Callable[..., None]  # (what must hold, of which invariant, at which key, what is wrong else, *its values)
Names = tuple[str, ...]
_KEY = re.compile(r"\A/(?:g|r/([^/]+))/([^/]+)(?:/(.+))?\Z|")  # region ("" = the global plane), kind, names


class Edit(NamedTuple):
    """A record before and after one revision; None = absent. Never mutated: `before` was once an `after`."""

    key: bytes
    region: str
    kind: str
    names: Names
    before: Any
    after: Any
    item: KeyValue | None


_edit = tuple.__new__  # of an Edit with all its fields: one is made for each change


class _Kind(NamedTuple):
    message: type[Message]
    depth: int  # names in the key
    identity: Callable[[Any], Names] | None = None  # what the record says its key ends with
    order: Callable[[Any], Any] | None = None


def zombie_names(node: str, slot: objects_pb2.SlotId, attempt: objects_pb2.Attempt) -> Names:
    return (node, f"{slot.tenant}.{slot.workload}.{slot.task}.{slot.index}", f"{attempt.term}.{attempt.n}")


_NAME = attrgetter("metadata.tenant", "metadata.name")
_STAMP = attrgetter("store_life", "global_term", "global_revision")
_NO_LANE = {"leader": _Kind(objects_pb2.Leader, 0), "store_life": _Kind(objects_pb2.StoreLife, 0)}
_GLOBAL = _NO_LANE | {
    "lane": _Kind(objects_pb2.Lane, 1),
    "tenant": _Kind(objects_pb2.Tenant, 1, lambda m: (m.metadata.name,)),
    "workload": _Kind(objects_pb2.Workload, 2, _NAME),
    "status": _Kind(objects_pb2.WorkloadStatus, 2),
    "budget": _Kind(objects_pb2.Budget, 1, lambda m: (m.tenant,)),
    "slice": _Kind(objects_pb2.Slice, 2, attrgetter("tenant", "region"), attrgetter("epoch", "seq")),
    "ack": _Kind(objects_pb2.SliceAck, 2, attrgetter("region", "tenant")),
    "region": _Kind(objects_pb2.Region, 1, lambda m: (m.metadata.name,), attrgetter("epoch")),
    "share": _Kind(objects_pb2.Share, 3, lambda m: (m.region, *_NAME(m)), _STAMP),
    "request": _Kind(objects_pb2.RequestRecord, 2, lambda m: (m.id,)),
    "notice": _Kind(objects_pb2.Notice, 2, attrgetter("tenant", "id")),
    "token": _Kind(objects_pb2.UserToken, 1, lambda m: (m.id,)),
    "policy": _Kind(objects_pb2.SchedulerPolicy, 1, lambda m: (str(m.metadata.generation),)),
    "policy_in_force": _Kind(objects_pb2.PolicyInForce, 0),
}
_REGION = _NO_LANE | {
    "lane": _Kind(objects_pb2.Lane, 1),
    "global": _Kind(objects_pb2.GlobalReign, 0, order=attrgetter("store_life", "term")),
    "slice": _Kind(objects_pb2.RegionSlice, 1, lambda m: (m.tenant,), _STAMP),
    "used": _Kind(objects_pb2.LaneUse, 2),
    "node": _Kind(objects_pb2.Node, 1, lambda m: (m.metadata.name,)),
    "removed": _Kind(objects_pb2.RemovedNode, 1, lambda m: (m.name,)),
    "workload": _Kind(objects_pb2.Share, 2, _NAME, _STAMP),
    "slot": _Kind(objects_pb2.Slot, 4, lambda m: (m.id.tenant, m.id.workload, m.id.task, str(m.id.index))),
    "gang": _Kind(objects_pb2.Gang, 2, attrgetter("tenant", "workload")),
    "zombie": _Kind(objects_pb2.Zombie, 3, lambda m: zombie_names(m.node, m.slot, m.attempt)),
    "join": _Kind(objects_pb2.JoinToken, 1, lambda m: (m.id,)),
}


class Records:
    """Every record as it is now."""

    def __init__(self, expect: Expect) -> None:
        self._expect = expect
        self._present: dict[bytes, tuple[str, str, Names, _Kind | None, Any]] = {}  # as of the key; and its record

    def edit(self, change: Change) -> Edit | None:
        """None for a key that is not ours or, with a finding, not readable."""
        key, item, after = change.key, change.item, None
        if known := self._present.get(key):
            region, name, names, kind, before = known
        else:
            region, name, rest = _KEY.findall(key.decode(errors="replace"))[0]
            names, before = tuple(rest.split("/")) if rest else (), None
            kind = (_REGION if region else _GLOBAL).get(name)
            if kind is None or len(names) != kind.depth:
                return self._expect(not key.startswith((b"/g/", b"/r/")), "schema", key, "no such key")
        assert kind is not None
        if item is None:
            self._present.pop(key, None)
        else:
            try:
                after = kind.message.FromString(item.value)
            except DecodeError:
                return self._expect(False, "schema", key, "is no {}", kind.message.DESCRIPTOR.name)
            self._present[key] = region, name, names, kind, after
            if kind.identity:
                identity = kind.identity(after)
                if names[kind.depth - len(identity) :] != identity:
                    self._expect(False, "I4", key, "is the record of {}", identity)
            if kind.order and before is not None and kind.order(after) < kind.order(before):
                self._expect(False, "I6", key, "an older order replaced a newer one")
        return _edit(Edit, (key, region, name, names, before, after, item))


HARD, BURST = objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST  # records of the time when there was one name none
CHARGED = (objects_pb2.SLOT_STATE_RESERVED, objects_pb2.SLOT_STATE_BOUND)
EPOCHAL = {objects_pb2.Slice, objects_pb2.RegionSlice, objects_pb2.Share, objects_pb2.Slot}
CERTIFIED = {"RELEASE", "MOVE"}  # operations that act on a certificate
NEVER, ZERO = objects_pb2.Slot(), Vector()

_Account = tuple[str, str, int]  # region ("" = the global plane), tenant, account
_Entry = tuple[_Account, str | int, objects_pb2.Resources]
SUMS = ("have", "spent", "granted", "limit", "lanes", "zombies")  # of each account; slots are summed by their epoch
BUDGET = (("have", "effective"), ("have", "extras"), ("spent", "free"), ("spent", "recovery_pool"))
ENTRIES: dict[type, Callable[[Edit, Any], Iterable[_Entry]]] = {  # what a record adds to which sum of which account
    objects_pb2.Slot: lambda e, m: (
        [((e.region, e.names[0], m.account or HARD), m.epoch, m.vector)] * (m.state in CHARGED)
    ),
    objects_pb2.LaneUse: lambda e, m: [((e.region, e.names[0], p.account), "lanes", p.charged) for p in m.charges],
    objects_pb2.Zombie: lambda e, m: [((e.region, m.slot.tenant, m.account or HARD), "zombies", m.vector)],
    objects_pb2.RegionSlice: lambda e, m: [((e.region, m.tenant, p.account), "limit", p.limit) for p in m.limits],
    objects_pb2.Slice: lambda e, m: [
        ((region, m.tenant, p.account), name, amount)
        for p in m.accounts
        for amount in (p.granted, p.recovery)
        for region, name in ((m.region, "granted"), ("", "spent"))
    ],
    objects_pb2.Budget: lambda e, m: [
        (("", m.tenant, p.account), name, getattr(p, part)) for p in m.accounts for name, part in BUDGET
    ],
}


class Ledger:
    """I3: after a whole revision is entered, every account it touched is checked."""

    def __init__(self, expect: Expect) -> None:
        self._expect = expect
        self._sums: defaultdict[_Account, dict[str | int, Vector]] = defaultdict(dict)
        self._slices: dict[tuple[str, str], objects_pb2.RegionSlice] = {}  # of region and tenant

    def check(self, edits: Iterable[Edit], *, sees_global: bool) -> None:
        touched: dict[_Account, bytes] = {}
        for edit in edits:
            if edit.region and edit.kind == "slice":
                self._slices[edit.region, edit.names[0]] = edit.after or objects_pb2.RegionSlice()
            entries = ENTRIES.get(type(edit.after or edit.before))
            if entries is None:
                continue
            for record, sign in ((edit.before, -1), (edit.after, 1)):
                for account, name, resources in entries(edit, record) if record else ():
                    sums, amount = self._sums[account], vector(resources)
                    sums[name] = sums.get(name, ZERO) + amount if sign > 0 else sums.get(name, ZERO) - amount
                    touched[account] = edit.key
                    if sign > 0 and name != "lanes" and not amount.is_legal():
                        self._expect(False, "I3", edit.key, "an amount is negative: {}", amount)
        for account, key in touched.items():
            self._check_account(account, key, sees_global)

    def _check_account(self, account: _Account, key: bytes, sees_global: bool) -> None:
        expect, (region, tenant, _), sums = self._expect, account, self._sums[account]
        have, spent, granted, limit, lanes, zombies = (sums.get(name, ZERO) for name in SUMS)
        if have != spent:
            expect(False, "I3", key, "(G) {} has {}, free and granted are {}", tenant, have, spent)
        slots = [(epoch, amount) for epoch, amount in sums.items() if isinstance(epoch, int)]
        held = total([amount for _, amount in slots])
        if held != lanes:
            expect(False, "I3", key, "(S) slots of {} hold {}, its lanes say {}", tenant, held, lanes)
        rule = self._slices.get((region, tenant), objects_pb2.RegionSlice())
        strict = rule.mode == objects_pb2.QUOTA_MODE_STRICT
        used = held + zombies if strict else total([amount for epoch, amount in slots if epoch >= rule.epoch])
        if not used.fits(limit):
            expect(False, "I3", key, "(S) {} holds {} of {}", tenant, used, limit)
        if sees_global and not limit.fits(granted):
            expect(False, "I3", key, "(X) {} may spend {}, granted is {}", tenant, limit, granted)


class Reign:
    """What the leaders of one root do with it: the edits of one revision, by kind."""

    def __init__(self, expect: Expect) -> None:
        self._expect = expect
        self._term = 0  # create_revision of the leader key; 0 = nobody leads
        self._minted: defaultdict[int, int] = defaultdict(int)  # attempts of this term: a bit each, in blocks
        self._shares: dict[Names, objects_pb2.Share | None] = {}
        self._charged: Counter[Names] = Counter()  # a workload's slots reserved or bound
        self._last: defaultdict[Names, dict[Names, objects_pb2.Slot]] = defaultdict(dict)  # its slots as last charged
        self._gangs = Gangs(expect)

    def check_authority(self, kinds: Mapping[str, Sequence[Edit]]) -> None:
        """I5. Judged by the leader before this revision: the one that the compares saw."""
        expect, term, lanes = self._expect, self._term, kinds.get("lane", ())
        if written := [kind for kind in kinds if kind not in _NO_LANE]:
            key = kinds[written[0]][0].key
            expect(term, "I5", key, "written while nobody leads")
            expect(len(lanes) == 1, "I5", key, "written with {} lane records instead of one", len(lanes))
        for key, *_, before, after, _ in lanes:
            expect(after, "I5", key, "a lane was deleted")
            if after:
                last, n = (before.term, before.n) if before else (0, 0), (after.term, after.n)
                more = after.entry == objects_pb2.LANE_ENTRY_SEAL and not len(written) == len(lanes) == 1
                expect(after.term == term, "I5", key, "written by term {} while term {} leads", after.term, term)
                expect(not more, "I5", key, "a seal wrote more than its lane")
                expect(n > last, "I5", key, "{} came after {}", n, last)
        for key, *_, before, _, item in kinds.get("leader", ()):
            expect(not (item and before), "I5", key, "the leader key of term {} was rewritten", term)
            expect(not item or item.lease, "I5", key, "the leader key is on no lease")
            self._term, self._minted = item.create_revision if item else 0, defaultdict(int)

    def check_epochs(self, kinds: Mapping[str, Sequence[Edit]], epochs: dict[str, int]) -> None:
        """I6. `epochs` of the regions, as the global plane sets them."""
        epochs.update((edit.names[0], edit.after.epoch) for edit in kinds.get("region", ()) if edit.after)
        for edits in kinds.values():
            if type(edits[0].after or edits[0].before) not in EPOCHAL:
                continue  # those of a kind are of one type
            for edit in edits:
                if edit.after:
                    now, epoch = edit.after.epoch, epochs.get(edit.region or edit.after.region, 0)
                    self._expect(now <= epoch, "I6", edit.key, "epoch {}, but the region's is {}", now, epoch)

    def check_bindings(self, kinds: Mapping[str, Sequence[Edit]]) -> None:
        """I1, I7, I9 of a region."""
        expect, shares = self._expect, kinds.get("workload", ())
        self._shares.update((edit.names, edit.after) for edit in shares)
        zombies = {edit.names: edit.after for edit in kinds.get("zombie", ()) if edit.after}
        certified = any(edit.after and edit.after.operation in CERTIFIED for edit in kinds.get("lane", ()))
        self._gangs.check(kinds, certified)
        for key, _, _, names, before, after, _ in kinds.get("slot", ()):
            before, after, owner = before or NEVER, after or NEVER, names[:2]
            was_charged, is_charged = before.state in CHARGED, after.state in CHARGED
            stays = was_charged and is_charged and after.attempt == before.attempt
            self._charged[owner] += is_charged - was_charged
            if is_charged:
                self._check_charged(key, after, self._last[owner].get(names, before), self._shares.get(owner), stays)
                self._last[owner][names] = after
            if stays:
                same = (after.node, after.node_incarnation) == (before.node, before.node_incarnation)
                expect(same, "I1", key, "its attempt moved from {} to {}", before.node, after.node)
            elif before.state == objects_pb2.SLOT_STATE_BOUND:
                zombie = zombies.get(zombie_names(before.node, before.id, before.attempt)) if zombies else None
                same = not zombie or (zombie.vector, zombie.account) == (before.vector, before.account)
                expect(zombie or certified, "I1", key, "its attempt left without certificate or zombie")
                expect(same, "I3", key, "the zombie of its attempt holds another amount")
        for edit in (edit for edit in shares if not edit.after):
            del self._shares[edit.names]
            self._last.pop(edit.names, None)
            expect(not self._charged.pop(edit.names, 0), "I7", edit.key, "removed while it has reserved or bound slots")

    def _check_charged(
        self, key: bytes, slot: objects_pb2.Slot, last: objects_pb2.Slot, share: objects_pb2.Share | None, stays: bool
    ) -> None:
        """`last`: the slot as it was last charged; `share`: of its workload."""
        expect, now, then = self._expect, (slot.attempt.term, slot.attempt.n), (last.attempt.term, last.attempt.n)
        block, bit = now[1] >> 12, 1 << (now[1] & 0xFFF)
        fresh = now[0] == self._term and not self._minted[block] & bit
        older = slot.uid == last.uid and slot.generation < last.generation
        mine = share is not None and share.metadata.uid == slot.uid
        later = share is not None and mine and slot.generation > share.metadata.generation
        if now[0] == self._term:
            self._minted[block] |= bit
        expect(stays or now > then, "I1", key, "attempt {} came after {}", now, then)
        expect(stays or fresh, "I1", key, "attempt {} is not a fresh one of term {}", now, self._term)
        expect(share, "I7", key, "reserved or bound without a workload")
        expect(stays or mine or not share, "I7", key, "bound for {}, which is not the workload", slot.uid)
        expect(not later, "I7", key, "generation {} is above the workload's", slot.generation)
        low = share is not None and 0 < share.spec.priority <= objects_pb2.PRIORITY_LOW
        alone = share is None or not any(task.gang for task in share.spec.tasks if task.name == slot.id.task)
        expect(
            stays or slot.account != BURST or (low and alone), "I3", key, "charged to burst, which may not pay for it"
        )
        expect(not older, "I9", key, "generation {} came after {}", slot.generation, last.generation)


class Auditor:
    """Everything up to `revision` is checked; `violations` were found so far, the oldest first."""

    def __init__(self) -> None:
        self.revision, self._since, self._checked = 0, 1, 0
        self.violations: list[Violation] = []
        self._broken: Counter[str] = Counter()
        self._notes: list[str] = []
        self._states_only = False
        self._forget()

    def _forget(self) -> None:
        self._records, self._ledger = Records(self._expect), Ledger(self._expect)
        self._reigns: defaultdict[str, Reign] = defaultdict(lambda: Reign(self._expect))
        self._epochs: dict[str, int] = {}  # of regions, where the store holds the global plane

    def _expect(self, holds: object, invariant: str, key: bytes, otherwise: str, *values: object) -> None:
        if holds or (self._states_only and invariant in TRANSITIONS):
            return
        self._broken[invariant] += 1
        if len(self.violations) < KEPT:
            shown = key.decode(errors="backslashreplace")
            self.violations.append(Violation(invariant, self.revision, shown, otherwise.format(*values)))

    def begin(self, snapshot: Read) -> None:
        """Where the history before `snapshot` is gone: checks what one state can show, not how it came about."""
        self._forget()
        self._since = snapshot.revision
        self._notes.append(
            f"history before revision {snapshot.revision} is not read, or compacted: began with the state there"
        )
        self._states_only = True
        self.feed(Batch(snapshot.revision, tuple(Change(item.key, item) for item in snapshot.items)))
        self._states_only = False

    def feed(self, batch: Batch) -> None:
        """The next revision with changes, or progress."""
        self.revision = batch.revision
        self._checked += bool(batch.changes)
        edits = [edit for change in batch.changes if (edit := self._records.edit(change))]
        roots: dict[str, dict[str, list[Edit]]] = {}
        for edit in edits:
            roots.setdefault(edit.region, {}).setdefault(edit.kind, []).append(edit)
        if edits:
            self._expect(len(roots) == 1, "I5", edits[0].key, "one transaction wrote under {} roots", len(roots))
        sees_global = "" in roots or "" in self._reigns
        self._ledger.check(edits, sees_global=sees_global)
        for region, kinds in roots.items():
            reign = self._reigns[region]
            reign.check_authority(kinds)
            if sees_global:
                reign.check_epochs(kinds, self._epochs)
            if region:
                reign.check_bindings(kinds)

    def verdict(self) -> Verdict:
        notes = [*self._notes, *UNSEEN]
        if "" not in self._reigns:
            notes.append("I3 (X) and I6 need the global plane's records, which this store does not hold")
        broken = tuple(sorted(self._broken.items()))
        return Verdict(self.revision, self._since, self._checked, tuple(self.violations), broken, tuple(notes))
