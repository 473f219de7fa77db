"""Which regions are told to run how much of each workload, and when what they ran may be forgotten.

Decides shares (absolute counts per region and task) and writes them: spread.py says where replicas should run, moves.py
which step towards that is safe now, parallelism.py how many of them at once. The plan is kept in the shares themselves,
so that a move goes on after a takeover.
A workload that is being deleted, or a region it no longer uses, gets a share marked `removed`. A removed share is
forgotten only on the region's word that every slot is closed at that very generation; the workload itself when none of
its shares is left (I7, I11). A region that is not connected keeps its shares.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.lane import Plan, Settled
from atoll.model.resources import NOTHING, Vector, total, vector
from atoll.store import keys
from global_cp.config import CoreSettings
from global_cp.core import gang_regions, jobs, moves, parallelism, policies, spread, transactions
from global_cp.core.bundles import MOST_PLANS, Bundle
from global_cp.core.commands import Command
from global_cp.core.jobs import Opening
from global_cp.core.overflow import Live, Overflow
from global_cp.core.parallelism import Part
from global_cp.core.purse import purse
from global_cp.core.records import Change, Records
from global_cp.core.reports import Reports, WorkloadPath
from global_cp.core.rooms import Rooms
from global_cp.core.rounds import Rounds
from global_cp.core.topics import Proposal

_STRIDES = 4  # in so many steps a task moves that has no quota to spare
Counts = dict[str, dict[str, int]]  # region → task → replicas


class Step(NamedTuple):
    """What is to be done for a workload. `fresh`: the first shares that it gets."""

    plan: Plan
    fresh: tuple[objects_pb2.Share, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """By region and task: what it is told next, and the plan that leads to; only regions that have or get any. `parts`
    of a parallelism, also where something is only held still; `stopped`: tasks that are over."""

    told: Counts = field(default_factory=dict)
    plan: Counts = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Part]] = field(default_factory=dict)
    stopped: tuple[str, ...] = ()
    preempts: str = ""  # the one region that may preempt for it


def share(workload: objects_pb2.Workload, region: objects_pb2.Region, wanted: Wanted) -> objects_pb2.Share:
    """What `region` runs of the workload, and where a move leads; nothing at all: it is removed there."""
    name = region.metadata.name
    told, plan, parts = wanted.told.get(name, {}), wanted.plan.get(name, {}), wanted.parts.get(name, {})
    metadata = workload.metadata
    result = objects_pb2.Share(region=name, epoch=region.epoch, removed=not told, preempts=name == wanted.preempts)
    of = result.metadata
    of.name, of.tenant, of.uid = metadata.name, metadata.tenant, metadata.uid
    of.generation, of.created_ms = metadata.generation, metadata.created_ms
    of.labels.extend(metadata.labels)
    result.spec.CopyFrom(workload.spec)
    for task in result.spec.tasks:
        task.replicas = told.get(task.name, 0)
    if told != plan:
        result.targets.extend(objects_pb2.TaskTarget(task=name, replicas=plan[name]) for name in sorted(plan))
    result.parallel.extend(parallelism.stored(parts))
    if told:
        result.stopped.extend(wanted.stopped)
    return result


def planned(share: objects_pb2.Share, task: str) -> int:
    """Where the last plan wanted the share's task."""
    if share.targets:
        return next((target.replicas for target in share.targets if target.task == task), 0)
    return _told(share, task)


def _told(share: objects_pb2.Share, task: str) -> int:
    return next((each.replicas for each in share.spec.tasks if each.name == task), 0)


class Shares:
    """The topic: workloads whose shares are to be looked at, and the regions that said a share is closed."""

    def __init__(self, records: Records, settings: CoreSettings, reports: Reports, rooms: Rooms) -> None:
        self._records = records
        self._settings = settings
        self._reports = reports
        self._rooms = rooms
        self._overflow = Overflow(records, settings, reports, rooms)
        self._rounds = Rounds(settings.overflow_settle_ms, settings.looks_at_once)
        self._workloads: dict[WorkloadPath, None] = {}
        self._moving: dict[WorkloadPath, dict[str, moves.Stride]] = {}  # of its tasks that move without quota
        self._closed: dict[tuple[str, str, str], tuple[str, int]] = {}  # share → (uid, generation)
        self._goes_on = False  # more than may be looked at before other events are handled

    def read(self, change: Change) -> None:
        self.changed(change, [])

    def reported(self, region: str, report: regional_pb2.WorkloadReport) -> None:
        share = self._records.shares.get(region, report.tenant, report.workload)
        path = (report.tenant, report.workload)
        if report.closed and share is not None and share.removed:
            self._closed[region, report.tenant, report.workload] = (report.uid, report.generation)
            self._workloads[path] = None
        elif any(share.targets or share.parallel or share.stopped for share in self._records.shares_of(*path).values()):
            self._workloads[path] = None  # a move under way may go on, or a part of a parallelism is free

    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        self._overflow.expire(now_ms, self._settings.looks_at_once)
        self._look_again(now_ms)
        for path in list(itertools.islice(self._workloads, self._settings.looks_at_once)):
            workload = self._records.workloads.get(*path)
            if workload is not None and (step := self._step(workload, now_ms)):
                return self._with_others(step, now_ms) if step.fresh else Proposal(step.plan, ())
            del self._workloads[path]
        self._goes_on = bool(self._workloads) or self._rounds.goes_on
        return None

    def _look_again(self, now_ms: int) -> None:
        """At what time alone may change: what waits for room, and moves that wait for the quota they hold."""
        if not self._rounds.is_due(now_ms):
            return
        unplaced = self._reports.with_unplaced()
        for path in self._rounds.turns(now_ms, self._moving, unplaced):
            if path in self._moving:
                due = path in unplaced or _is_short(self._spare(path[0]))
            else:
                due = self._overflow.may_move(path, now_ms)
            if due:
                self._workloads[path] = None

    def _with_others(self, first: Step, now_ms: int) -> Proposal:
        """The first shares of other workloads too: no move depends on them. Each sees the room that those before it
        leave."""
        bundle, fresh = Bundle(first.plan), list(first.fresh)
        self._rooms.promised(first.fresh)
        for path in itertools.islice(self._workloads, 1, MOST_PLANS):
            workload = self._records.workloads.get(*path)
            if workload is None or self._records.shares_of(*path):
                continue
            step = self._step(workload, now_ms)
            if step is not None and step.fresh and bundle.takes(step.plan):
                self._rooms.promised(step.fresh)
                fresh += step.fresh
        return Proposal(bundle.plan(), tuple(fresh))

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """What was rejected is still in the table it was planned from."""
        assert isinstance(item, tuple)
        self._rooms.settled(item)

    def changed(self, change: Change, out: list[Command]) -> None:
        match change.kind:
            case "workload":
                self._workloads[change.path[0], change.path[1]] = None
                if change.after is None:
                    self._overflow.forget((change.path[0], change.path[1]))
            case "share":
                self._workloads[change.path[1], change.path[2]] = None
                self._note_move((change.path[1], change.path[2]))
                if not isinstance(change.after, objects_pb2.Share) or not change.after.removed:
                    self._closed.pop((change.path[0], change.path[1], change.path[2]), None)
            case "status" if isinstance(change.after, objects_pb2.WorkloadStatus) and change.after.HasField("job"):
                self._workloads[change.path[0], change.path[1]] = None  # another task may be opened, or is over
            case "region":
                self._mark_all()

    def deadline(self) -> int | None:
        if self._goes_on:
            return 0
        return self._rounds.next_ms if self._moving or self._reports.with_unplaced() else None

    def _note_move(self, path: WorkloadPath) -> None:
        if any(share.targets for share in self._records.shares_of(*path).values()):
            self._moving.setdefault(path, {})
        else:
            self._moving.pop(path, None)

    def _mark_all(self) -> None:
        self._workloads.update(dict.fromkeys((path[0], path[1]) for path, _ in self._records.workloads.items()))

    def _step(self, workload: objects_pb2.Workload, now_ms: int) -> Step | None:
        present = self._records.shares_of(workload.metadata.tenant, workload.metadata.name)
        wanted = self._wanted(workload, present, now_ms)
        if changed := [share for region, share in sorted(wanted.items()) if present.get(region) != share]:
            return Step(transactions.set_share(self._records, workload, changed), () if present else tuple(changed))
        closed = [region for region, share in present.items() if self._is_closed(share)]
        whole = bool(workload.metadata.deleted_ms) and len(closed) == len(present)
        if closed or whole:
            return Step(transactions.forget(self._records, workload, closed, whole=whole))
        return None

    def _wanted(
        self, workload: objects_pb2.Workload, present: Mapping[str, objects_pb2.Share], now_ms: int
    ) -> dict[str, objects_pb2.Share]:
        live = {name: told for name, told in present.items() if not told.removed}
        nothing = workload.metadata.deleted_ms or workload.spec.HasField("schedule")
        wanted = Wanted() if nothing else self._counts(workload, live, now_ms)
        gone = {name: told for name, told in present.items() if told.removed and name not in wanted.told}
        holder = [name for name, told in present.items() if told.preempts] or list(wanted.told)
        parts = self._parts(workload, wanted.told, present)
        wanted = replace(wanted, preempts=holder[0] if holder else "", parts=parts)
        return gone | {
            name: self._share(workload, name, wanted) for name in {**present, **wanted.told} if name not in gone
        }

    def _share(self, workload: objects_pb2.Workload, region: str, wanted: Wanted) -> objects_pb2.Share:
        result = share(workload, self._region(region), wanted)
        policies.stamp(self._records, self._settings.default_strategy, result)
        return result

    def _region(self, name: str) -> objects_pb2.Region:
        return self._records.regions.get(name) or objects_pb2.Region(metadata=objects_pb2.Metadata(name=name))

    def _counts(self, workload: objects_pb2.Workload, live: Live, now_ms: int) -> Wanted:
        spec = workload.spec
        regions = {path[0]: region for path, region in self._records.regions.items()}
        at = spread.places(spec, regions, list(live))
        told: Counts = {place.region: {} for place in at}
        plan: Counts = {place.region: {} for place in at}
        path = (workload.metadata.tenant, workload.metadata.name)
        spare, taken = self._spare(path[0]), dict.fromkeys(told, NOTHING)
        openings = self._openings(workload, now_ms)
        home = self._home(workload, at, live, now_ms) if any(task.gang for task in spec.tasks) else None
        for task in spec.tasks:
            request = vector(task.resources.requests)
            before = {name: planned(share, task.name) for name, share in live.items()}
            standing = self._standing(task.name, live, before)
            opening = openings.get(task.name, Opening.OPEN)
            if opening is Opening.OPEN and home is not None:
                next_ = wanted = {place.region: task.replicas * (place.region == home) for place in at}
            elif opening is Opening.OPEN:
                outlook = self._overflow.outlook(path, task.name, request, live, taken, now_ms)
                wanted = spread.plan(_asked(spec, task, live), at, before, outlook)
                if spec.type == jobs.JOB:
                    wanted = jobs.settled(wanted, self._placed(task.name, live), task.replicas)
                next_ = self._next(workload, task, standing, wanted, spare, now_ms)
            else:
                ended = self._ended(task.name, live) if opening is Opening.STOPPED else {}
                next_ = wanted = {place.region: ended.get(place.region, 0) for place in at}
            spare -= request * max(0, sum(next_.values()) - sum(standing.told.values()))
            for name in told:
                plan[name][task.name], told[name][task.name] = wanted[name], next_[name]
                taken[name] += request * max(0, wanted[name] - before.get(name, 0))
        used = [name for name in told if any(told[name].values()) or any(plan[name].values())]
        used = used or [place.region for place in at if place.region in live or place.takes][:1]
        return Wanted(
            told={name: told[name] for name in used},
            plan={name: plan[name] for name in used},
            stopped=tuple(sorted(name for name, opening in openings.items() if opening is Opening.STOPPED)),
        )

    def _next(
        self,
        workload: objects_pb2.Workload,
        task: objects_pb2.Task,
        standing: moves.Standing,
        wanted: dict[str, int],
        spare: Vector,
        now_ms: int,
    ) -> dict[str, int]:
        """What the regions are told next of the task. A move that waits for the quota it holds itself gives up a
        stride, and the next one when as many are ready as were, or others have had that quota for a while."""
        request, stride = vector(task.resources.requests), max(1, task.replicas // _STRIDES)
        next_ = moves.step(standing, wanted, _fitting(spare, request), stride)
        strides = self._moving.get((workload.metadata.tenant, workload.metadata.name))
        if strides is None or not _is_short(spare) or any(next_[name] != standing.told.get(name, 0) for name in next_):
            return next_
        ready, last = sum(standing.ready.values()), strides.get(task.name)
        if last is not None and ready < last.ready and now_ms < last.at_ms + self._settings.move_patience_ms:
            return next_
        further = moves.unpaid_step(standing, wanted, stride)
        if further != next_:
            strides[task.name] = moves.Stride(ready, now_ms)
        return further

    def _home(self, workload: objects_pb2.Workload, at: Sequence[spread.Place], live: Live, now_ms: int) -> str:
        """The region of a workload that has a gang."""
        path = (workload.metadata.tenant, workload.metadata.name)
        members = [task for task in workload.spec.tasks if task.gang]
        told = {name: sum(_told(share, task.name) for task in members) for name, share in live.items()}
        taken = {place.region: NOTHING for place in at}
        outlooks = [
            self._overflow.outlook(path, task.name, vector(task.resources.requests), live, taken, now_ms)
            for task in members
        ]
        return gang_regions.home(at, told, [task.replicas for task in members], outlooks)

    def _openings(self, workload: objects_pb2.Workload, now_ms: int) -> Mapping[str, Opening]:
        """Of a job's tasks, by its status as stored."""
        if workload.spec.type != jobs.JOB:
            return {}
        status = self._records.statuses.get(workload.metadata.tenant, workload.metadata.name)
        return jobs.openings(workload, status.job if status else jobs.NO_STATUS, now_ms)

    def _placed(self, task: str, live: Live) -> dict[str, int]:
        """How many of a job's replicas have a node or have ended in each region: all, until it says that some wait."""
        found = {}
        for name, share in live.items():
            report = self._reports.of_task(share, task)
            found[name] = _told(share, task) - (report.waiting if report else 0)
        return found

    def _ended(self, task: str, live: Live) -> dict[str, int]:
        """How many of a task's replicas have ended in each region, as far as it has said; no more than it was told."""
        found = {name: _told(share, task) for name, share in live.items()}
        for name, share in live.items():
            report = self._reports.of((share.metadata.tenant, share.metadata.name)).get(name)
            if report is not None and (report.uid, report.generation) == (
                share.metadata.uid,
                share.metadata.generation,
            ):
                ended = sum(each.ended for each in report.tasks if each.task == task)
                found[name] = min(found[name], ended)
        return found

    def _parts(self, workload: objects_pb2.Workload, told: Counts, present: Live) -> dict[str, dict[str, Part]]:
        """By region and task; also of regions and tasks that only hold something still."""
        at_once = {task.name: task.parallelism for task in workload.spec.tasks}
        held = (part.task for share in present.values() for part in share.parallel)
        found: dict[str, dict[str, Part]] = {}
        for task in dict.fromkeys([*at_once, *held]):
            if not at_once.get(task, 1):
                continue
            counts = {name: tasks[task] for name, tasks in told.items()} if task in at_once else {}
            wanted = parallelism.parts(at_once.get(task, 0), counts, self._over(workload, task, present, counts))
            now = {name: self._part(share, task) for name, share in present.items()}
            for name, part in parallelism.step(at_once.get(task, 0), wanted, now).items():
                found.setdefault(name, {})[task] = part
        return found

    def _part(self, share: objects_pb2.Share, task: str) -> Part:
        metadata = share.metadata
        revision = self._records.mod(keys.share(share.region, metadata.tenant, metadata.name))
        return parallelism.standing(share, task, self._reports.surplus(share, revision, task))

    def _over(self, workload: objects_pb2.Workload, task: str, shares: Live, told: Mapping[str, int]) -> list[str]:
        """The regions where all that they were told to run of the task as it is has ended."""
        same = [name for name, share in shares.items() if share.metadata.generation == workload.metadata.generation]
        said = {name: self._reports.of_task(shares[name], task) for name in same}
        return [name for name, report in said.items() if report and report.ended >= told.get(name, 0)]

    def _standing(self, task: str, live: Live, before: Mapping[str, int]) -> moves.Standing:
        said = {name: self._reports.of_task(share, task) for name, share in live.items()}
        return moves.Standing(
            told={name: _told(share, task) for name, share in live.items()},
            ready={name: report.healthy for name, report in said.items() if report},
            waiting={name: report.waiting for name, report in said.items() if report},
            planned=before,
            unpaid={name: report.unpaid for name, report in said.items() if report},
        )

    def _spare(self, tenant: str) -> Vector:
        """What of the tenant's quota no share asks for, no region protects and no zombie holds."""
        records = self._records
        regions = records.region_names()
        needed = [records.needed(tenant, name).at_least(records.protected(tenant, name)) for name in regions]
        zombies = [records.zombie(tenant, name).hard for name in regions]
        return records.budgets.meaning(purse, tenant).target.hard - total(needed) - total(zombies)

    def _is_closed(self, share: objects_pb2.Share) -> bool:
        metadata = share.metadata
        said = self._closed.get((share.region, metadata.tenant, metadata.name))
        return share.removed and said == (metadata.uid, metadata.generation)


def _asked(spec: objects_pb2.WorkloadSpec, task: objects_pb2.Task, live: Live) -> spread.Task:
    return spread.Task(
        replicas=task.replicas,
        strategy=spec.spread.strategy,
        fixed={count.region: count.replicas for count in spec.spread.fixed},
        anew=any(share.spec.regions != spec.regions or share.spec.spread != spec.spread for share in live.values()),
    )


def _is_short(spare: Vector) -> bool:
    """More is asked for than the quota pays for."""
    return any(amount < 0 for amount in spare)


def _fitting(spare: Vector, request: Vector) -> int:
    """How many replicas fit into what is spare."""
    parts = [have // each for have, each in zip(spare.amounts(), request.amounts(), strict=True) if each]
    return max(0, min(parts, default=0))
