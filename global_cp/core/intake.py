"""What is refused though it is valid: more than the quota, where the workload says so, and more than the regions'
queues take. Never a change that asks for no more than before, so whoever wants less is always heard. Parts of the quota
that are protected in regions where the workload may not go are none for it; what others have protected is contention.
What is low and in no gang is measured against quota and burst together, beside what else asks for the quota and gets
it.

A queue is full when more replicas wait in a region than it has told to be its bound. A workload is refused when that
is so in every region it may go to, and its tenant has its share of each: the bound, divided by the tenants that wait
there. So nobody's flood keeps others out. The counts are as old as the last summary, a second, so the bound is overrun
by what comes in that time; what was accepted is never dropped.
"""

from collections.abc import Mapping

from atoll.api.v1 import objects_pb2
from atoll.errors import AtollError, Busy, QuotaExceeded
from atoll.model.accounts import ByAccount, limits
from atoll.model.demand import demand
from atoll.model.resources import NOTHING, Vector, total
from global_cp.core import jobs
from global_cp.core.admission import over_quota
from global_cp.core.records import Records
from global_cp.core.spread_rules import allowed

_Summaries = Mapping[str, objects_pb2.RegionSummary]
_NO_SPEC = objects_pb2.WorkloadSpec()
QUEUES_FULL = "E5012"


def refused(
    records: Records,
    summaries: _Summaries,
    retry_ms: int,
    wanted: objects_pb2.Workload,
    before: objects_pb2.Workload | None,
) -> AtollError | None:
    old = before.spec if before else _NO_SPEC
    return _over_quota(records, wanted, before) or _queues_full(records, summaries, retry_ms, wanted, old)


def _over_quota(
    records: Records, wanted: objects_pb2.Workload, before: objects_pb2.Workload | None
) -> AtollError | None:
    if wanted.spec.on_quota != objects_pb2.ON_QUOTA_REJECT:
        return None
    tenant = wanted.metadata.tenant
    own, own_firm = _needs(records, wanted, changed=True)
    had, had_firm = _needs(records, before) if before else (NOTHING, NOTHING)
    more, more_firm = own - had, own_firm - had_firm
    document = records.tenants.get(tenant)
    if document is None or more.fits(NOTHING):
        return None
    limit = limits(document.spec)
    known = {region.metadata.name: region for region in records.regions}
    here = allowed(wanted.spec, known)
    elsewhere = total([records.protected(tenant, region) for region in known if region not in here])
    firm = records.firm(tenant) + more_firm
    may_burst = records.asked(tenant) + more - firm
    if more_firm.fits(NOTHING):
        firm = firm.at_most(limit.hard)
    missing = _beyond(firm + may_burst, firm, limit)
    missing = missing or _beyond(own, own_firm, limit._replace(hard=limit.hard - elsewhere))
    if not missing:
        return None
    return QuotaExceeded(
        f"tenant {tenant} has too little quota for {wanted.metadata.name}: {missing}",
        hint="ask for less, raise the quota, or say onQuota: queue",
    )


def _needs(records: Records, workload: objects_pb2.Workload, *, changed: bool = False) -> tuple[Vector, Vector]:
    """What it asks for, and the part of it that burst may not pay for. Replicas that have ended ask for nothing; they
    begin anew where their task is another one."""
    status = records.statuses.get(workload.metadata.tenant, workload.metadata.name)
    ended = jobs.ended(workload, status, changed=changed)
    return demand(workload.spec, ended), demand(workload.spec, ended, firm=True)


def _beyond(asked: Vector, firm: Vector, limit: ByAccount) -> str:
    told = "quota and burst" if limit.burst else "quota"
    return over_quota(firm, limit.hard) or over_quota(asked, limit.both, told)


def _queues_full(
    records: Records,
    summaries: _Summaries,
    retry_ms: int,
    wanted: objects_pb2.Workload,
    old: objects_pb2.WorkloadSpec,
) -> AtollError | None:
    if _replicas(wanted.spec) <= _replicas(old):
        return None
    regions = allowed(wanted.spec, {region.metadata.name: region for region in records.regions})
    tenant = wanted.metadata.tenant
    if not regions or not all(region in summaries and is_full(summaries[region], tenant) for region in regions):
        return None
    return Busy(
        f"too many replicas wait in {', '.join(regions)}",
        hint="atoll queue list",
        retry_after_ms=retry_ms,
        code=QUEUES_FULL,
    )


def is_full(summary: objects_pb2.RegionSummary, tenant: str) -> bool:
    """Whether a region's queue takes no more of this tenant."""
    if not 0 < summary.queue_limit <= summary.slots_waiting:
        return False
    own = sum(queue.waiting for queue in summary.queues if queue.tenant == tenant)
    return own >= summary.queue_limit // max(1, len(summary.queues))


def _replicas(spec: objects_pb2.WorkloadSpec) -> int:
    return sum(task.replicas for task in spec.tasks)
