"""The museum's third room: naive versions of what becomes of jobs. MUTANTS here are those of all rooms."""

from typing import Any

import pytest

from atoll.api.v1 import objects_pb2
from global_cp.core import jobs, shares
from global_cp.core.jobs import Ended, Opening
from regional.core.records import TaskEntry
from tests.simulation.global_mutants import MUTANTS as MUTANTS
from tests.simulation.mutants import mutant


@mutant("jobs: ", jobs=True)
def every_task_starts_at_once(patch: pytest.MonkeyPatch) -> None:
    def all_open(workload: objects_pb2.Workload, stored: Any, now_ms: int) -> dict[str, Opening]:
        return {task.name: Opening.OPEN for task in workload.spec.tasks}

    patch.setattr(jobs, "openings", all_open)


@mutant("jobs: ", jobs=True)
def what_has_ended_has_succeeded(patch: pytest.MonkeyPatch) -> None:
    """A task is over when all of its replicas are, however they ended."""
    count = jobs._count

    def over(spec: objects_pb2.Task, task: objects_pb2.TaskStatus, ended: Ended) -> None:
        count(spec, task, ended)
        if task.succeeded + task.failed >= (spec.completions or spec.replicas):
            task.phase = objects_pb2.TASK_PHASE_SUCCEEDED

    patch.setattr(jobs, "_count", over)


@mutant("jobs: ", "not converged", jobs=True, regions=2, global_crash_every_ms=8_000)
def a_new_leader_believes_only_what_it_hears(patch: pytest.MonkeyPatch) -> None:
    """The status is told anew from the reports each time: until all have spoken nothing has succeeded."""
    task = jobs._task

    def anew(spec: Any, before: Any, *others: Any) -> objects_pb2.TaskStatus:
        return task(spec, None, *others)

    patch.setattr(jobs, "_task", anew)


@mutant("jobs: ", jobs=True)
def a_parallelism_counts_only_what_is_bound(patch: pytest.MonkeyPatch) -> None:
    """What a transaction under way is about to bind is left out of account."""
    bound = property(lambda self: sum(entry.bound for entry in self.entries.values()))
    patch.setattr(TaskEntry, "at_once", bound)


@mutant("jobs: ", jobs=True)
def each_region_has_the_whole_parallelism(patch: pytest.MonkeyPatch) -> None:
    """And does not keep to it: the region's part is not in its share."""
    admit = TaskEntry.admit

    def without(self: TaskEntry, *args: Any) -> None:
        admit(self, *args)
        self.parallel = None

    patch.setattr(TaskEntry, "admit", without)


@mutant("not converged", jobs=True, regions=2)
def what_is_over_is_not_stopped(patch: pytest.MonkeyPatch) -> None:
    share = shares.share

    def open_(*args: Any) -> objects_pb2.Share:
        result = share(*args)
        del result.stopped[:]
        return result

    patch.setattr(shares, "share", open_)
