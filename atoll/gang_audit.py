"""I12: gangs are placed all or none. A part of the auditor (audit.py), and as independent of the programs as the rest.

A gang's record is put only when every replica that its tasks ask for is reserved, bound or done; from then on what is
reserved counts as bound. No member is bound without the record, none is given up without a certificate or a zombie
while it stands, and it goes only when none is reserved or bound any more. So a gang is never bound in part: before the
record no member is, after it all of them are.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2

if TYPE_CHECKING:
    from atoll.audit import Edit

_RESERVED, _BOUND = objects_pb2.SLOT_STATE_RESERVED, objects_pb2.SLOT_STATE_BOUND
_DONE = objects_pb2.SLOT_STATE_DONE
_CHARGED = (_RESERVED, _BOUND)
_NEVER = objects_pb2.Slot()
_Path = tuple[str, ...]  # tenant and workload


class Gangs:
    """Of one region. Looks only at workloads that have a task in a gang, or a gang's record."""

    def __init__(self, expect: Callable[..., None]) -> None:
        self._expect = expect
        self._asked: dict[_Path, dict[str, int]] = {}  # replicas of each task that is in a gang
        self._records: dict[_Path, objects_pb2.Gang] = {}
        self._states: defaultdict[_Path, Counter[tuple[str, int]]] = defaultdict(Counter)  # slots by task and state

    def check(self, kinds: "Mapping[str, Sequence[Edit]]", certified: bool) -> None:
        """One revision. `certified`: its operation acts on certificates."""
        for _, _, _, names, _, after, _ in kinds.get("workload", ()):
            asked = {task.name: task.replicas for task in after.spec.tasks if task.gang} if after else {}
            self._asked.pop(names, None)
            if asked:
                self._asked[names] = asked
        stood = dict(self._records) if "gang" in kinds else self._records
        for key, _, _, names, before, after, _ in kinds.get("gang", ()):
            if after is None:
                self._records.pop(names, None)
            else:
                self._expect(before is None, "I12", key, "was committed twice")
                self._records[names] = after
        zombies = kinds.get("zombie", ())
        for key, _, _, names, before, after, _ in kinds.get("slot", ()):
            self._check_slot(key, names, before or _NEVER, after or _NEVER, stood, certified or bool(zombies))
        for key, _, _, names, before, after, _ in kinds.get("gang", ()):
            self._check_whole(key, names, before, after)
        for _, _, _, names, _, after, _ in kinds.get("workload", ()):
            if after is None:
                self._states.pop(names, None)

    def _check_slot(
        self,
        key: bytes,
        names: _Path,
        before: objects_pb2.Slot,
        after: objects_pb2.Slot,
        stood: Mapping[_Path, objects_pb2.Gang],
        proven: bool,
    ) -> None:
        """`stood`: the records before this revision."""
        owner, task = names[:2], names[2]
        states, gang = self._states[owner], stood.get(owner)
        states[task, before.state] -= 1
        states[task, after.state] += 1
        if after.state == _BOUND != before.state:
            member = task in self._asked.get(owner, ()) or before.reservation.gang
            mine = gang is not None and gang.uid == after.uid
            self._expect(mine or not member, "I12", key, "a member is bound and its gang is not committed")
        if before.state == _RESERVED and before.reservation.gang and after.state not in _CHARGED:
            counts = gang is not None and gang.uid == before.uid and not proven
            self._expect(not counts, "I12", key, "a member of a committed gang was swept")

    def _check_whole(
        self, key: bytes, owner: _Path, before: objects_pb2.Gang | None, after: objects_pb2.Gang | None
    ) -> None:
        states = self._states[owner]
        for task, replicas in self._asked.get(owner, {}).items():
            charged = sum(states[task, state] for state in _CHARGED)
            if after is None:
                self._expect(not charged, "I12", key, "was dissolved while {} of {} are placed", charged, task)
            else:
                all_ = charged + states[task, _DONE] >= replicas
                self._expect(all_, "I12", key, "was committed with {} of {} of {}", charged, replicas, task)
        for asked in after.tasks if after else ():
            reserved = states[asked.task, _RESERVED]
            said = "{} of {} are reserved, it says {}"
            self._expect(reserved == asked.reserved, "I12", key, said, reserved, asked.task, asked.reserved)
