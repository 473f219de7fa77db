"""`policy`: revisions of what strategies weigh, and which of them is in force where."""

from typing import TYPE_CHECKING

import click

from atoll import errors, manifest
from atoll.api.v1 import global_pb2, objects_pb2
from atoll.cli import output, views
from atoll.cli.command import Group
from atoll.cli.session import connected
from atoll.cli.workloads import apply_documents, manifests, mutation

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

KIND = "SchedulerPolicy"
Weighed = float | bool | str
REVISION = click.IntRange(min=0)


@click.group(
    cls=Group,
    examples="""\
  atoll policy list
  atoll policy create -f policy.yaml
  atoll policy canary 2 --region eu-west
  atoll policy promote 2
  atoll policy rollback
""",
)
def policy() -> None:
    """What the strategies of placement weigh, in numbered revisions that never change. Revision 0 is built in."""


@policy.command("list", examples="  atoll policy list\n  atoll policy list -o wide\n  atoll policy list -o json\n")
@output.shown_as()
@connected
async def list_(client: "AsyncClient", style: str) -> None:
    """All revisions, and where each is in force."""
    output.shown(views.POLICIES, list((await client.policies.list()).policies), style)


@policy.command(
    "get",
    examples="""\
  atoll policy get 0              the weights that are built in
  atoll policy get 2 -o yaml
  atoll policy list               all of them
""",
)
@click.argument("revision", type=REVISION)
@output.shown_as("yaml")
@connected
async def get(client: "AsyncClient", revision: int, style: str) -> None:
    """One revision, with all its weights."""
    output.write(output.render(views.POLICIES, [await client.policies.get(revision)], style, single=True))


@policy.command(
    "diff",
    examples="""\
  atoll policy diff 1 2
  atoll policy diff 0 2           what is not as it is built in
  atoll policy diff 1 2 -o json
""",
)
@click.argument("before", type=REVISION)
@click.argument("after", type=REVISION)
@output.shown_as()
@connected
async def diff(client: "AsyncClient", before: int, after: int, style: str) -> None:
    """What differs between two revisions, strategy by strategy. One that a revision does not name is as built in."""
    built_in = await client.policies.get(0)
    then = _weights(await client.policies.get(before), built_in)
    now = _weights(await client.policies.get(after), built_in)
    changes = [
        {"strategy": name, "what": what, "before": then.get((name, what)), "after": now.get((name, what))}
        for name, what in sorted({*then, *now})
        if then.get((name, what)) != now.get((name, what))
    ]
    if not output.is_table(style):
        names = [f"strategy/{change['strategy']}" for change in changes]
        output.write(output.documents(changes, style, names=names))
    elif changes:
        rows = [[_cell(one[key]) for key in ("strategy", "what", "before", "after")] for one in changes]
        output.write(output.table(["STRATEGY", "WHAT", str(before), str(after)], rows))
    else:
        output.tell(f"policy {before} and policy {after} weigh alike")


def _weights(
    policy: objects_pb2.SchedulerPolicy, built_in: objects_pb2.SchedulerPolicy
) -> dict[tuple[str, str], Weighed]:
    """By strategy and score; a weight of 0 is none."""
    found: dict[tuple[str, str], Weighed] = {("", "default"): policy.spec.default_strategy}
    strategies = {one.name: one for of in (built_in, policy) for one in of.spec.strategies}
    for strategy in strategies.values():
        found[strategy.name, "decreasing"] = strategy.decreasing
        found.update({(strategy.name, one.score): one.weight for one in strategy.weights if one.weight})
    return found


def _cell(value: Weighed | None) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value).lower()


@policy.command(
    "create",
    examples="""\
  atoll policy create -f policy.yaml
  atoll policy create -f policy.yaml --dry-run
  atoll apply -f policy.yaml      the same
""",
)
@manifests(required=True, help="File, folder, or - for standard input.")
@click.option("--dry-run", is_flag=True, help="Only let the server check it.")
@output.result
@mutation
@connected
async def create(
    client: "AsyncClient", documents: list[manifest.Document], style: str, dry_run: bool, request_id: str
) -> None:
    """Make a revision, unless the newest one says the same. It places nothing before it is promoted."""
    if others := [document.kind for document in documents if document.kind != KIND]:
        raise errors.Invalid(f"a {others[0]} is no policy", hint="atoll apply -f FILE")
    await apply_documents(client, documents, request_id, dry_run, style)


@policy.command(
    "promote",
    examples="""\
  atoll policy promote 2
  atoll policy promote 2 -o json
  atoll policy rollback           undoes it
""",
)
@click.argument("revision", type=REVISION)
@output.result
@mutation
@connected
async def promote(client: "AsyncClient", revision: int, style: str, request_id: str) -> None:
    """Put a revision in force in every region; a canary ends. What runs stays where it is: later decisions change."""
    _show(await client.policies.promote(revision, request_id=request_id), style)


@policy.command(
    "canary",
    examples="""\
  atoll policy canary 2 --region eu-west
  atoll policy promote 2          it did well
  atoll policy rollback           it did not
""",
)
@click.argument("revision", type=REVISION)
@click.option("--region", "regions", multiple=True, required=True, help="Where to try it; may be given again.")
@output.result
@mutation
@connected
async def canary(client: "AsyncClient", revision: int, regions: tuple[str, ...], style: str, request_id: str) -> None:
    """Put a revision in force in some regions only, instead of an earlier canary."""
    _show(await client.policies.promote(revision, regions=regions, request_id=request_id), style)


@policy.command(
    "rollback",
    examples="""\
  atoll policy rollback           end the canary; without one, to the revision before
  atoll policy rollback 1
  atoll policy rollback 0         to the built-in weights
""",
)
@click.argument("revision", type=REVISION, required=False)
@output.result
@mutation
@connected
async def rollback(client: "AsyncClient", revision: int | None, style: str, request_id: str) -> None:
    """End a canary; without one, put the revision in force that was before, or the one that is named."""
    _show(await client.policies.roll_back(revision, request_id=request_id), style)


def _show(answer: global_pb2.ChangePolicyResponse, style: str) -> None:
    force = answer.in_force
    if style == "name":
        trial = f", revision {force.canary_revision} in {', '.join(map(output.visible, force.canary_regions))}"
        everywhere = f"policy revision {force.policy_revision} in force{trial if force.canary_regions else ''}"
        output.write(f"{everywhere}{' (unchanged)' * (answer.outcome == 'unchanged')}\n")
    else:
        output.write(output.documents([manifest.tree(answer)], style, names=[], single=True))
    for name in answer.without_strategy:
        output.tell(f"{output.visible(name)} names a strategy that is gone: the default one places it")
