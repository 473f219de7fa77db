"""What users and programs read: pure functions over the leader's records.

Documents are copies with what is filled when read: revisions, status, summaries. Leaves to others: who may see what.
"""

from collections.abc import Sequence

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.model.accounts import summed
from atoll.model.selectors import matches
from atoll.store import keys
from global_cp.core.budgets import granted, used_in
from global_cp.core.commands import Publish
from global_cp.core.purse import purse
from global_cp.core.records import Change, Records


def workload(records: Records, tenant: str, name: str) -> objects_pb2.Workload | None:
    stored = records.workloads.get(tenant, name)
    return _filled(records, stored) if stored else None


def workloads(
    records: Records,
    tenant: str,
    selector: Sequence[objects_pb2.LabelRequirement] = (),
    after: tuple[str, str] = ("", ""),
    limit: int = 0,
) -> list[objects_pb2.Workload]:
    """In order of tenant and name, from behind `after`, at most `limit` (0 = all). Empty `tenant`: every tenant's."""
    found: list[objects_pb2.Workload] = []
    for path, document in records.workloads.items():
        if (path[0], path[1]) <= after or tenant not in ("", path[0]):
            continue
        labels = {label.key: label.value for label in document.metadata.labels}
        if all(matches(requirement, labels) for requirement in selector):
            found.append(_filled(records, document))
            if len(found) == limit:
                break
    return found


def tenant(records: Records, name: str) -> objects_pb2.Tenant | None:
    stored = records.tenants.get(name)
    if stored is None:
        return None
    document = objects_pb2.Tenant()
    document.CopyFrom(stored)
    document.metadata.revision = records.mod(keys.tenant(name))
    money = purse(records.budgets.get(name))
    slices = records.slices_of(name)
    acks = [ack for region in slices if (ack := records.acks.get(region, name))]
    used, out = summed(map(used_in, acks)), summed(map(granted, slices.values()))
    document.status.CopyFrom(
        objects_pb2.TenantStatus(
            effective=money.effective.hard.to_proto(),
            granted=out.hard.to_proto(),
            used=used.hard.to_proto(),
            converging=not money.effective.fits(money.target),
            burst=objects_pb2.BurstStatus(
                limit=money.target.burst.to_proto(),
                effective=money.effective.burst.to_proto(),
                granted=out.burst.to_proto(),
                used=used.burst.to_proto(),
            ),
        )
    )
    return document


def region(
    records: Records, name: str, summary: objects_pb2.RegionSummary | None, connected: bool
) -> objects_pb2.Region | None:
    stored = records.regions.get(name)
    if stored is None:
        return None
    document = objects_pb2.Region()
    document.CopyFrom(stored)
    document.metadata.revision = records.mod(keys.region(name))
    document.connected = connected
    if summary is not None:
        document.summary.CopyFrom(summary)
    return document


def regions_holding(records: Records, tenant_name: str, workload_name: str) -> list[str]:
    """The regions that have a share of the workload, or (no name) of any workload of the tenant."""
    if workload_name:
        return list(records.shares_of(tenant_name, workload_name))
    return sorted({path[0] for path, _ in records.shares.items() if path[1] == tenant_name})


def workload_events(records: Records, changes: Sequence[Change], revision: int) -> list[Publish]:
    """One event for each workload whose document or status changed in one commit."""
    touched: dict[tuple[str, str], Change] = {}
    for change in changes:
        if change.kind in ("workload", "status"):
            path = (change.path[0], change.path[1])
            if path not in touched or change.kind == "workload":
                touched[path] = change
    return [_event(records, path, change, revision) for path, change in touched.items()]


def _event(records: Records, path: tuple[str, str], change: Change, revision: int) -> Publish:
    event = global_pb2.WorkloadEvent(type=global_pb2.EVENT_TYPE_CHANGED, revision=revision)
    if stored := records.workloads.get(*path):
        _fill(event.workload, records, stored)
    else:
        event.type = global_pb2.EVENT_TYPE_DELETED
        if isinstance(change.before, objects_pb2.Workload):
            event.workload.CopyFrom(change.before)
    return Publish(event)


def _filled(records: Records, stored: objects_pb2.Workload) -> objects_pb2.Workload:
    document = objects_pb2.Workload()
    _fill(document, records, stored)
    return document


def _fill(document: objects_pb2.Workload, records: Records, stored: objects_pb2.Workload) -> None:
    document.CopyFrom(stored)
    metadata = document.metadata
    metadata.revision = records.mod(keys.workload(metadata.tenant, metadata.name))
    if status := records.statuses.get(metadata.tenant, metadata.name):
        document.status.CopyFrom(status)
