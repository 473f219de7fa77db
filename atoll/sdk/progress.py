"""How far a workload is: from its status to a stage that people wait for. Pure.

Only a status that was observed at the wanted generation counts; an older one says nothing about this spec.
"""

from dataclasses import dataclass

from atoll.api.v1 import objects_pb2
from atoll.model import explain

STAGES = ("admitted", "bound", "started", "ready", "serving")
DONE = "done"
DELETED = "deleted"
OVER = (objects_pb2.JOB_PHASE_SUCCEEDED, objects_pb2.JOB_PHASE_FAILED)


@dataclass(frozen=True, slots=True)
class Progress:
    """`reached` holds the stages whose condition is true for the generation waited for, in order."""

    generation: int
    reached: tuple[str, ...]
    desired: int
    bound: int
    started: int
    ready: int
    serving: int
    succeeded: int
    failed: int
    ended: bool = False  # a job: all of its tasks have
    failure: str = ""  # why the job has failed

    def has(self, stage: str) -> bool:
        """`done`: a job has ended. One that has succeeded has come through every stage."""
        if stage == DONE or (self.ended and not self.failure):
            return self.ended
        return stage in self.reached

    def steps(self) -> list[str]:
        """For people: `admitted`, `queued`, `bound 3/3`, `started`, `ready 3/3`, `serving 3/3`; those begun."""
        shown = ["admitted", "queued"] if "admitted" in self.reached else []
        for stage in ("bound", "ready", "serving"):
            if stage == "ready" and "started" in self.reached:
                shown.append("started")
            count = getattr(self, stage) + self.succeeded  # what has succeeded has come all the way
            if count or stage in self.reached:
                shown.append(f"{stage} {count}/{self.desired}")
        if self.succeeded:
            shown.append(f"done {self.succeeded}/{self.desired}")
        if self.failed:
            shown.append(f"failed {self.failed}/{self.desired}")
        return shown


def progress(workload: objects_pb2.Workload, generation: int) -> Progress:
    """Progress of `generation` or a later one."""
    status, job = workload.status, workload.status.job
    desired = sum(task.replicas for task in workload.spec.tasks)
    over = job.phase in OVER and job.generation >= max(generation, workload.metadata.generation)
    failure = job.message or job.reason if over and job.phase == objects_pb2.JOB_PHASE_FAILED else ""
    true = {c.type.lower() for c in status.conditions if c.status == objects_pb2.CONDITION_STATUS_TRUE}
    if status.observed_generation < max(generation, workload.metadata.generation):
        admitted = ("admitted",) if "admitted" in true else ()
        return Progress(workload.metadata.generation, admitted, desired, 0, 0, 0, 0, 0, 0, over, failure)
    counts = status.counts
    return Progress(
        generation=status.observed_generation,
        reached=tuple(stage for stage in STAGES if stage in true),
        desired=desired,
        bound=counts.bound,
        started=counts.started,
        ready=counts.ready,
        serving=counts.serving,
        succeeded=counts.succeeded,
        failed=counts.failed,
        ended=over,
        failure=failure,
    )


def shortfall(workload: objects_pb2.Workload, stage: str, waited_s: float) -> str:
    """Why `stage` was not reached: how many replicas lack it, and the reasons by count."""
    now = progress(workload, workload.metadata.generation)
    where = f" in {workload.status.regions[0].region}" if len(workload.status.regions) == 1 else ""
    name = workload.metadata.name
    if not now.reached:
        return f"{name} was not admitted in {waited_s:.0f} s: the control plane has not reported on it yet"
    if now.bound < now.desired:
        lacking = now.desired - now.bound
        head = f"{lacking} of {now.desired} replicas of {name} are not placed{where} (waiting {waited_s:.0f} s)"
    else:
        count = getattr(now, stage, now.succeeded)
        head = f"{now.desired - count} of {now.desired} replicas of {name} are not {stage}{where} ({waited_s:.0f} s)"
    several = len(workload.status.regions) > 1
    reasons = [
        f"{reason.region}: " * bool(several and reason.region) + f"{explain.sentence(reason)} ({reason.code})"
        for reason in workload.status.pending
    ]
    return "\n  ".join([head, " · ".join(reasons)]) if reasons else head


def endless(workload: objects_pb2.Workload) -> str:
    """Why it is never done; empty: it ends some day."""
    name = workload.metadata.name
    if workload.spec.type != objects_pb2.WORKLOAD_TYPE_JOB:
        return f"{name} is a service: it never ends, so it is never done"
    if workload.spec.HasField("schedule"):
        return f"{name} has a schedule: each of its runs ends, and it goes on"
    return ""


def instead_of_done(workload: objects_pb2.Workload, tenant: str) -> str:
    """The command for what never ends: the runs of a schedule, or until a service serves."""
    name = workload.metadata.name
    job = workload.spec.type == objects_pb2.WORKLOAD_TYPE_JOB
    return _of_tenant(f"atoll job runs {name}" if job else f"atoll wait {name} --for serving", workload, tenant)


def advice(workload: objects_pb2.Workload, tenant: str) -> str:
    """The command that tells more: what keeps replicas from a node, or what those that have one do."""
    name = workload.metadata.name
    now = progress(workload, workload.metadata.generation)
    placed = 0 < now.desired <= now.bound
    command = f"atoll get slots {name} -o wide" if placed else f"atoll why {name}"
    return _of_tenant(command, workload, tenant)


def _of_tenant(command: str, workload: objects_pb2.Workload, tenant: str) -> str:
    return command if workload.metadata.tenant == tenant else f"{command} -t {workload.metadata.tenant}"
