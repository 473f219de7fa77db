"""Whether services that ask for it would find room again if any one of their regions were lost (N-1).

Decides a verdict for each such service from what is known, and keeps it up to date: `RecoveryFeasible` in its status,
a warning at admission, or a refusal where the spec requires it. For each allowed region X: what would have to leave X,
its own replicas and those of every other such service of its priority or a higher one, against the room in the regions
that are left. Room is what nodes that take work have, headroom included, less what work of its priority or a higher one
asks for, less what other tenants have protected: lower priorities give way. Those who leave X compete: any set of
regions must have room for all who could go nowhere else (Hall's condition), here for the service's own regions, alone
and joined with those of each competitor; who could go to no region at all takes no room. That is by dimension and as if
replicas could be cut; beside it each replica must fit some node. What a cordoned region has stays there when another is
lost. Nothing is reserved by it, and a tenant's quota moves with its work.

Cost: only services that ask for it are looked at, `recovery_batch` at a time, when something they rest on changed.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.lane import Settled
from atoll.model import explain
from atoll.model.accounts import limits, missing
from atoll.model.demand import demand
from atoll.model.resources import NOTHING, Vector, total, vector
from global_cp.config import CoreSettings
from global_cp.core.claims import is_over
from global_cp.core.commands import Command
from global_cp.core.records import Change, Records, share_demand
from global_cp.core.reports import WorkloadPath
from global_cp.core.spread import ACTIVE
from global_cp.core.spread_rules import allowed
from global_cp.core.topics import Proposal

CONDITION = "RecoveryFeasible"
PREFERRED, REQUIRED = objects_pb2.RECOVERY_PREFERRED, objects_pb2.RECOVERY_REQUIRED
ONE_REGION, NODE_TOO_SMALL, NO_ROOM, NO_QUOTA = "OneRegion", "NodeTooSmall", "RoomMissing", "QuotaMissing"

_Summaries = Mapping[str, objects_pb2.RegionSummary]


class Verdict(NamedTuple):
    feasible: bool
    reason: str  # stable, CamelCase
    message: str

    def __str__(self) -> str:
        return f"{self.message} ({self.reason})"


SILENT = Verdict(True, "", "")


class Leaver(NamedTuple):
    """Services that would leave a region together: alike in what decides where they may go."""

    regions: tuple[str, ...]  # allowed, sorted
    priority: int


class Recovery:
    """The topic; it proposes nothing. `touched`: services whose verdict is another one."""

    def __init__(self, records: Records, summaries: _Summaries, settings: CoreSettings) -> None:
        self._records = records
        self._summaries = summaries
        self._settings = settings
        self.touched: dict[WorkloadPath, None] = {}
        self._verdicts: dict[WorkloadPath, Verdict | None] = {}  # of all that ask for one; None: not known
        self._due: dict[WorkloadPath, None] = {}
        self._next_ms = 0
        self._stale = True  # something that any verdict may rest on changed
        self._seen: list[object] = []  # of the summaries, then
        self._leaving: dict[str, dict[Leaver, Vector]] = {}  # by region that would be lost
        self._coming: dict[WorkloadPath, tuple[Leaver, Vector]] = {}  # admitted, and in no region's share yet
        self._claims: dict[tuple[str, int], Mapping[str, Vector]] = {}  # until one changes
        self._floor = max(objects_pb2.Priority.values()) + 1  # the least priority that a verdict was given to
        self._regions: dict[str, objects_pb2.Region] = {}
        self._protecting: list[str] = []

    def read(self, change: Change) -> None:
        match change.after:
            case objects_pb2.Region():
                self._regions = self._known()
            case objects_pb2.Share() as share:
                self._count(share, 1)
            case objects_pb2.Tenant() as tenant if tenant.spec.protected:
                self._protecting.append(tenant.metadata.name)
            case objects_pb2.Workload() as workload if asks(workload):
                self._verdicts[workload.metadata.tenant, workload.metadata.name] = None
                self._note_coming((workload.metadata.tenant, workload.metadata.name))

    # ---- the verdicts kept

    def told(self, path: WorkloadPath) -> Verdict | None:
        """None: it asks for none, or what it rests on is not known. `SILENT`: there is nothing to tell."""
        return self._verdicts.get(path)

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        if self._verdicts and now_ms >= self._next_ms:
            self._next_ms = now_ms + self._settings.recovery_interval_ms
            seen = [
                (name, summary.open_capacity.SerializeToString(), summary.largest_node.SerializeToString())
                for name, summary in sorted(self._summaries.items())
            ]
            if self._stale or seen != self._seen:
                self._stale, self._seen = False, list(seen)
                self._due.update(dict.fromkeys(self._verdicts))
        for path in list(itertools.islice(self._due, self._settings.recovery_batch)):
            del self._due[path]
            workload = self._records.workloads.get(*path)
            verdict = self.verdict(workload) if workload is not None else None
            if path in self._verdicts and verdict != self._verdicts[path]:
                self._verdicts[path] = verdict
                self.touched[path] = None
        return None

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """Nothing is proposed."""

    def changed(self, change: Change, out: list[Command]) -> None:
        match change.kind:
            case "workload":
                path = (change.path[0], change.path[1])
                if isinstance(change.after, objects_pb2.Workload) and asks(change.after):
                    self._verdicts.setdefault(path, None)
                    self._due[path] = None
                elif path in self._verdicts:
                    del self._verdicts[path]
                    self._due.pop(path, None)
                self._note_coming(path)
            case "share":
                self._note_coming((change.path[1], change.path[2]))
                for document, sign in ((change.before, -1), (change.after, 1)):
                    if isinstance(document, objects_pb2.Share) and document.spec.priority >= self._floor:
                        self._rests_on_another()
                    if isinstance(document, objects_pb2.Share):
                        self._count(document, sign)
            case "status":
                before, after = (
                    isinstance(document, objects_pb2.WorkloadStatus) and is_over(document)
                    for document in (change.before, change.after)
                )
                if before != after:
                    self._rests_on_another()
            case "tenant":
                self._protecting = self._protectors()
                self._rests_on_another()
            case "region":
                self._regions = self._known()
                self._count_all()
                for path in list(self._coming):
                    self._note_coming(path)
                self._rests_on_another()

    def deadline(self) -> int | None:
        if not self._verdicts:
            return None
        return 0 if self._due else self._next_ms

    def _rests_on_another(self) -> None:
        self._claims.clear()
        self._stale = True

    def _protectors(self) -> list[str]:
        return [tenant.metadata.name for tenant in self._records.tenants if tenant.spec.protected]

    def _known(self) -> dict[str, objects_pb2.Region]:
        return {region.metadata.name: region for region in self._records.regions}

    def _count_all(self) -> None:
        self._leaving.clear()
        for share in self._records.shares:
            self._count(share, 1)

    def _count(self, share: objects_pb2.Share, sign: int) -> None:
        if share.removed or not _wants(share.spec):
            return
        leaver = self._leaver(share.spec)
        groups = self._leaving.setdefault(share.region, {})
        if left := groups.pop(leaver, NOTHING) + share_demand(share) * sign:
            groups[leaver] = left

    def _note_coming(self, path: WorkloadPath) -> None:
        before = self._coming.pop(path, None)
        workload = self._records.workloads.get(*path)
        if path in self._verdicts and workload is not None:
            shares = [share for share in self._records.shares_of(*path).values() if not share.removed]
            left = demand(workload.spec) - total([share_demand(share) for share in shares])
            if left := left.at_least(NOTHING):
                self._coming[path] = self._leaver(workload.spec), left
        self._stale |= self._coming.get(path) != before

    def _leaver(self, spec: objects_pb2.WorkloadSpec) -> Leaver:
        return Leaver(tuple(sorted(allowed(spec, self._regions))), spec.priority)

    # ---- one verdict

    def verdict(self, workload: objects_pb2.Workload) -> Verdict | None:
        """Of the workload as it is given, stored or not. None: it asks for none, or not enough is known."""
        spec, tenant = workload.spec, self._records.tenants.get(workload.metadata.tenant)
        if not asks(workload):
            return None
        if spec.priority < self._floor:
            self._floor = spec.priority
            self._rests_on_another()
        here = allowed(spec, self._regions)
        if len(here) < 2:
            told = Verdict(False, ONE_REGION, f"it may run in one region only: {''.join(here) or 'none'}")
            return told if _requires(spec) else SILENT
        if not all(self._summary(region).HasField("open_capacity") for region in here if self._takes(region)):
            return None  # a region that takes nothing has no room, whatever it would say
        if tenant is not None and (lacking := missing(demand(spec), demand(spec, firm=True), limits(tenant.spec))):
            return Verdict(False, NO_QUOTA, f"its replicas together ask for {lacking} more than the tenant's quota")
        for lost in here:
            if verdict := self._without(lost, here, workload):
                return verdict
        return Verdict(True, "RoomElsewhere", f"each of {', '.join(here)} may be lost: the others have room for all")

    def _without(self, lost: str, here: Sequence[str], workload: objects_pb2.Workload) -> Verdict | None:
        """Why not all of it could run without this region; None: it could."""
        left = [region for region in here if region != lost and self._takes(region)]
        shares = self._records.shares_of(workload.metadata.tenant, workload.metadata.name)
        kept = [region for region in here if region != lost and self._keeps(region)]
        staying = [share for region, share in shares.items() if region in kept and not share.removed]
        leaving = (demand(workload.spec) - total([share_demand(share) for share in staying])).at_least(NOTHING)
        if not leaving:
            return None
        others = f"the other regions ({', '.join(left)})" if left else "no other region takes work"
        for task in workload.spec.tasks:
            request = vector(task.resources.requests)
            largest = [vector(self._summary(region).largest_node) for region in left]
            if any(largest) and not any(request.fits(node) for node in largest):  # without nodes: there is no room
                message = f"if {lost} is lost, no node in {others} could hold a replica of {task.name} ({request})"
                return Verdict(False, NODE_TOO_SMALL, message)
        own = shares.get(lost)
        missing = self._missing(lost, left, workload, leaving, own if own and not own.removed else None)
        if not missing:
            return None
        most = _size(workload.spec) - sum(_size(share.spec) for share in staying)
        count = max(1, min(_replicas(workload.spec, missing), most))
        what = f"{others} lack {missing}" if left else others
        message = f"if {lost} is lost, {explain.counted(count, 'replica')} would find no room: {what}"
        return Verdict(False, NO_ROOM, message)

    def _missing(
        self,
        lost: str,
        left: Sequence[str],
        workload: objects_pb2.Workload,
        leaving: Vector,
        own: objects_pb2.Share | None,
    ) -> Vector:
        """The most that any set of regions lacks, of what the workload itself asks for."""
        priority, tenant = workload.spec.priority, workload.metadata.tenant
        if any(task.gang for task in workload.spec.tasks):  # whole, in one region
            lacks = [_of(leaving, leaving - self._room(region, priority, tenant)) for region in left]
            return min(lacks, key=sum, default=leaving)
        groups = {key: asked for key, asked in self._leaving.get(lost, {}).items() if key.priority >= priority}
        if own is not None and (mine := self._leaver(own.spec)) in groups:
            groups[mine] -= share_demand(own)
        for path, (key, asked) in self._coming.items():
            if key.priority >= priority and path != (tenant, workload.metadata.name):
                groups[key] = groups.get(key, NOTHING) + asked
        worst = NOTHING
        for together in self._sets(lost, left, groups):
            rivals = [asked for key, asked in groups.items() if (go := self._go(key, lost)) and go <= together]
            need = leaving + total(rivals)
            room = total([self._room(region, priority, tenant) for region in sorted(together)])
            worst = worst.at_least(_of(leaving, need - room))
        return worst

    def _sets(self, lost: str, left: Sequence[str], groups: Collection[Leaver]) -> Iterator[frozenset[str]]:
        base = frozenset(left)
        yield from dict.fromkeys([base, *(base | self._go(key, lost) for key in groups)])

    def _go(self, leaver: Leaver, lost: str) -> frozenset[str]:
        return frozenset(region for region in leaver.regions if region != lost and self._takes(region))

    def _room(self, region: str, priority: int, tenant: str) -> Vector:
        """What work of this priority could have there if all lower ones gave way."""
        claims = self._claims.get((region, priority))
        if claims is None:
            claims = self._claims[region, priority] = self._records.claims.at_least(region, priority)
        kept = [
            (self._records.protected(other, region) - claims.get(other, NOTHING)).at_least(NOTHING)
            for other in self._protecting
            if other != tenant
        ]
        have = vector(self._summary(region).open_capacity)
        return (have - total(claims.values()) - total(kept)).at_least(NOTHING)

    def _summary(self, region: str) -> objects_pb2.RegionSummary:
        return self._summaries.get(region) or _UNKNOWN

    def _takes(self, region: str) -> bool:
        record = self._regions[region]
        return record.state == ACTIVE and not record.cordoned

    def _keeps(self, region: str) -> bool:
        """Whether what it has may stay, though it takes no more."""
        record = self._regions[region]
        return record.state == ACTIVE and not record.draining


_UNKNOWN = objects_pb2.RegionSummary()


def asks(workload: objects_pb2.Workload) -> bool:
    return not workload.metadata.deleted_ms and _wants(workload.spec)


def refused(wanted: objects_pb2.WorkloadSpec, before: objects_pb2.WorkloadSpec | None, verdict: Verdict | None) -> bool:
    """Whether admission says no. Never to a change that asks for no more of the regions than is admitted already."""
    if verdict is None or verdict.feasible or not _requires(wanted):
        return False
    return before is None or not _requires(before) or _more(wanted, before)


def warnings(verdict: Verdict | None) -> list[str]:
    """Of what is admitted."""
    return [str(verdict)] if verdict is not None and not verdict.feasible else []


def _more(wanted: objects_pb2.WorkloadSpec, before: objects_pb2.WorkloadSpec) -> bool:
    if not demand(wanted).fits(demand(before)) or wanted.priority > before.priority:
        return True
    return list(wanted.regions) != list(before.regions) or wanted.spread != before.spread


def _wants(spec: objects_pb2.WorkloadSpec) -> bool:
    if spec.type == objects_pb2.WORKLOAD_TYPE_JOB:
        return False
    if not spec.recovery:
        return spec.priority == objects_pb2.PRIORITY_REAL_TIME
    return spec.recovery in (PREFERRED, REQUIRED)


def _requires(spec: objects_pb2.WorkloadSpec) -> bool:
    return spec.recovery == REQUIRED


def _of(asked: Vector, lacking: Vector) -> Vector:
    """What is lacking, in dimensions in which something is asked for."""
    return Vector(*(max(0, lack) if want else 0 for want, lack in zip(asked, lacking, strict=True)))


def _size(spec: objects_pb2.WorkloadSpec) -> int:
    return sum(task.replicas for task in spec.tasks)


def _replicas(spec: objects_pb2.WorkloadSpec, amount: Vector) -> int:
    """How many replicas at least it takes to ask for so much."""
    each = NOTHING
    for task in spec.tasks:
        each = each.at_least(vector(task.resources.requests))
    return max(-(-part // one) for part, one in zip(amount, each, strict=True) if one)
