"""Whom ends of jobs are told to in the simulator, and what must be true of it.

Checked from the store's history and from what was received: a job that ends, or is deleted before its end, and has
somebody to tell has its notice in the same revision; no notice goes before it was received; in the end none is left.
"""

import random
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.store import keys
from atoll.store.store import Batch, Change, prefix_end
from global_cp.core.commands import Notify
from global_cp.core.events import Notified
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.plane import GlobalCandidate
    from simulation.world import World

PREFIX = "https://hooks.test/"
URL = f"{PREFIX}jobs"
FAILS, UNHEARD = 0.6, 0.2  # of the tries while there are faults; of these, that were received all the same
LONGEST_MS = 5_000
_PUT = b"/g/notice/"
_OVER = (objects_pb2.JOB_PHASE_SUCCEEDED, objects_pb2.JOB_PHASE_FAILED)


class Receiver:
    """A web server with bad days."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = random.Random(world.kernel.seed ^ 0x40CE)
        self._received: set[str] = set()

    def take(self, plane: "GlobalCandidate", command: Notify) -> None:
        fails = not self._world.healed and self._random.random() < FAILS
        kernel = self._world.kernel
        kernel.note(command.body)

        def answered() -> None:
            if not fails or self._random.random() < UNHEARD:
                self._received.add(command.id)
            plane.post(Notified(command.number, "status 503" if fails else ""))

        kernel.after(self._random.randint(1, LONGEST_MS), b"notice", answered, plane)

    # ---- at every revision of the global plane's store

    def look(self, batch: Batch) -> None:
        told = {_notice(change).uid for change in batch.changes if change.key.startswith(_PUT) and change.item}
        for change in batch.changes:
            kind = change.key.split(b"/")[2]
            if kind == b"notice":
                self._check_notice(change)
            elif ended := self._ended(kind, change):
                self._world.checkers.seen["ends of jobs told"] += 1
                if ended not in told:
                    raise Violated(f"notices: {change.key.decode()} has ended, and nobody will be told")

    def _check_notice(self, change: Change) -> None:
        notice = _notice(change)
        if change.item is None and notice.id not in self._received:
            raise Violated(f"notices: {notice.id} is gone before it was received")
        if notice.failed_ms:
            raise Violated(f"notices: {notice.id} is given up: {notice.error}")

    def _ended(self, kind: bytes, change: Change) -> str:
        """The uid of a job that somebody is to be told of, and that ends by this change; else nothing."""
        if change.item is None:
            return ""
        before, after = (item.value if item else b"" for item in (change.previous, change.item))
        if kind == b"status":
            was, now = (objects_pb2.WorkloadStatus.FromString(value).job for value in (before, after))
            tenant, name = change.key.decode().split("/")[3:]
            workload = self._world.promises.workloads.get((tenant, name))
            if workload is None or (was.phase, was.ended_ms) == (now.phase, now.ended_ms) or now.phase not in _OVER:
                return ""
        elif kind == b"workload":
            workload = objects_pb2.Workload.FromString(after)
            metadata = workload.metadata
            if not metadata.deleted_ms or objects_pb2.Workload.FromString(before).metadata.deleted_ms:
                return ""
            stored = self._world.global_state.get(keys.status(metadata.tenant, metadata.name))
            job = objects_pb2.WorkloadStatus.FromString(stored.value if stored else b"").job
            if workload.spec.HasField("schedule") or (job.phase in _OVER and job.generation == metadata.generation):
                return ""
        else:
            return ""
        return workload.metadata.uid if workload.spec.notify else ""

    def missing(self) -> str:
        left = self._world.global_state.range(_PUT, prefix_end(_PUT)).items
        return f"notices: {left[0].key.decode()} has not been delivered" if left else ""


def _notice(change: Change) -> objects_pb2.Notice:
    item = change.item or change.previous
    assert item is not None
    return objects_pb2.Notice.FromString(item.value)
