"""The topic that makes shares say the policy that is in force.

Decides which shares are written anew, a bounded batch at a time, the rest after what other topics want: a promotion,
a rollback or the end of a canary reaches all regions without holding up anything. What a share asks for stays as it is,
and so does its generation: no replica that runs or starts is touched (I9).
"""

import itertools

from atoll.api.v1 import objects_pb2
from atoll.lane import Committed, Settled
from global_cp.config import CoreSettings
from global_cp.core import policies, transactions
from global_cp.core.bundles import MOST_BYTES
from global_cp.core.commands import Command
from global_cp.core.records import Change, Records
from global_cp.core.topics import Proposal

Path = tuple[str, ...]
_LOOKS = 10  # at a share, for one at all that a workload may want


class PolicyRollout:
    def __init__(self, records: Records, settings: CoreSettings) -> None:
        self._records = records
        self._settings = settings
        self._unsure: dict[Path, None] = {}  # shares that are to be looked at

    def read(self, change: Change) -> None:
        self._unsure[change.path] = None

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        batch: dict[Path, objects_pb2.Share] = {}
        size = 0
        for path in list(itertools.islice(self._unsure, _LOOKS * self._settings.looks_at_once)):
            if len(batch) == self._settings.policy_batch or size >= MOST_BYTES:
                break
            del self._unsure[path]
            if share := self._stamped(path):
                batch[path] = share
                size += share.ByteSize()
        return Proposal(transactions.stamp_shares(self._records, list(batch.values())), list(batch)) if batch else None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        if isinstance(item, list) and not isinstance(settled, Committed):
            self._unsure.update(dict.fromkeys(item))

    def changed(self, change: Change, out: list[Command]) -> None:
        if change.kind == "policy_in_force":
            self._mark_all()
        elif change.kind == "share" and change.after is not None:
            self._unsure[change.path] = None  # it may have been planned by an earlier policy

    def deadline(self) -> int | None:
        return 0 if self._unsure else None

    def _mark_all(self) -> None:
        self._unsure.update(dict.fromkeys(path for path, _ in self._records.shares.items()))

    def _stamped(self, path: Path) -> objects_pb2.Share | None:
        """The share as it has to be; None when it is so, or places nothing any more."""
        before = self._records.shares.get(*path)
        if before is None or before.removed:
            return None
        after = objects_pb2.Share()
        after.CopyFrom(before)
        policies.stamp(self._records, self._settings.default_strategy, after)
        return after if after != before else None
