"""Feeds each revision to the rules. Pure: what a store delivered comes in, a verdict goes out."""

from collections import defaultdict
from collections.abc import Sequence

from atoll.audit.bindings import BindingAudit
from atoll.audit.fencing import AuthorityAudit, EpochAudit
from atoll.audit.findings import NOT_YET, Findings, Verdict, Violation
from atoll.audit.ledger import Ledger
from atoll.audit.records import Edit, Records
from atoll.store.store import Batch, Change, Read


class Auditor:
    def __init__(self) -> None:
        self._since, self._checked = 1, 0
        self._findings = Findings()
        self._notes: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._records, self._ledger, self._epochs = Records(), Ledger(), EpochAudit()
        self._authorities: defaultdict[str, AuthorityAudit] = defaultdict(AuthorityAudit)
        self._bindings: defaultdict[str, BindingAudit] = defaultdict(BindingAudit)

    @property
    def revision(self) -> int:
        """Everything up to here is checked."""
        return self._findings.revision

    @property
    def violations(self) -> Sequence[Violation]:
        """Found so far, the oldest first."""
        return self._findings.kept

    def begin(self, snapshot: Read) -> None:
        """Where the history before `snapshot` is gone: checks what one state can show, not how it came about."""
        self._forget()
        self._since = snapshot.revision
        self._notes.append(f"history before revision {snapshot.revision} is compacted: began with the state there")
        self._findings.states_only = True
        self.feed(Batch(snapshot.revision, tuple(Change(item.key, item) for item in snapshot.items)))
        self._findings.states_only = False

    def feed(self, batch: Batch) -> None:
        """The next revision with changes, or progress."""
        self._findings.revision = batch.revision
        if not batch.changes:
            return
        self._checked += 1
        edits = [edit for change in batch.changes if (edit := self._records.edit(change, self._findings))]
        roots: dict[str, list[Edit]] = {}
        for edit in edits:
            roots.setdefault(edit.region, []).append(edit)
        if len(roots) > 1:
            self._findings.add("I5", edits[0].key, f"one transaction wrote under {len(roots)} roots")
        self._ledger.check(edits, self._findings)
        self._epochs.check(edits, self._ledger.sees_global, self._findings)
        for region, part in roots.items():
            authority = self._authorities[region]
            authority.check(part, self._findings)
            if region:
                self._bindings[region].check(part, authority.term, self._findings)

    def verdict(self) -> Verdict:
        found = self._findings
        notes = [*self._notes, f"{' '.join(NOT_YET)}: no such record yet"]
        if not self._ledger.sees_global:
            notes.append("I3 (X) and I6 need the global plane's records, which this store does not hold")
        broken = tuple(sorted(found.counts.items()))
        return Verdict(found.revision, self._since, self._checked, tuple(found.kept), broken, tuple(notes))
