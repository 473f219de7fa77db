"""What the replicas of a workload may be charged: of those that have not ended, as many as may run at once."""

from collections.abc import Mapping

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import may_burst
from atoll.model.resources import NOTHING, Vector, vector

TASK_OVER = (
    objects_pb2.TASK_PHASE_SUCCEEDED,
    objects_pb2.TASK_PHASE_FAILED,
    objects_pb2.TASK_PHASE_SKIPPED,
    objects_pb2.TASK_PHASE_STOPPED,
)
Ended = Mapping[str, int]  # by task: replicas that need nothing any more
NONE_ENDED: Ended = {}


def demand(spec: objects_pb2.WorkloadSpec, ended: Ended = NONE_ENDED, *, firm: bool = False) -> Vector:
    """`firm`: the part of it that burst may not pay for. Nothing of a schedule: its runs ask."""
    result = NOTHING
    if spec.HasField("schedule"):
        return result
    for task in spec.tasks:
        if firm and may_burst(spec.priority, task.gang):
            continue
        left = max(0, task.replicas - ended.get(task.name, 0)) if ended else task.replicas
        result += vector(task.resources.requests) * (min(left, task.parallelism) if task.parallelism else left)
    return result


def ended(spec: objects_pb2.WorkloadSpec, job: objects_pb2.JobStatus) -> Ended:
    """By a job's status of this very spec: all replicas of a task that is over, else those that have ended for good."""
    said = {task.task: task for task in job.tasks}
    return {
        task.name: task.replicas if status.phase in TASK_OVER else status.succeeded + status.failed
        for task in spec.tasks
        if (status := said.get(task.name)) is not None
    }
