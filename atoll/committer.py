"""Sends a core's plans: one asyncio task for each lane's plan in flight, its verdict back as PlanSettled.

Decides nothing; the core knows which lanes are free, and atoll.lane settles every outcome. A committer lives as long as
one reign: when leadership ends it is stopped, and what it still had in flight dies by the term compare.
"""

import asyncio
from collections.abc import Callable

from prometheus_client import Counter, Histogram

from atoll.clock import Clock
from atoll.election import LaneWriter
from atoll.reign import Commit, PlanSettled

SETTLED = Counter("atoll_plans", "Plans settled, by operation and verdict.", ["operation", "verdict"])
LATENCY = Histogram(
    "atoll_commit_seconds",
    "From a plan's first sending to its verdict.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10),
)


class Committer:
    def __init__(
        self, writer: LaneWriter, tasks: asyncio.TaskGroup, post: Callable[[PlanSettled], None], clock: Clock
    ) -> None:
        self._writer = writer
        self._tasks = tasks
        self._post = post
        self._clock = clock
        self._in_flight: set[asyncio.Task[None]] = set()
        self._stopped = False

    def commit(self, command: Commit) -> None:
        if self._stopped:
            return
        task = self._tasks.create_task(self._settle(command))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    def stop(self) -> None:
        """Nothing is sent or posted any more."""
        self._stopped = True
        for task in self._in_flight:
            task.cancel()

    async def _settle(self, command: Commit) -> None:
        sent_ms = self._clock.now_ms()
        settled = await self._writer.commit(command.lane, command.plan)
        LATENCY.observe((self._clock.now_ms() - sent_ms) / 1000)
        SETTLED.labels(command.plan.operation, type(settled).__name__.lower()).inc()
        self._post(PlanSettled(command.plan_id, settled, sent_ms))
