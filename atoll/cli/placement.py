"""`why`: the last decision about each replica, or what keeps it waiting."""

from typing import TYPE_CHECKING

import click

from atoll import manifest
from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.cli import output
from atoll.cli.command import Command
from atoll.cli.session import SlotReference, connected
from atoll.cli.views import enum, slot_text
from atoll.manifest.scalars import format_instant
from atoll.model.explain import sentence

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

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
    answers = await client.slots.why(workload, index=index, task=task, node=node, region=region)
    if not answers:  # no region has any of it
        answers = [_in_no_region(await client.workloads.get(workload))]
    if not output.is_table(style):
        names = [f"slot/{slot_text(answer.id)}" for answer in answers if answer.id.index >= 0]
        output.write(output.documents([manifest.tree(answer) for answer in answers], style, names=names))
    else:
        several = len({answer.region for answer in answers}) > 1
        output.write("".join(line + "\n" for answer in answers for line in explain(answer, several=several)))


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


def explain(answer: regional_pb2.SlotWhy, *, several: bool = False) -> list[str]:
    """The answer about one slot, for people; with its region where there are several."""
    if answer.id.index < 0:
        where = output.visible(f"{answer.id.workload} in {answer.region or 'no region'}")
        return [where, *(f"  {_reason(reason)}" for reason in answer.reasons), *_next(answer)]
    state = enum(answer.state, objects_pb2.SlotState) or "waiting"
    if answer.node:
        lines = [f"{slot_text(answer.id)}  {state} on {output.visible(answer.node)}"]
    else:
        waits = f" for {output.span(answer.waiting_ms)}" if answer.waiting_ms else ""
        position = f", {answer.queue_position}. in the queue" if answer.queue_position else ""
        lines = [f"{slot_text(answer.id)}  {state}{waits}{position}"]
    lines[0] += f", region {output.visible(answer.region)}" if several else ""
    lines += [f"  {_reason(reason)}" for reason in answer.reasons]
    if answer.HasField("on_node"):
        lines.append(f"  the node asked about: {_reason(answer.on_node)}")
    lines += _next(answer)
    if answer.HasField("decision"):
        lines += _decision(answer.decision)
    return lines


def _reason(reason: objects_pb2.PendingReason) -> str:
    return f"{output.visible(sentence(reason))} ({output.visible(reason.code)})"


def _next(answer: regional_pb2.SlotWhy) -> list[str]:
    act = answer.next
    return [output.visible(f"  who acts next: {ACTORS.get(act.actor, act.actor)}: {act.what}")] if act.actor else []


def _decision(decision: objects_pb2.Decision) -> list[str]:
    waited = output.span(max(0, decision.decided_ms - decision.queued_ms))
    lines = [
        f"  decision {output.visible(decision.id)}: {decision.result}, {waited} after it was queued; "
        f"{decision.feasible} of {decision.nodes} nodes could take it"
    ]
    lines += [f"    refused: {_reason(reason)}" for reason in decision.filters]
    if decision.scores:
        names = [term.name for term in decision.scores[0].terms]
        rows = []
        for score in decision.scores:
            values = {term.name: f"{term.value:.3f} x {term.weight:g}" for term in score.terms}
            rows.append([score.node, f"{score.total:.3f}", *(values.get(name, "") for name in names)])
        table = output.table(["NODE", "SCORE", *(name.upper() for name in names)], rows)
        lines += ["    " + line for line in table.splitlines()]
    if decision.quota:
        lines.append(f"    the tenant's slice here: {output.visible(decision.quota)}")
    if decision.next_owner:
        lines.append(f"    passed on to: {output.visible(decision.next_owner)}")
    return lines
