"""Jobs of a trace, replayed in virtual time through the production queue and the production placement.

What a region decides with is real: the order (`regional.core.queue`: bands with ageing, weighted dominant shares, least
slack, turns for what is overdue), the node table, filters and scores. Around it there is nothing: a job that is placed
starts at once and ends when its time is over. What it is measured against is `first_come`: one thread that takes jobs
in the order they came, puts the first one on the first node with room, and waits when there is none.
"""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.config import CoreSettings
from regional.core.class_row import ClassRow
from regional.core.filters import Cure, Request
from regional.core.node_table import NodeTable
from regional.core.queue import NEVER_MS, Queue, SchedulingClass

_RESOURCES, _QUOTA = frozenset({Cure.RESOURCES}), frozenset({Cure.QUOTA})


@dataclass(frozen=True, slots=True)
class Job:
    name: str
    tenant: str
    arrival_ms: int
    run_ms: int
    request: Vector
    deadline_ms: int = 0  # 0 = none
    estimate_ms: int = 0
    priority: objects_pb2.Priority.ValueType = objects_pb2.PRIORITY_DEFAULT


@dataclass(slots=True)
class Ran:
    """When a job ran; 0 = not yet."""

    job: Job
    started_ms: int = 0
    ended_ms: int = 0

    @property
    def in_time(self) -> bool:
        return 0 < self.ended_ms <= (self.job.deadline_ms or NEVER_MS)

    @property
    def waited_ms(self) -> int:
        return self.started_ms - self.job.arrival_ms


@dataclass(frozen=True, slots=True)
class Tenant:
    weight: float = 1.0
    quota: Vector | None = None


EQUAL = Tenant()


class Scheduler:
    """What one region decides with. All in virtual time; nothing fails. Tenants that are not named are `EQUAL`."""

    def __init__(
        self, nodes: Sequence[Vector], settings: CoreSettings, strategy: str = "", tenants: Mapping[str, Tenant] = {}
    ) -> None:
        self._table = NodeTable()
        self._queue = Queue(settings.ageing_ms, settings.overdue_turn)
        self._strategy, self._tenants = strategy, tenants
        self._rows: dict[Request, ClassRow] = {}
        self._jobs: dict[SchedulingClass, Job] = {}
        self._held: defaultdict[str, Vector] = defaultdict(Vector)
        self._freed: set[str] = set()  # tenants of which work has ended
        for number, capacity in enumerate(nodes):
            row = self._table.add(f"n{number:04d}")
            self._table.describe(row, capacity, {}, (), False)
            self._table.set_ready(row, True)
        self._total = self._table.total.tolist()

    def _row(self, request: Request) -> ClassRow:
        row = self._rows.get(request)
        if row is None:
            row = self._rows[request] = ClassRow(self._table, request)
        row.refresh({})
        return row

    def submit(self, job: Job, now_ms: int = 0) -> None:
        latest_ms = job.deadline_ms - job.estimate_ms if job.deadline_ms else NEVER_MS
        request = Request(job.request, strategy=self._strategy)
        cls = SchedulingClass(job.tenant, job.name, "main", job.priority, request, latest_ms)
        self._jobs[cls] = job
        self._queue.put(cls, (0,), max(job.arrival_ms, now_ms))

    def end(self, job: Job, row: int) -> None:
        self._table.credit(row, job.request)
        self._held[job.tenant] -= job.request
        self._freed.add(job.tenant)

    def place(self, now_ms: int) -> list[tuple[Job, int]]:
        """All that can start now, in the queue's order, with the rows it got."""
        queue, placed = self._queue, []
        for tenant in sorted(self._freed):
            queue.parking.happened(Cure.QUOTA, tenant)
        if self._freed:
            queue.parking.happened(Cure.RESOURCES)
        queue.wake(lambda cure, cls: len(queue.parked), len(queue.parked), now_ms)
        self._freed.clear()
        queue.age(now_ms)
        while cls := queue.pick(self._share):
            if not self._affordable(cls):
                queue.park(cls, _QUOTA, ())
                continue
            row = self._row(cls.request)
            if not row.feasible_count:
                if len(self._rows) == 1:
                    break  # all ask alike: nobody else fits either
                queue.park(cls, _RESOURCES, ())
                continue
            at = int(row.best(row.rank, 1)[0])
            cls.take(1)
            job = self._jobs.pop(cls)
            self._table.charge(at, job.request)
            self._held[job.tenant] += job.request
            placed.append((job, at))
        return placed

    def _affordable(self, cls: SchedulingClass) -> bool:
        quota = self._tenants.get(cls.tenant, EQUAL).quota
        return quota is None or (self._held[cls.tenant] + cls.request.vector).fits(quota)

    def _share(self, tenant: str) -> float:
        held = self._held[tenant]
        dominant = max((h / t for h, t in zip(held, self._total, strict=True) if t), default=0.0)
        return dominant / self._tenants.get(tenant, EQUAL).weight


def replay(
    jobs: Sequence[Job],
    nodes: Sequence[Vector],
    settings: CoreSettings | None = None,
    strategy: str = "",
    tenants: Mapping[str, Tenant] = {},
) -> list[Ran]:
    """In the order of arrival; all have ended."""
    scheduler = Scheduler(nodes, settings or CoreSettings(), strategy, tenants)
    coming = sorted(jobs, key=lambda job: (job.arrival_ms, job.name))
    ran = {id(job): Ran(job) for job in coming}
    ends: list[tuple[int, int, Job, int]] = []
    at = now_ms = 0
    while at < len(coming) or ends:
        now_ms = min(ends[0][0] if ends else NEVER_MS, coming[at].arrival_ms if at < len(coming) else NEVER_MS)
        while ends and ends[0][0] <= now_ms:
            _, _, job, row = heapq.heappop(ends)
            scheduler.end(job, row)
        while at < len(coming) and coming[at].arrival_ms <= now_ms:
            scheduler.submit(coming[at])
            at += 1
        for job, row in scheduler.place(now_ms):
            one = ran[id(job)]
            one.started_ms, one.ended_ms = now_ms, now_ms + job.run_ms
            heapq.heappush(ends, (one.ended_ms, id(one), job, row))
    return list(ran.values())


def first_come(jobs: Iterable[Job], nodes: Sequence[Vector]) -> list[Ran]:
    """One thread, in the order of arrival, first fit; the first one that does not fit holds up all behind it."""
    free = np.array(nodes, np.int64)
    ends: list[tuple[int, int, Vector]] = []
    ran, now_ms = [], 0
    for job in sorted(jobs, key=lambda job: (job.arrival_ms, job.name)):
        now_ms = max(now_ms, job.arrival_ms)
        while True:
            while ends and ends[0][0] <= now_ms:
                _, row, request = heapq.heappop(ends)
                free[row] += request
            fitting = np.flatnonzero((free >= np.array(job.request)).all(axis=1))
            if len(fitting):
                break
            now_ms = ends[0][0]
        row = int(fitting[0])
        free[row] -= job.request
        heapq.heappush(ends, (now_ms + job.run_ms, row, job.request))
        ran.append(Ran(job, now_ms, now_ms + job.run_ms))
    return ran


def missed_percent(ran: Iterable[Ran]) -> float:
    """Of the jobs that have a deadline."""
    bound = [one for one in ran if one.job.deadline_ms]
    return 100 * sum(not one.in_time for one in bound) / max(1, len(bound))


def sized(jobs: Sequence[Job], node: Vector, percent: float) -> int:
    """The most nodes with which `first_come` still misses `percent` of the deadlines or more."""
    low, high = 1, 2
    while missed_percent(first_come(jobs, [node] * high)) >= percent:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        missed = missed_percent(first_come(jobs, [node] * middle))
        low, high = (middle, high) if missed >= percent else (low, middle)
    return low


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness (Jain, Chiu, Hawe 1984): 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0
