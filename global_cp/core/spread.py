"""Which regions run how much of each workload, and when what they ran may be forgotten.

Decides shares (absolute counts per region and task) and writes them; a workload that is being deleted, or a region it
no longer uses, gets a share marked `removed`. A removed share is forgotten only on the region's word that every slot
is closed at that very generation; the workload itself when none of its shares is left (I7, I11).
"""

from collections.abc import Collection, Mapping

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.lane import Settled
from global_cp.core import transactions
from global_cp.core.commands import Command
from global_cp.core.records import Change, Records
from global_cp.core.topics import Proposal

WorkloadPath = tuple[str, str]  # (tenant, name)


def spread(
    spec: objects_pb2.WorkloadSpec, regions: Mapping[str, objects_pb2.Region], current: Collection[str]
) -> dict[str, dict[str, int]]:
    """Region → task → replicas. All replicas go to the first allowed ACTIVE region: in the order the spec prefers, or,
    when any region will do, where the workload already is, else in order of name. Empty: no region can take it."""
    active = [name for name in sorted(regions) if regions[name].state == objects_pb2.REGION_STATE_ACTIVE]
    if spec.regions:
        candidates = [name for name in spec.regions if name in active]
    else:
        candidates = sorted(active, key=lambda name: (name not in current, name))
    return {name: {task.name: task.replicas for task in spec.tasks} for name in candidates[:1]}


def share(workload: objects_pb2.Workload, region: objects_pb2.Region, counts: Mapping[str, int]) -> objects_pb2.Share:
    """What `region` runs of the workload; no counts at all: it is removed there."""
    metadata = workload.metadata
    result = objects_pb2.Share(
        metadata=objects_pb2.Metadata(
            name=metadata.name,
            tenant=metadata.tenant,
            labels=metadata.labels,
            generation=metadata.generation,
            created_ms=metadata.created_ms,
            uid=metadata.uid,
        ),
        region=region.metadata.name,
        epoch=region.epoch,
        spec=workload.spec,
        removed=not counts,
    )
    for task in result.spec.tasks:
        task.replicas = counts.get(task.name, 0)
    return result


class Shares:
    """The topic: workloads whose shares are to be looked at, and the regions that said a share is closed."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._workloads: dict[WorkloadPath, None] = {}
        self._closed: dict[tuple[str, str, str], tuple[str, int]] = {}  # share → (uid, generation)
        self._mark_all()

    def reported(self, region: str, report: regional_pb2.WorkloadReport) -> None:
        share = self._records.shares.get(region, report.tenant, report.workload)
        if report.closed and share is not None and share.removed:
            self._closed[region, report.tenant, report.workload] = (report.uid, report.generation)
            self._workloads[report.tenant, report.workload] = None

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        while self._workloads:
            path = next(iter(self._workloads))
            workload = self._records.workloads.get(*path)
            if workload is not None and (proposal := self._step(workload)):
                return proposal
            del self._workloads[path]
        return None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """Nothing to do: what was rejected is still in the table it was planned from."""

    def changed(self, change: Change, out: list[Command]) -> None:
        match change.kind:
            case "workload":
                self._workloads[change.path[0], change.path[1]] = None
            case "share":
                self._workloads[change.path[1], change.path[2]] = None
                if change.after is None:
                    self._closed.pop((change.path[0], change.path[1], change.path[2]), None)
            case "region":
                self._mark_all()

    def deadline(self) -> int | None:
        return None

    def _mark_all(self) -> None:
        self._workloads.update(dict.fromkeys((path[0], path[1]) for path, _ in self._records.workloads.items()))

    def _step(self, workload: objects_pb2.Workload) -> Proposal | None:
        present = self._records.shares_of(workload.metadata.tenant, workload.metadata.name)
        wanted = self._wanted(workload, present)
        if changed := [share for region, share in sorted(wanted.items()) if present.get(region) != share]:
            return Proposal(transactions.set_share(self._records, workload, changed), None)
        closed = [region for region, share in present.items() if self._is_closed(share)]
        whole = bool(workload.metadata.deleted_ms) and len(closed) == len(present)
        if closed or whole:
            return Proposal(transactions.forget(self._records, workload, closed, whole=whole), None)
        return None

    def _wanted(
        self, workload: objects_pb2.Workload, present: Mapping[str, objects_pb2.Share]
    ) -> dict[str, objects_pb2.Share]:
        regions = {region.metadata.name: region for region in self._records.regions}
        live = [name for name, share in present.items() if not share.removed]
        counts = {} if workload.metadata.deleted_ms else spread(workload.spec, regions, live)
        gone = {name: share for name, share in present.items() if share.removed and name not in counts}
        return gone | {
            name: share(workload, regions[name], counts.get(name, {}))
            for name in {**present, **counts}
            if name not in gone
        }

    def _is_closed(self, share: objects_pb2.Share) -> bool:
        metadata = share.metadata
        said = self._closed.get((share.region, metadata.tenant, metadata.name))
        return share.removed and said == (metadata.uid, metadata.generation)
