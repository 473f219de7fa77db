"""A day of satellite passes: 1,400 jobs with windows and priorities over three regions, a node and a region lost.

Each pass belongs to a region and has to be done before its window closes. The capacity is such that a single thread
which takes passes first come, first fit, over all nodes of all regions, misses about 4 % of the windows, with nothing
lost. The production queue and placement of each region decide the same day, with a node lost at noon and a whole region
in the afternoon, each for an hour.

What is lost comes back as it can today: jobs of a lost node are placed again by their region once the node is taken for
lost. A lost region is given up by the operator, and the ground segment submits its open passes to the others: failover
by the global plane does not exist.
"""

import heapq
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.config import CoreSettings
from simulation.replay import Job, Ran, Scheduler, first_come, jain, missed_percent

REGIONS = ("north", "equator", "south")
PASSES = 1_400
NODES, MEMORY_MIB = 2, 65_536  # of a region; of a node
DAY_MS, MINUTE_MS = 86_400_000, 60_000
PEAKS_MS = (9 * 60 * MINUTE_MS, 18 * 60 * MINUTE_MS)
URGENCY = (  # parts of the passes, their priority, and how long they can wait
    (0.1, objects_pb2.PRIORITY_REAL_TIME, 5 * MINUTE_MS),
    (0.4, objects_pb2.PRIORITY_HIGH, 15 * MINUTE_MS),
    (1.0, objects_pb2.PRIORITY_DEFAULT, 120 * MINUTE_MS),
)
FIFO_MISSES_PERCENT = 4.0
NODE_LOST_MS, REGION_LOST_MS = 12 * 60 * MINUTE_MS, 14 * 60 * MINUTE_MS
NODE_NOTICED_MS, REGION_GIVEN_UP_MS, AWAY_MS = 15_000, 60_000, 60 * MINUTE_MS
AGEING_MS = 60 * MINUTE_MS  # the setting of these regions: passes may wait for so long as a matter of course
LOST_REGION, LOST_NODE = "south", ("north", 0)


@dataclass(frozen=True, slots=True)
class Outcome:
    passes: int
    node: Vector
    fifo_missed_percent: float
    in_window_percent: float
    missed: int
    placed_again: int  # ran on what was lost
    submitted_again: int  # waited in the lost region
    jain_of_regions: float
    cpu_s: float


def passes(seed: int) -> list[tuple[str, Job]]:
    """Home regions and jobs. Half of the passes come around two peaks."""
    dice = random.Random(seed)
    found = []
    for number in range(PASSES):
        peak = dice.choice(PEAKS_MS) + dice.gauss(0, 50 * MINUTE_MS)
        arrival_ms = round(min(max(peak if dice.random() < 0.5 else dice.uniform(0, DAY_MS), 0), DAY_MS))
        urgent = dice.random()
        priority, slack_ms = next(kind for part, *kind in URGENCY if urgent < part)
        run_ms = round(dice.uniform(4, 12) * MINUTE_MS)
        window_ms = run_ms + slack_ms
        request = Vector(250 * dice.randint(2, 8), 1_024 * dice.choice((2, 4, 8)))
        region = REGIONS[number % len(REGIONS)]
        job = Job(f"pass-{number:04d}", region, arrival_ms, run_ms, request, arrival_ms + window_ms, run_ms, priority)
        found.append((region, job))
    return sorted(found, key=lambda one: one[1].arrival_ms)


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


class Day:
    """The regions' schedulers, and what happens to them."""

    def __init__(self, node: Vector, settings: CoreSettings) -> None:
        self.regions = {name: Scheduler([node] * NODES, settings) for name in REGIONS}
        self.away: set[str] = set()
        self.ran: dict[str, Ran] = {}
        self.again = self.resubmitted = 0
        self._running: dict[str, tuple[str, Job, int]] = {}  # by name: region, row
        self._waiting: dict[str, tuple[str, Job]] = {}
        self._agenda: list[tuple[int, int, Callable[[int], None]]] = []
        self._count = 0

    def at(self, ms: int, act: Callable[[int], None]) -> None:
        self._count += 1
        heapq.heappush(self._agenda, (ms, self._count, act))

    def run(self) -> None:
        while self._agenda:
            now_ms, _, act = heapq.heappop(self._agenda)
            act(now_ms)
            for name, region in self.regions.items():
                if name not in self.away:
                    for job, row in region.place(now_ms):
                        self._start(name, job, row, now_ms)

    def submit(self, home: str, job: Job, now_ms: int) -> None:
        """Preferred: at home; elsewhere when home has no room now and another region has."""
        there = [name for name in (home, *REGIONS) if name not in self.away]
        region = next((name for name in there if self.regions[name].has_room(job)), there[0])
        self.ran.setdefault(job.name, Ran(job))
        self._waiting[job.name] = region, job
        self.regions[region].submit(job, now_ms)

    def _start(self, region: str, job: Job, row: int, now_ms: int) -> None:
        self._waiting.pop(job.name, None)
        self._running[job.name] = place = (region, job, row)
        self.ran[job.name].started_ms = now_ms
        self.at(now_ms + job.run_ms, lambda end_ms: self._end(place, end_ms))

    def _end(self, place: tuple[str, Job, int], now_ms: int) -> None:
        region, job, row = place
        if self._running.get(job.name) is place:
            del self._running[job.name]
            self.ran[job.name].ended_ms = now_ms
            self.regions[region].end(job, row)

    def lose_node(self, region: str, row: int, now_ms: int) -> None:
        self.regions[region].set_ready(row, False)
        lost = [place for place in self._running.values() if place[0] == region and place[2] == row]
        for _, job, _ in lost:
            del self._running[job.name]
            self.regions[region].end(job, row)
            self.again += 1
            self.at(now_ms + NODE_NOTICED_MS, lambda ms, job=job: self.submit(region, job, ms))  # type: ignore[misc]

    def lose_region(self, region: str, now_ms: int) -> None:
        self.away.add(region)
        open_ = [job for at, job, _ in self._running.values() if at == region]
        self.again += len(open_)
        waiting = [job for at, job in self._waiting.values() if at == region]
        self.resubmitted += len(waiting)
        for job in open_ + waiting:
            self._running.pop(job.name, None)
            self._waiting.pop(job.name, None)
            self.at(now_ms + REGION_GIVEN_UP_MS, lambda ms, job=job: self.submit(region, job, ms))  # type: ignore[misc]

    def bring_back(self, region: str, node: Vector, settings: CoreSettings) -> None:
        self.regions[region] = Scheduler([node] * NODES, settings)
        self.away.discard(region)


def run(seed: int, settings: CoreSettings | None = None) -> Outcome:
    settings = settings or CoreSettings(ageing_ms=AGEING_MS)
    day = passes(seed)
    node, fifo = sized_node([job for _, job in day])
    began = time.process_time()
    world = Day(node, settings)
    for home, job in day:
        world.at(job.arrival_ms, lambda ms, home=home, job=job: world.submit(home, job, ms))  # type: ignore[misc]
    world.at(NODE_LOST_MS, lambda ms: world.lose_node(*LOST_NODE, ms))
    world.at(NODE_LOST_MS + AWAY_MS, lambda ms: world.regions[LOST_NODE[0]].set_ready(LOST_NODE[1], True))
    world.at(REGION_LOST_MS, lambda ms: world.lose_region(LOST_REGION, ms))
    world.at(REGION_LOST_MS + AWAY_MS, lambda ms: world.bring_back(LOST_REGION, node, settings))
    world.run()
    ran = [replace(one) for one in world.ran.values()]
    by_region = [[one.in_time for one in ran if one.job.tenant == name] for name in REGIONS]
    return Outcome(
        passes=len(ran),
        node=node,
        fifo_missed_percent=round(fifo, 2),
        in_window_percent=round(100 - missed_percent(ran), 2),
        missed=sum(not one.in_time for one in ran),
        placed_again=world.again,
        submitted_again=world.resubmitted,
        jain_of_regions=round(jain([sum(done) / len(done) for done in by_region]), 5),
        cpu_s=round(time.process_time() - began, 1),
    )
