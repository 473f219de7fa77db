"""Jobs: how far the tasks of one are, and resuming one that has failed."""

from typing import TYPE_CHECKING

import click

from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli import output
from atoll.cli.command import Command, Group
from atoll.cli.session import connected
from atoll.cli.views import WORKLOADS, enum
from atoll.cli.workloads import mutation, show, wait_for, waiting
from atoll.manifest import selectors
from atoll.manifest.scalars import format_instant
from atoll.model import explain
from atoll.sdk import progress

SCHEDULE_LABEL = "atoll/schedule"  # that its runs have

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient


@click.group(
    cls=Group,
    examples="""\
  atoll job get nightly           its tasks, what they wait for, and how they ended
  atoll wait nightly --for done --timeout 1h
  atoll job resume nightly        goes on from what failed
  atoll job runs nightly          of one with a schedule
""",
)
def job() -> None:
    """Work that ends by itself."""


@job.command(
    cls=Command,
    examples="""\
  atoll job get nightly
  atoll job get nightly -t analytics
  atoll job get nightly -o yaml    the whole document
""",
)
@click.argument("name")
@output.shown_as()
@connected
async def get(client: "AsyncClient", name: str, style: str) -> None:
    """Show the tasks of a job."""
    workload = await client.workloads.get(name)
    if workload.spec.type != objects_pb2.WORKLOAD_TYPE_JOB:
        raise errors.Invalid(f"{name} is a service", hint=f"atoll get workload {name}")
    if output.is_table(style):
        output.write("".join(line + "\n" for line in described(workload)))
    else:
        output.write(output.render(WORKLOADS, [workload], style, single=True))


@job.command(
    cls=Command,
    examples="""\
  atoll job runs nightly
  atoll job runs nightly -o wide
  atoll job runs nightly -o name
""",
)
@click.argument("name")
@output.shown_as()
@connected
async def runs(client: "AsyncClient", name: str, style: str) -> None:
    """List the runs of a job that has a schedule; the last one is the newest."""
    label = selectors.parse_requirement(f"{SCHEDULE_LABEL}={name}")
    found = await client.workloads.list(selector=[label])
    if found or not output.is_table(style):
        output.shown(WORKLOADS, found, style)
    else:
        output.tell(
            f"no runs of {output.visible(name)} yet; atoll job get {output.visible(name)} tells when it runs next"
        )


def told_of(workload: objects_pb2.Workload, task: objects_pb2.TaskStatus) -> str:
    """Why a task is as it is; with the time where it waits for one."""
    at = f", {format_instant(workload.spec.not_before_ms)}" if task.reason == explain.NOT_YET else ""
    return task.message + at


def described(workload: objects_pb2.Workload) -> list[str]:
    """The job in a line, then its tasks; of one with a schedule when it runs."""
    status = workload.status.job
    if workload.spec.HasField("schedule"):
        return _times(workload)
    head = f"{workload.metadata.name}  {enum(status.phase, objects_pb2.JobPhase) or 'new'}"
    head += f": {status.message}" if status.message else ""
    known = {task.task: task for task in status.tasks}
    rows = []
    for task in workload.spec.tasks:
        now = known.get(task.name, objects_pb2.TaskStatus())
        rows.append(
            [
                task.name,
                enum(now.phase, objects_pb2.TaskPhase),
                f"{now.succeeded}/{task.completions or task.replicas}",
                str(now.failed),
                ",".join(task.depends_on),
                told_of(workload, now),
            ]
        )
    table = output.table(["TASK", "STATE", "SUCCEEDED", "FAILED", "DEPENDS ON", "WHY"], rows)
    untold = [f"not told: {c.message}" for c in workload.status.conditions if c.type == "Notified"]
    return [output.visible(head), *table.splitlines(), *map(output.visible, untold)]


def _times(workload: objects_pb2.Workload) -> list[str]:
    schedule, now = workload.spec.schedule, workload.status.schedule
    following = "suspended" if schedule.suspended else f"next {format_instant(now.next_ms)}" if now.next_ms else "new"
    lines = [f"{workload.metadata.name}  {schedule.cron} in {schedule.time_zone}: {following}"]
    if now.last_run:
        lines.append(f"last run {now.last_run}")
    if now.missed:
        lines.append(f"missed {now.missed}, the last one because: {now.reason}")
    return [output.visible(line) for line in lines]


@job.command(
    cls=Command,
    examples="""\
  atoll job resume nightly
  atoll job resume nightly --no-wait
  atoll job resume nightly --timeout 1h
""",
)
@click.argument("name")
@output.result
@mutation
@waiting
@connected
async def resume(client: "AsyncClient", name: str, style: str, request_id: str, wait: bool, timeout: float) -> None:
    """Let a job that has failed go on: what has succeeded stays, the rest is tried again. Waits until it is done."""
    applied = await client.workloads.resume(name, request_id=request_id)
    show(style, "Workload", applied.workload, "resumed")
    if wait:
        await wait_for(client, applied.workload, progress.DONE, timeout)
