"""I1, I7 and I9 for one region: each slot's attempts, and the workload that owns it.

I1: attempts of a slot only go up, each is minted once, by the term that leads; a bound attempt leaves its slot only in
a transaction that says it has the attempt's certificate, or together with a zombie.
I7: a reserved or bound slot has its workload, at the slot's generation or a later one.
I9: an attempt's generation is not below that of the attempt before.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from atoll.api.v1 import objects_pb2
from atoll.audit.findings import Findings
from atoll.audit.ledger import CHARGED
from atoll.audit.records import Edit, Names, zombie_names

NEVER = objects_pb2.Slot()
CERTIFIED = {"RELEASE", "MOVE"}  # operations that act on a certificate


@dataclass(slots=True)
class _Workload:
    share: objects_pb2.Share | None = None
    charged: int = 0  # slots reserved or bound
    last: dict[Names, objects_pb2.Slot] = field(default_factory=dict)  # each slot as it last had an attempt


class BindingAudit:
    def __init__(self) -> None:
        self._workloads: defaultdict[Names, _Workload] = defaultdict(_Workload)
        self._term = 0
        self._minted: defaultdict[int, int] = defaultdict(int)  # attempts of this term: a bit each, in blocks

    def check(self, edits: Sequence[Edit], term: int, findings: Findings) -> None:
        if term != self._term:
            self._term, self._minted = term, defaultdict(int)
        shares = [edit for edit in edits if edit.kind == "workload"]
        for edit in shares:
            self._workloads[edit.names].share = edit.after
        zombies = {edit.names: edit.after for edit in edits if edit.kind == "zombie" and edit.after is not None}
        operations = {edit.after.operation for edit in edits if edit.kind == "lane" and edit.after is not None}
        for edit in edits:
            if edit.kind == "slot":
                self._check_slot(edit, findings)
                self._check_departure(edit, operations, zombies, findings)
        for edit in shares:
            if edit.after is None and self._workloads.pop(edit.names).charged:
                findings.add("I7", edit.key, "removed while it has reserved or bound slots")

    def _check_slot(self, edit: Edit, findings: Findings) -> None:
        workload = self._workloads[edit.names[:2]]
        before, after = edit.before or NEVER, edit.after or NEVER
        workload.charged += (after.state in CHARGED) - (before.state in CHARGED)
        if after.state in CHARGED:
            self._check_owner(edit, workload.share, findings)
            self._check_attempt(edit, workload.last.get(edit.names, before), findings)
            workload.last[edit.names] = after

    def _check_departure(
        self, edit: Edit, operations: set[str], zombies: dict[Names, objects_pb2.Zombie], findings: Findings
    ) -> None:
        before, after = edit.before or NEVER, edit.after or NEVER
        stays = after.state in CHARGED and after.attempt == before.attempt
        if before.state != objects_pb2.SLOT_STATE_BOUND or stays:
            return
        zombie = zombies.get(zombie_names(before.node, before.id, before.attempt))
        if zombie is None and not operations & CERTIFIED:
            findings.add("I1", edit.key, f"attempt {_text(before)} left without certificate or zombie")
        if zombie is not None and (zombie.vector, zombie.account) != (before.vector, before.account):
            findings.add("I3", edit.key, f"the zombie of {_text(before)} holds another amount")

    def _check_owner(self, edit: Edit, share: objects_pb2.Share | None, findings: Findings) -> None:
        slot = edit.after
        if share is None:
            findings.add("I7", edit.key, "reserved or bound without a workload")
        elif slot.uid == share.metadata.uid and slot.generation > share.metadata.generation:
            findings.add("I7", edit.key, f"generation {slot.generation} is above the workload's")
        elif slot.uid != share.metadata.uid and slot.attempt != (edit.before or NEVER).attempt:
            findings.add("I7", edit.key, f"bound for {slot.uid}, the workload is {share.metadata.uid}")

    def _check_attempt(self, edit: Edit, last: objects_pb2.Slot, findings: Findings) -> None:
        before, after = edit.before or NEVER, edit.after
        attempt, highest = _order(after), _order(last)
        block, bit = after.attempt.n >> 12, 1 << (after.attempt.n & 0xFFF)
        if after.uid == last.uid and after.generation < last.generation:
            findings.add("I9", edit.key, f"generation {after.generation} came after {last.generation}")
        if before.state in CHARGED and attempt == _order(before):
            if (after.node, after.node_incarnation) != (before.node, before.node_incarnation):
                findings.add("I1", edit.key, f"attempt {_text(after)} moved from {before.node} to {after.node}")
        elif attempt <= highest:
            findings.add("I1", edit.key, f"attempt {_text(after)} came after {_text(last)}")
        elif after.attempt.term != self._term or self._minted[block] & bit:
            findings.add("I1", edit.key, f"attempt {_text(after)} is not a fresh one of term {self._term}")
        if after.attempt.term == self._term:
            self._minted[block] |= bit


def _order(slot: objects_pb2.Slot) -> tuple[int, int]:
    return (slot.attempt.term, slot.attempt.n)


def _text(slot: objects_pb2.Slot) -> str:
    return f"{slot.attempt.term}.{slot.attempt.n}"
