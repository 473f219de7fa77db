"""`why`: the last decision about each replica, or what keeps it waiting."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.cli import output
from atoll.cli.command import Command
from atoll.cli.jobs import told_of
from atoll.cli.session import SlotReference, connected
from atoll.cli.views import enum, slot_text
from atoll.manifest.scalars import format_instant
from atoll.model.explain import sentence

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

_CLOSED = (objects_pb2.TASK_PHASE_PENDING, objects_pb2.TASK_PHASE_SKIPPED, objects_pb2.TASK_PHASE_STOPPED)
ACTORS = {"agent": "the node's agent", "region": "the region", "global": "the global plane"}


@click.command(
    cls=Command,
    examples="""\
  atoll why hello
  atoll why hello/0
  atoll why hello/0 --node n7     what this node lacks for it
""",
)
@click.argument("slot", type=SlotReference(), metavar="NAME[/INDEX]")
@click.option("--node", default="", help="Ask about this node in particular.")
@click.option("--region", default="", help="Where the workload runs in several regions.")
@output.shown_as()
@connected
async def why(client: "AsyncClient", slot: tuple[str, str, int], node: str, region: str, style: str) -> None:
    """Why a replica is where it is: node, scores, decision; or not placed: how many nodes lack what, and how much. And
    who acts next, as of now."""
    workload, task, index = slot
    answers = await _answers(client, workload, task, index, node, region)
    if not output.is_table(style):
        names = [f"slot/{slot_text(answer.id)}" for answer in answers if answer.id.index >= 0]
        output.write(output.documents([manifest.tree(answer) for answer in answers], style, names=names))
    else:
        several = len({answer.region for answer in answers}) > 1
        output.write("".join(line + "\n" for line in _grouped(answers, several, node)))


async def _answers(
    client: "AsyncClient", name: str, task: str, index: int, node: str, region: str
) -> list[regional_pb2.SlotWhy]:
    """What the regions say, then of a job the tasks that are not open, or no more: those no region knows."""
    answers: list[regional_pb2.SlotWhy] = []
    workload = None if index >= 0 or region else await client.workloads.get(name)
    try:
        answers = await client.slots.why(name, index=index, task=task, node=node, region=region)
    except errors.NotFound:
        workload = workload or await client.workloads.get(name)
        if not _closed(workload, task, answers):
            raise
    if workload is None:
        return answers
    answers += [_not_open(workload, each) for each in _closed(workload, task, answers)]
    return answers or [_in_no_region(workload)]


def _closed(
    workload: objects_pb2.Workload, task: str, answers: Sequence[regional_pb2.SlotWhy]
) -> list[objects_pb2.TaskStatus]:
    """Of the tasks that are asked about those that are not open, and not answered."""
    found = {answer.id.task for answer in answers}
    asked = [each for each in workload.status.job.tasks if each.task not in found and task in ("", each.task)]
    return [each for each in asked if each.phase in _CLOSED]


def _not_open(workload: objects_pb2.Workload, task: objects_pb2.TaskStatus) -> regional_pb2.SlotWhy:
    metadata = workload.metadata
    slot = objects_pb2.SlotId(tenant=metadata.tenant, workload=metadata.name, task=task.task, index=-1)
    act = regional_pb2.NextAct(actor="global", what="opens it when that is over")
    if task.phase == objects_pb2.TASK_PHASE_SKIPPED:
        act = regional_pb2.NextAct(actor="nobody", what="it is skipped; what has failed may be resumed")
    elif task.phase == objects_pb2.TASK_PHASE_STOPPED:
        act = regional_pb2.NextAct(actor="nobody", what="it was stopped; what has failed may be resumed")
    reason = objects_pb2.PendingReason(code=task.reason, message=told_of(workload, task))
    return regional_pb2.SlotWhy(id=slot, reasons=[reason], next=act)


def _grouped(answers: Sequence[regional_pb2.SlotWhy], several: bool, node: str) -> Iterator[str]:
    """Replicas of which the same is to be said are told together, as `hello/0-5`; a decision about several, once."""
    alike: dict[tuple[str, ...], list[regional_pb2.SlotWhy]] = {}
    for answer in answers:
        first, *rest = _as_of_now(answer, several=several, node=node)
        slot = slot_text(answer.id)
        name = slot.rpartition("/")[0] if answer.id.index >= 0 else ""
        alike.setdefault((name, answer.decision.id, first.removeprefix(slot), *rest), []).append(answer)
    told: set[str] = set()
    for (name, decided, first, *rest), group in alike.items():
        yield f"{name}/{_ranges([answer.id.index for answer in group])}{first}" if name else first
        yield from rest
        if decided in told:
            yield output.visible(f"  decision {decided}: as above")
        elif decided:
            yield from _decision(group[0].decision)
            told.add(decided)


def _ranges(numbers: Sequence[int]) -> str:
    """`0-3,7`, of numbers that rise."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _in_no_region(workload: objects_pb2.Workload) -> regional_pb2.SlotWhy:
    slot = objects_pb2.SlotId(tenant=workload.metadata.tenant, workload=workload.metadata.name, index=-1)
    actor, what = "global", "gives it to a region when one may run it"
    if workload.spec.HasField("schedule"):
        following = workload.status.schedule.next_ms
        what = f"starts the next run at {format_instant(following)}" if following else "works out the next run"
        if workload.spec.schedule.suspended:
            actor, what = "nobody", "its schedule is suspended"
    elif workload.status.job.ended_ms:
        actor, what = "nobody", "it has ended"
    elif not any(task.replicas for task in workload.spec.tasks):
        actor, what = "nobody", "it asks for no replicas"
    act = regional_pb2.NextAct(actor=actor, what=what)
    return regional_pb2.SlotWhy(id=slot, reasons=workload.status.pending, next=act)


def explain(answer: regional_pb2.SlotWhy) -> list[str]:
    """The answer about one slot, for people."""
    return _as_of_now(answer) + (_decision(answer.decision) if answer.HasField("decision") else [])


def _as_of_now(answer: regional_pb2.SlotWhy, *, several: bool = False, node: str = "") -> list[str]:
    """Without the last decision; with its region where there are several; `node`: that was asked about."""
    if answer.id.index < 0:
        name = "/".join(part for part in (answer.id.workload, answer.id.task) if part)
        where = output.visible(f"{name} in {answer.region or 'no region'}")
        return [where, *(f"  {_reason(reason)}" for reason in answer.reasons), *_next(answer)]
    state = enum(answer.state, objects_pb2.SlotState) or "waiting"
    if answer.node:
        lines = [f"{slot_text(answer.id)}  {state} on {output.visible(answer.node)}"]
        if answer.account == objects_pb2.ACCOUNT_BURST:
            lines[0] += ", charged to burst: who has quota for its room may get it"
    else:
        waits = f" for {output.span(answer.waiting_ms)}" if answer.waiting_ms else ""
        position = f", {answer.queue_position}. in the queue" if answer.queue_position else ""
        lines = [f"{slot_text(answer.id)}  {state}{waits}{position}"]
    lines[0] += f", region {output.visible(answer.region)}" if several else ""
    lines += [f"  {_reason(reason)}" for reason in answer.reasons]
    if answer.on_node:
        lines.append(f"  node {output.visible(node)}: " + " · ".join(map(_reason, answer.on_node)))
    return lines + _next(answer)


def _reason(reason: objects_pb2.PendingReason) -> str:
    return f"{output.visible(sentence(reason))} ({output.visible(reason.code)})"


def _next(answer: regional_pb2.SlotWhy) -> list[str]:
    act = answer.next
    return [output.visible(f"  who acts next: {ACTORS.get(act.actor, act.actor)}: {act.what}")] if act.actor else []


def _decision(decision: objects_pb2.Decision) -> list[str]:
    waited = output.span(max(0, decision.decided_ms - decision.queued_ms))
    avoided = f", {output.visible(decision.avoided)} left out: it failed there" if decision.avoided else ""
    lines = [
        f"  decision {output.visible(decision.id)}: {decision.result}, {waited} after it was queued; "
        f"{decision.feasible} of {decision.nodes} nodes could take it{avoided}; policy {decision.policy_revision}"
    ]
    lines += [f"    refused: {_reason(reason)}" for reason in decision.filters]
    if decision.scores:
        names = [term.name for term in decision.scores[0].terms]
        rows = []
        for score in decision.scores:
            values = {term.name: f"{term.value:.3f} x {term.weight:.3g}" for term in score.terms}
            rows.append([score.node, f"{score.total:.3f}", *(values.get(name, "") for name in names)])
        table = output.table(["NODE", "SCORE", *(name.upper() for name in names)], rows)
        lines += ["    " + line for line in table.splitlines()]
    if decision.quota:
        lines.append(f"    the tenant's slice here: {output.visible(decision.quota)}")
    if decision.next_owner:
        lines.append(f"    passed on to: {output.visible(decision.next_owner)}")
    return lines
