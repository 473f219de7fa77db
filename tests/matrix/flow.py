"""Short jobs, all the time, into every region through the API: what is under way when something is struck.

Every job that was accepted must end with all its replicas succeeded. Each has one request id, and is asked for until
there is an answer, from whichever global process leads.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import TracebackType
from typing import Self, TypeVar

from atoll import errors
from atoll.cli import playground
from atoll.sdk.client import AsyncClient
from atoll.sdk.specs import Workload
from tests.support.cluster import Cluster

Answer = TypeVar("Answer")
ATTEMPT_S = 3.0
ANSWERED_S = 90.0
REPLICAS = 50  # of one job
AT_ONCE = 3  # jobs in one region
WINDOW_S = 4.0
LOOK_AGAIN_S = 0.1
POOL = "flow"


class Asker:
    """Asks one candidate of the global plane after the other until one answers."""

    def __init__(self, cluster: Cluster) -> None:
        known = cluster.connection
        addresses = [cluster.addresses[name][1] for name in cluster.global_names()]
        self._clients = [playground.client_of(replace(known, address=address)) for address in addresses]
        self._turn = 0

    async def __call__(self, ask: Callable[[AsyncClient], Awaitable[Answer]]) -> Answer:
        """Raises what is no failure of the world; TimeoutError when nobody answers."""
        async with asyncio.timeout(ANSWERED_S):
            while True:
                turn = self._turn
                try:
                    async with asyncio.timeout(ATTEMPT_S):
                        return await ask(self._clients[turn % len(self._clients)])
                except (errors.Unavailable, errors.Busy, errors.OutcomeUnknown, TimeoutError):
                    self._turn = turn + 1
                    await asyncio.sleep(LOOK_AGAIN_S)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


@dataclass
class Flow:
    """`async with Flow(ask, regions, label) as flow:`; at the end every job that was begun has ended well."""

    ask: Asker
    regions: Sequence[str]
    label: str
    jobs: int = 0
    ended: defaultdict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    _enough: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._one_after_the_other(region, f"{self.label}-{region}-{place}"))
            for region in self.regions
            for place in range(AT_ONCE)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._enough = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*self._tasks, return_exceptions=True)
        else:
            await asyncio.gather(*self._tasks)

    def rate(self) -> float:
        """Replicas bound, run and ended a second, of late."""
        since = _now() - WINDOW_S
        late = sum(ended > since for times in self.ended.values() for _, ended in times)
        return late * REPLICAS / WINDOW_S

    def passes_since(self, moment: float) -> bool:
        """Whether every region has ended a job that was asked for after `moment`."""
        self.check()
        return all(any(asked > moment for asked, _ in self.ended[region]) for region in self.regions)

    def longest_pause_s(self, since: float) -> float:
        """The longest time without the end of a job in any one region."""
        pauses = [0.0]
        for region in self.regions:
            ends = sorted([since, *(ended for _, ended in self.ended[region] if ended > since)])
            pauses += [later - earlier for earlier, later in pairwise(ends)]
        return max(pauses)

    def check(self) -> None:
        """Raises what ended a task of the flow."""
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def _one_after_the_other(self, region: str, label: str) -> None:
        number = 0
        while not self._enough:
            number += 1
            self.jobs += 1
            asked = _now()
            await self._job(region, f"{label}-{number}")
            self.ended[region].append((asked, _now()))

    async def _job(self, region: str, name: str) -> None:
        job = Workload(
            name=name, command=("sleep", "0.1"), job=True, replicas=REPLICAS, cpu="1m", memory="1Mi",
            regions=(region,), requires=(f"pool={POOL}",),
        ).to_proto()  # fmt: skip
        await self.ask(lambda client: client.workloads.apply(job, request_id=name))
        while True:
            counts = (await self.ask(lambda client: client.workloads.get(name))).status.counts
            assert counts.failed == 0, f"{counts.failed} replicas of {name} failed"
            if counts.succeeded == REPLICAS:
                break
            await asyncio.sleep(LOOK_AGAIN_S)
        await self.ask(lambda client: client.workloads.delete(name, request_id=f"{name}-end"))


def _now() -> float:
    return asyncio.get_running_loop().time()
