"""I5, stale leaders: only the present leader of a root writes there, on one of its lanes, and lanes only move forward.
I6, stale regions: no record is of an epoch its region does not have, and no older order replaces a newer one."""

from collections.abc import Sequence
from typing import Any

from atoll.api.v1 import objects_pb2
from atoll.audit.findings import Findings
from atoll.audit.records import Edit

EPOCHAL = {objects_pb2.Region, objects_pb2.Slice, objects_pb2.RegionSlice, objects_pb2.Share, objects_pb2.Slot}


class AuthorityAudit:
    """I5 for one root."""

    def __init__(self) -> None:
        self.term = 0  # create_revision of the leader key; 0 = nobody leads

    def check(self, edits: Sequence[Edit], findings: Findings) -> None:
        """Edits are judged by the leader before this revision: the one that compares saw."""
        written = [edit for edit in edits if edit.kind not in ("leader", "store_life")]
        lanes = [edit for edit in written if edit.kind == "lane"]
        if written and not self.term:
            findings.add("I5", written[0].key, "written while nobody leads")
        if written and len(lanes) != 1:
            findings.add("I5", written[0].key, f"written with {len(lanes)} lane records instead of one")
        for lane in lanes:
            self._check_lane(lane, len(written) == 1, findings)
        for edit in edits:
            if edit.kind == "leader":
                self._check_leader(edit, findings)

    def _check_lane(self, edit: Edit, alone: bool, findings: Findings) -> None:
        before, after = edit.before, edit.after
        if after is None:
            findings.add("I5", edit.key, "a lane was deleted")
            return
        if after.term != self.term:
            findings.add("I5", edit.key, f"written by term {after.term} while term {self.term} leads")
        if after.entry == objects_pb2.LANE_ENTRY_SEAL and not alone:
            findings.add("I5", edit.key, "a seal wrote more than its lane")
        if before is not None and (after.term, after.n) <= (before.term, before.n):
            findings.add("I5", edit.key, f"{after.term}.{after.n} came after {before.term}.{before.n}")

    def _check_leader(self, edit: Edit, findings: Findings) -> None:
        if edit.item is not None and edit.before is not None:
            findings.add("I5", edit.key, f"the leader key of term {self.term} was rewritten")
        if edit.item is not None and not edit.item.lease:
            findings.add("I5", edit.key, "the leader key is on no lease")
        self.term = edit.item.create_revision if edit.item else 0


class EpochAudit:
    """I6 for all roots. A region's epoch is known where the store holds the global plane."""

    def __init__(self) -> None:
        self._epochs: dict[str, int] = {}

    def check(self, edits: Sequence[Edit], sees_global: bool, findings: Findings) -> None:
        epochal = [edit for edit in edits if type(edit.after) in EPOCHAL]
        for edit in epochal:
            if edit.kind == "region":
                self._epochs[edit.names[0]] = edit.after.epoch
        for edit in epochal:
            if edit.before is not None and _order(edit.after) < _order(edit.before):
                findings.add("I6", edit.key, "an older order replaced a newer one")
            if sees_global and edit.kind != "region":
                epoch = self._epochs.get(edit.region or edit.after.region, 0)
                if edit.after.epoch > epoch:
                    findings.add("I6", edit.key, f"epoch {edit.after.epoch}, but the region's is {epoch}")


def _order(record: Any) -> tuple[int, ...]:
    """What never goes down while the record exists."""
    match record:
        case objects_pb2.Region():
            return (record.epoch,)
        case objects_pb2.Slice():
            return (record.epoch, record.seq)
        case objects_pb2.RegionSlice() | objects_pb2.Share():
            return (record.store_life, record.global_term, record.global_revision)
    return ()
