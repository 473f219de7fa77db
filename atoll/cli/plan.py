"""`plan`: what `apply` would change, and whether there is room for it. Changes nothing."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import output
from atoll.cli.command import Command
from atoll.cli.failure import EXIT_CHANGES
from atoll.cli.session import connected
from atoll.cli.top import demand
from atoll.cli.workloads import located, manifests, try_workloads
from atoll.model import gpu_models
from atoll.model.accounts import limits, missing
from atoll.model.resources import total, vector

if TYPE_CHECKING:
    from atoll.sdk.client import AsyncClient

SIGNS = {"created": "+", "updated": "~", "unchanged": "="}
Planned = tuple[str, str, str, list[str]]  # kind, name, outcome, what differs
TO_PROCESS, TO_CONTAINER = "driver: docker → process", "driver: process → docker"


@click.command(
    cls=Command,
    examples="""\
  atoll plan -f hello.yaml
  atoll plan -f deploy/ -o json
  atoll plan -f deploy/ && echo nothing to do
""",
)
@manifests(required=True, help="File, folder, or - for standard input.")
@output.shown_as()
@connected
async def plan(client: "AsyncClient", documents: list[manifest.Document], style: str) -> None:
    """What apply would create or change, line by line, checked by the server; and what would wait for quota or for a
    node that is large enough. Exit code 0: nothing would change; 9: something would."""
    planned: list[Planned] = []
    after: list[objects_pb2.Workload] = []
    tenants: dict[str, objects_pb2.Tenant] = {}
    warnings: list[str] = []
    if len(documents) > 1:
        await try_workloads(client, documents)
    for document in sorted(documents, key=lambda document: document.kind != "Tenant"):
        with located(document):
            if isinstance(document.message, objects_pb2.Workload):
                planned.append(await _plan_workload(client, document.message, after, tenants, warnings))
            elif isinstance(document.message, objects_pb2.Tenant):
                planned.append(await _plan_tenant(client, document.message, tenants))
            elif isinstance(document.message, objects_pb2.SchedulerPolicy):
                planned.append(await _plan_policy(client, document.message))
    notes = [*_driver_notes(planned), *await _quota_notes(client, after, tenants), *await _room_notes(client, after)]
    notes += warnings
    if output.is_table(style):
        for kind, name, outcome, lines in planned:
            output.write(f"{SIGNS[outcome]} {kind.lower()}/{output.visible(name)} {outcome}\n")
            output.write("".join(f"    {output.visible(line)}\n" for line in lines))
        output.write("".join(f"! {output.visible(note)}\n" for note in notes))
    else:
        changes = [dict(zip(("kind", "name", "outcome", "changes"), one, strict=True)) for one in planned]
        names = [f"{kind.lower()}/{name}" for kind, name, _, _ in planned]
        output.write(output.documents([{"plan": changes, "notes": notes}], style, names=names, single=True))
    if any(outcome != "unchanged" for _, _, outcome, _ in planned):
        sys.exit(EXIT_CHANGES)


async def _plan_workload(
    client: "AsyncClient",
    wanted: objects_pb2.Workload,
    after: list[objects_pb2.Workload],
    tenants: dict[str, objects_pb2.Tenant],
    warnings: list[str],
) -> Planned:
    name, tenant = wanted.metadata.name, wanted.metadata.tenant or client.connection.tenant
    if tenant in tenants and not tenants[tenant].metadata.uid:  # planned here too: the server does not know it yet
        return "Workload", name, "created", [f"checked when tenant {tenant} is there"]
    answer = await client.workloads.apply(wanted, dry_run=True)
    warnings += [f"{name}: {warning}" for warning in answer.warnings]
    try:
        before: Any = await client.workloads.get(name, tenant=tenant)
    except errors.NotFound:
        before = None
    after.append(before if before and answer.outcome == "unchanged" else answer.workload)  # with what has ended
    return "Workload", name, answer.outcome, _differences("Workload", before, answer.workload)


async def _plan_tenant(
    client: "AsyncClient", wanted: objects_pb2.Tenant, tenants: dict[str, objects_pb2.Tenant]
) -> Planned:
    name = wanted.metadata.name
    answer = await client.tenants.apply(wanted, dry_run=True)
    tenants[name] = answer.tenant
    try:
        before: Any = await client.tenants.get(name)
    except errors.NotFound:
        before = None
        tenants[name].metadata.uid = ""
    return "Tenant", name, answer.outcome, _differences("Tenant", before, answer.tenant)


async def _plan_policy(client: "AsyncClient", wanted: objects_pb2.SchedulerPolicy) -> Planned:
    """What differs from the newest revision."""
    answer = await client.policies.apply(wanted, dry_run=True)
    newest = (await client.policies.list()).policies[-1]
    before = newest if newest.metadata.generation else None
    name = f"{wanted.metadata.name}, revision {answer.policy.metadata.generation}"
    return "SchedulerPolicy", name, answer.outcome, _differences("SchedulerPolicy", before, answer.policy)


def _differences(kind: str, before: Any, after: Any) -> list[str]:
    """`spec.tasks[0].replicas: 2 → 3`, of what users write; nothing for a document that is new."""
    if before is None:
        return []
    old, new = (dict(_leaves(_written(manifest.tree(message, kind)), "")) for message in (before, after))
    paths = [*old, *(path for path in new if path not in old)]
    return [
        f"{path}: {_shown(old.get(path))} → {_shown(new.get(path))}" for path in paths if old.get(path) != new.get(path)
    ]


def _written(tree: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in tree.get("metadata", {}).items() if key in ("labels", "annotations")}
    return {"metadata": metadata, "spec": tree.get("spec", {})}


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _driver_notes(planned: list[Planned]) -> list[str]:
    """What changes between containers and processes: by an image that a manifest does or does not name."""
    notes = []
    for change, text in (
        (TO_PROCESS, "run as containers and would run as processes: their manifests name no image"),
        (TO_CONTAINER, "run as processes and would run as containers: their manifests name an image"),
    ):
        names = [name for _, name, _, lines in planned if any(line.endswith(change) for line in lines)]
        if names:
            notes.append(f"driver: {', '.join(names)} {text}; every replica is replaced")
    return notes


async def _quota_notes(
    client: "AsyncClient", after: list[objects_pb2.Workload], tenants: dict[str, objects_pb2.Tenant]
) -> list[str]:
    """What would wait because the tenant asks for more than its quota."""
    notes = []
    for tenant in sorted({workload.metadata.tenant for workload in after}):
        spec = (tenants.get(tenant) or await client.tenants.get(tenant)).spec
        mine = {w.metadata.name: w for w in await client.workloads.list(tenant=tenant)}
        mine |= {w.metadata.name: w for w in after if w.metadata.tenant == tenant}
        asked = total([demand(workload) for workload in mine.values()])
        firm = total([demand(workload, firm=True) for workload in mine.values()])
        if lacking := missing(asked, firm, limits(spec)):
            notes.append(f"quota: tenant {tenant} would ask for {lacking} more than it has; some replicas would wait")
    return notes


async def _room_notes(client: "AsyncClient", after: list[objects_pb2.Workload]) -> list[str]:
    """Tasks whose replica no node could hold of the regions they may run in, as far as regions have told. Where all
    have, the server refuses it."""
    notes = []
    regions = {region.metadata.name: region.summary for region in await client.regions.list()}
    for workload in after:
        named = [name for name in workload.spec.regions or regions if name in regions]
        known = {name: regions[name] for name in named if vector(regions[name].largest_node)}
        for task in workload.spec.tasks:
            request = vector(task.resources.requests)
            fitting = [summary for summary in known.values() if request.fits(vector(summary.largest_node))]
            if known and not fitting:
                notes.append(
                    f"room: no node of {', '.join(sorted(known))} is as large as a replica of "
                    f"{workload.metadata.name}/{task.name} ({request}); it would wait"
                )
            elif known and not any(gpu_models.may_hold(task, summary) for summary in fitting):
                notes.append(
                    f"room: no node of {', '.join(sorted(known))} has {gpu_models.asked_text(task)} for a replica of "
                    f"{workload.metadata.name}/{task.name}; it would wait"
                )
    return notes
