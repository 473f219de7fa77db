"""A day of satellite passes: 1,400 jobs with windows and priorities over three regions, a node and a region lost.

Each pass has a region of its own and has to be done before its window closes. The capacity is such that a single thread
which takes passes first come, first fit, over all nodes of all regions, misses about 4 % of the windows, with nothing
lost. Here the production cores of all programs live through the same day in virtual time, with the auditor and every
checker of the simulator looking on: the global plane spreads, regions queue, preempt, keep room and bind, agents run. A
node is lost at noon and a whole region in the afternoon, its scheduler included, each for an hour.

The node's passes are placed again by their region. The lost region is cordoned after a minute, and the ground segment
submits its open passes once more, under other names, for the other regions: what it asked for there is deleted, and
ends when that region is back. Nothing else fails on this day: faults of every kind are history.py's.
"""

import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from atoll.api.v1 import agent_pb2, global_pb2, objects_pb2
from atoll.model.resources import Vector, total, vector
from atoll.store import keys
from atoll.store.store import Batch
from global_cp.core.defaults import complete_workload
from simulation.faults import NO_FAULTS
from simulation.kernel import START_MS
from simulation.node import Node
from simulation.replay import Job, Ran, first_come, jain, missed_percent
from simulation.users import Users
from simulation.world import REGIONS, Shape, World

PASSES = 1_400
NODES, MEMORY_MIB = 2, 65_536  # of a region; of a node
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
DAY_MS = 24 * HOUR_MS
PEAKS_MS = (9 * HOUR_MS, 18 * HOUR_MS)
URGENCY: tuple[
    tuple[float, objects_pb2.Priority.ValueType, int], ...
] = (  # parts of the passes, their priority, and how long they can wait
    (0.1, objects_pb2.PRIORITY_REAL_TIME, 5 * MINUTE_MS),
    (0.4, objects_pb2.PRIORITY_HIGH, 15 * MINUTE_MS),
    (1.0, objects_pb2.PRIORITY_DEFAULT, 120 * MINUTE_MS),
)
FIFO_MISSES_PERCENT = 4.0
DAWN_MS = MINUTE_MS  # before the first pass leaders are elected and tenants known
GIVEN_UP_MS = MINUTE_MS  # after a region is lost
LATEST_MS = 6 * HOUR_MS  # after the last arrival; what has not ended then is missed
LOST_REGION, LOST_NODE = REGIONS[2], 0  # the node is one of the first region
AGAIN = "-again"


@dataclass(frozen=True, slots=True)
class Hours:
    """Which part of the day is played, and when what is lost."""

    begin_ms: int = 0
    end_ms: int = DAY_MS
    node_lost_ms: int = 12 * HOUR_MS
    region_lost_ms: int = 14 * HOUR_MS
    away_ms: int = HOUR_MS


@dataclass(frozen=True, slots=True)
class Outcome:
    passes: int
    node: Vector
    fifo_missed_percent: float  # of the whole day
    in_window_percent: float
    missed: int
    jain_of_regions: float
    bindings: int
    preemptions: int
    submitted_again: int
    events: int
    cpu_s: float  # of all programs, the checkers and the simulator together


def passes(seed: int) -> list[Job]:
    """By arrival; each of the tenant that is called as its region. Half of them come around two peaks."""
    dice = random.Random(seed)
    found = []
    for number in range(PASSES):
        peak = dice.choice(PEAKS_MS) + dice.gauss(0, 50 * MINUTE_MS)
        arrival_ms = round(min(max(peak if dice.random() < 0.5 else dice.uniform(0, DAY_MS), 0), DAY_MS))
        urgent = dice.random()
        _, priority, slack_ms = next(kind for kind in URGENCY if urgent < kind[0])
        run_ms = round(dice.uniform(4, 12) * MINUTE_MS)
        window_ms = run_ms + slack_ms
        request = Vector(250 * dice.randint(2, 8), 1_024 * dice.choice((2, 4, 8)))
        region = REGIONS[number % len(REGIONS)]
        job = Job(f"pass-{number:04d}", region, arrival_ms, run_ms, request, arrival_ms + window_ms, run_ms, priority)
        found.append(job)
    return sorted(found, key=lambda job: job.arrival_ms)


def sized_node(jobs: list[Job]) -> tuple[Vector, float]:
    """The node with which the single thread comes closest to the part of passes it is to miss; and that part."""
    found: list[tuple[float, int]] = []
    for cpu_milli in range(4_000, 64_000, 100):
        missed = missed_percent(first_come(jobs, [Vector(cpu_milli, MEMORY_MIB)] * NODES * len(REGIONS)))
        found.append((missed, cpu_milli))
        if missed < FIFO_MISSES_PERCENT / 2:
            break
    missed, cpu_milli = min(found, key=lambda one: (abs(one[0] - FIFO_MISSES_PERCENT), one[1]))
    return Vector(cpu_milli, MEMORY_MIB), missed


@dataclass(slots=True)
class GroundSegment(Users):
    """Submits each pass when it comes, and once more those of a region that is lost."""

    gives_up: ClassVar[float] = 0.0
    again: int = 0

    def begin(self) -> None:
        quota = total([vector(node.capacity) for node in self.world.nodes]).to_proto()
        for region in REGIONS:
            metadata, spec = objects_pb2.Metadata(name=region), objects_pb2.TenantSpec(quota=quota, weight=1)
            self.want(global_pb2.ApplyTenantRequest(tenant=objects_pb2.Tenant(metadata=metadata, spec=spec)))

    def submit(self, job: Job, name: str) -> None:
        self.want(global_pb2.ApplyWorkloadRequest(workload=_workload(job, name, self.world.kernel.now_ms)))

    def submit_again(self, region: str, open_passes: dict[str, Job]) -> None:
        """Once the region is cordoned: what comes before that may be given to it."""
        for name, job in open_passes.items():
            if self.world.global_state.get(keys.share(region, job.tenant, name)):
                self.again += 1
                self.want(global_pb2.DeleteWorkloadRequest(tenant=job.tenant, name=name))
                self.submit(job, name + AGAIN)


def _workload(job: Job, name: str, now_ms: int) -> objects_pb2.Workload:
    """With its defaults written out, as it will be stored: that nobody asked for anything else is checked."""
    spec = objects_pb2.WorkloadSpec(
        type=objects_pb2.WORKLOAD_TYPE_JOB,
        priority=job.priority,
        regions=[job.tenant, *(region for region in REGIONS if region != job.tenant)],
        estimate_ms=job.run_ms,
        time_to_live_s=60,
    )
    if job.deadline_ms >= now_ms + job.run_ms:  # what is late is done all the same
        spec.deadline_ms = job.deadline_ms
    task = spec.tasks.add(name="main", replicas=1, command=["pass"], args=[str(job.run_ms)], termination_grace_s=1)
    task.resources.requests.CopyFrom(job.request.to_proto())
    return complete_workload(
        objects_pb2.Workload(metadata=objects_pb2.Metadata(tenant=job.tenant, name=name), spec=spec)
    )


class Day(World):
    """Its times are those of the kernel."""

    def __init__(self, jobs: list[Job], node: Vector) -> None:
        self._node = node
        super().__init__(0, NO_FAULTS, Shape(regions=len(REGIONS), nodes=NODES, stores_apart=True, jobs=True))
        self.users = self.ground = GroundSegment(self)
        self.ran = {job.name: Ran(job) for job in jobs}
        for state in self.state_of.values():
            state.listen(self._look)
        for job in jobs:
            self._at(job.arrival_ms, lambda job=job: self.ground.submit(job, job.name))  # type: ignore[misc]

    def _capacity(self) -> objects_pb2.Resources:
        return self._node.to_proto()

    def run_ms(self, assign: agent_pb2.Assign) -> int:
        return int(assign.task.args[0])

    def _look(self, batch: Batch) -> None:
        for change in batch.changes:
            if change.item and change.key.split(b"/")[3] == b"slot":
                slot = objects_pb2.Slot.FromString(change.item.value)
                one = self.ran[slot.id.workload.removesuffix(AGAIN)]
                if slot.state == objects_pb2.SLOT_STATE_BOUND:
                    one.started_ms = one.started_ms or self.kernel.now_ms
                elif slot.state == objects_pb2.SLOT_STATE_DONE and slot.exit.reason == "Completed":
                    one.ended_ms = one.ended_ms or self.kernel.now_ms

    def _look_for_cordon(self, batch: Batch) -> None:
        for change in batch.changes:
            if change.item and change.key == keys.region(LOST_REGION):
                before = objects_pb2.Region.FromString(change.previous.value if change.previous else b"")
                if objects_pb2.Region.FromString(change.item.value).cordoned and not before.cordoned:
                    self._at(self.kernel.now_ms, lambda: self.ground.submit_again(LOST_REGION, self._open()))

    def _open(self) -> dict[str, Job]:
        now_ms = self.kernel.now_ms
        return {name: one.job for name, one in self.ran.items() if one.job.arrival_ms <= now_ms and not one.ended_ms}

    def _at(self, at_ms: int, act: Callable[[], None]) -> None:
        self.kernel.after(at_ms - self.kernel.now_ms, b"day", act)

    def lose(self, node_ms: int, region_ms: int, away_ms: int) -> None:
        node = self.nodes_of[REGIONS[0]][LOST_NODE]
        self._at(node_ms, node.reboot)
        self._at(node_ms + away_ms, node.start)
        schedulers, nodes = self.candidates_of[LOST_REGION], self.nodes_of[LOST_REGION]
        for process in (*schedulers, *nodes):
            self._at(region_ms, process.reboot if isinstance(process, Node) else process.kill)
            self._at(region_ms + away_ms, process.start)
        cordon = global_pb2.UpdateRegionRequest(name=LOST_REGION, cordoned=True)
        self._at(region_ms + GIVEN_UP_MS, lambda: self.ground.want(cordon))
        self.global_state.listen(self._look_for_cordon)
        back = global_pb2.UpdateRegionRequest(name=LOST_REGION, cordoned=False)
        self._at(region_ms + away_ms, lambda: self.ground.want(back))

    def play(self, until_ms: int) -> None:
        """Until all passes are over."""
        self.begin()
        while self.kernel.now_ms < until_ms and not all(one.ended_ms for one in self.ran.values()):
            self.kernel.run(until_ms=self.kernel.now_ms + MINUTE_MS)


def run(seed: int, hours: Hours = Hours()) -> Outcome:
    every = passes(seed)
    node, fifo = sized_node(every)
    shift_ms = START_MS + DAWN_MS - hours.begin_ms
    jobs = [
        replace(job, arrival_ms=job.arrival_ms + shift_ms, deadline_ms=job.deadline_ms + shift_ms)
        for job in every
        if hours.begin_ms <= job.arrival_ms < hours.end_ms
    ]
    began = time.process_time()
    world = Day(jobs, node)
    world.lose(hours.node_lost_ms + shift_ms, hours.region_lost_ms + shift_ms, hours.away_ms)
    gc.disable()  # as in history.py
    try:
        world.play(hours.end_ms + shift_ms + LATEST_MS)
    finally:
        gc.enable()
    ran = list(world.ran.values())
    by_region = [[one.in_time for one in ran if one.job.tenant == region] for region in REGIONS]
    return Outcome(
        passes=len(ran),
        node=node,
        fifo_missed_percent=round(fifo, 2),
        in_window_percent=round(100 - missed_percent(ran), 2),
        missed=sum(not one.in_time for one in ran),
        jain_of_regions=round(jain([sum(done) / len(done) for done in by_region]), 5),
        bindings=world.checkers.bindings,
        preemptions=world.checkers.seen["preempted"],
        submitted_again=world.ground.again,
        events=world.kernel.delivered,
        cpu_s=round(time.process_time() - began, 1),
    )
