"""Schedules in the simulator: jobs that run each minute, and what must be true of their runs.

Checked from the store's history alone: a minute of a schedule begins one run at most, also when that run is gone; a run
is what its schedule says then; under FORBID none begins while another has not ended. What must be true in the end is
told by `missing`.
"""

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.store import keys
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

MINUTE_MS = 60_000
LATE_MS = 10_000  # a run that is due has begun by then, when nothing fails
FORBID, REPLACE = objects_pb2.CONCURRENCY_FORBID, objects_pb2.CONCURRENCY_REPLACE
OVER = (objects_pb2.JOB_PHASE_SUCCEEDED, objects_pb2.JOB_PHASE_FAILED)
Path = tuple[str, str]
Workloads = Mapping[Path, objects_pb2.Workload]


def draw(rng: Random, spec: objects_pb2.WorkloadSpec) -> None:
    """Makes a job one of each minute."""
    schedule = spec.schedule
    schedule.cron = "* * * * *"
    schedule.concurrency = rng.choice([objects_pb2.CONCURRENCY_ALLOW, FORBID, REPLACE])
    schedule.starting_deadline_s = rng.choice([0, 0, 20])
    schedule.keep_succeeded, schedule.keep_failed = rng.choice([0, 1, 3]), rng.choice([0, 1])
    schedule.suspended = rng.random() < 0.1
    spec.ClearField("not_before_ms")


class ScheduleChecks:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._begun: set[str] = set()  # uids of runs

    def begins(self, run: objects_pb2.Workload, workloads: Workloads) -> bool:
        """Whether a workload that nobody asked for is a run that may begin."""
        metadata = run.metadata
        parent = workloads.get((metadata.tenant, metadata.owner))
        if not metadata.owner or parent is None or metadata.owner_uid != parent.metadata.uid:
            return False
        if metadata.uid in self._begun:
            raise Violated(f"schedules: {metadata.name} begins again")
        self._begun.add(metadata.uid)
        self._world.checkers.seen["runs of schedules"] += 1
        wanted = objects_pb2.WorkloadSpec()
        wanted.CopyFrom(parent.spec)
        wanted.ClearField("schedule")
        wanted.ClearField("resumed")
        schedule = parent.spec.schedule
        if schedule.concurrency in (FORBID, REPLACE) and (other := self._active(run, workloads)):
            raise Violated(f"schedules: {metadata.name} begins while {other} has not ended")
        live = not parent.metadata.deleted_ms and not schedule.suspended
        return live and parent.spec.HasField("schedule") and run.spec == wanted

    def _active(self, begun: objects_pb2.Workload, workloads: Workloads) -> str:
        """Another run of its schedule that has not ended."""
        for path, run in sorted(workloads.items()):
            of = run.metadata
            if of.owner_uid == begun.metadata.owner_uid and of.uid != begun.metadata.uid:
                item = self._world.global_state.get(keys.status(*path))
                status = objects_pb2.WorkloadStatus.FromString(item.value if item else b"").job
                if of.deleted_ms or status.phase not in OVER or status.generation != of.generation:
                    return of.name
        return ""

    @staticmethod
    def may_go(run: objects_pb2.Workload, workloads: Workloads) -> bool:
        """Whether a run may be deleted by nobody: it is one too many, in the way, or its schedule is gone."""
        metadata = run.metadata
        parent = workloads.get((metadata.tenant, metadata.owner))
        if not metadata.owner:
            return False
        if parent is None or parent.metadata.deleted_ms or parent.metadata.uid != metadata.owner_uid:
            return True
        schedule = parent.spec.schedule
        runs = sum(other.metadata.owner_uid == metadata.owner_uid for other in workloads.values())
        keeps = schedule.keep_succeeded + schedule.keep_failed
        return (
            not parent.spec.HasField("schedule")
            or schedule.concurrency == REPLACE
            or runs > min(schedule.keep_succeeded, schedule.keep_failed, keeps)
        )


def missing(world: "World", workloads: Workloads) -> str:
    """No run outlives its schedule, and each schedule has looked at its last minute."""
    for path, workload in sorted(workloads.items()):
        metadata, schedule = workload.metadata, workload.spec.schedule
        parent = workloads.get((metadata.tenant, metadata.owner))
        if metadata.owner and (parent is None or parent.metadata.uid != metadata.owner_uid):
            return f"schedules: {metadata.name} is left of a schedule that is gone"
        if not schedule.cron or schedule.suspended or schedule.concurrency == REPLACE:
            continue  # a run that is replaced is waited for
        item = world.global_state.get(keys.status(*path))
        status = objects_pb2.WorkloadStatus.FromString(item.value if item else b"").schedule
        if world.kernel.now_ms - max(status.last_ms, metadata.created_ms) > MINUTE_MS + LATE_MS:
            return f"schedules: {metadata.name} was last looked at for {status.last_ms}"
    return ""
