"""Reads each change of the store as an edit of a record.

Decides what may stand under `/g` and `/r`: an unknown key or an unreadable value is a violation, and so is a record
whose own identity is not the one in its key (I4: the tenant in the key is the tenant of the record).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message

from atoll.api.v1 import objects_pb2
from atoll.audit.findings import SCHEMA, Findings
from atoll.store.keys import GLOBAL, REGIONS
from atoll.store.store import Change, KeyValue

Names = tuple[str, ...]
_KEY = re.compile(r"/(?:g|r/([^/]+))/([^/]+)(?:/(.+))?")  # region, kind, names


class Edit(NamedTuple):
    """A record before and after one revision; None = absent. Never mutated: `before` was once an `after`."""

    key: bytes
    region: str  # "" = the global plane
    kind: str
    names: Names  # the parts of the key after its kind
    before: Any
    after: Any
    item: KeyValue | None


@dataclass(frozen=True, slots=True)
class _Kind:
    message: type[Message]
    depth: int  # names in the key
    identity: Callable[[Any], Names] = lambda m: ()  # what the record says its key ends with


_AUTHORITY = {
    "leader": _Kind(objects_pb2.Leader, 0),
    "store_life": _Kind(objects_pb2.StoreLife, 0),
    "lane": _Kind(objects_pb2.Lane, 1),
}
_GLOBAL = _AUTHORITY | {
    "tenant": _Kind(objects_pb2.Tenant, 1, lambda m: (m.metadata.name,)),
    "workload": _Kind(objects_pb2.Workload, 2, lambda m: (m.metadata.tenant, m.metadata.name)),
    "status": _Kind(objects_pb2.WorkloadStatus, 2),
    "budget": _Kind(objects_pb2.Budget, 1, lambda m: (m.tenant,)),
    "slice": _Kind(objects_pb2.Slice, 2, lambda m: (m.tenant, m.region)),
    "ack": _Kind(objects_pb2.SliceAck, 2, lambda m: (m.region, m.tenant)),
    "region": _Kind(objects_pb2.Region, 1, lambda m: (m.metadata.name,)),
    "share": _Kind(objects_pb2.Share, 3, lambda m: (m.region, m.metadata.tenant, m.metadata.name)),
    "request": _Kind(objects_pb2.RequestRecord, 2, lambda m: (m.id,)),
    "token": _Kind(objects_pb2.UserToken, 1, lambda m: (m.id,)),
}
_REGION = _AUTHORITY | {
    "slice": _Kind(objects_pb2.RegionSlice, 1, lambda m: (m.tenant,)),
    "used": _Kind(objects_pb2.LaneUse, 2),
    "node": _Kind(objects_pb2.Node, 1, lambda m: (m.metadata.name,)),
    "removed": _Kind(objects_pb2.RemovedNode, 1, lambda m: (m.name,)),
    "workload": _Kind(objects_pb2.Share, 2, lambda m: (m.metadata.tenant, m.metadata.name)),
    "slot": _Kind(objects_pb2.Slot, 4, lambda m: (m.id.tenant, m.id.workload, m.id.task, str(m.id.index))),
    "zombie": _Kind(objects_pb2.Zombie, 3, lambda m: zombie_names(m.node, m.slot, m.attempt)),
    "join": _Kind(objects_pb2.JoinToken, 1, lambda m: (m.id,)),
}


def zombie_names(node: str, slot: objects_pb2.SlotId, attempt: objects_pb2.Attempt) -> Names:
    name = f"{slot.tenant}.{slot.workload}.{slot.task}.{slot.index}"
    return (node, name, f"{attempt.term}.{attempt.n}")


class Records:
    """Every record as it is now."""

    def __init__(self) -> None:
        self._present: dict[bytes, Any] = {}

    def edit(self, change: Change, findings: Findings) -> Edit | None:
        """None for a key that is not ours or, with a finding, not readable."""
        if not change.key.startswith((GLOBAL, REGIONS)):
            return None
        match = _KEY.fullmatch(change.key.decode(errors="replace"))
        region, name, rest = match.groups(default="") if match else ("", "", "")
        names = tuple(rest.split("/")) if rest else ()
        kind = (_REGION if region else _GLOBAL).get(name)
        if kind is None or len(names) != kind.depth:
            findings.add(SCHEMA, change.key, "no such key")
            return None
        try:
            after = kind.message.FromString(change.item.value) if change.item else None
        except DecodeError:
            findings.add(SCHEMA, change.key, f"is no {kind.message.DESCRIPTOR.name}")
            return None
        if after is not None and (identity := kind.identity(after)) and names[-len(identity) :] != identity:
            findings.add("I4", change.key, f"holds the record of {'/'.join(identity)}")
        before = self._present.pop(change.key, None)
        if after is not None:
            self._present[change.key] = after
        return Edit(change.key, region, name, names, before, after, change.item)
