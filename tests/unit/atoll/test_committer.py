"""The committer over a real LaneWriter and the memory store."""

import asyncio
from typing import Any

from atoll.clock import SystemClock
from atoll.committer import LATENCY, SETTLED, Committer
from atoll.election import Election, LaneWriter
from atoll.lane import Committed, Deposed, Plan, Rejected
from atoll.reign import Commit, PlanSettled
from atoll.store import keys
from atoll.store.memory import MemoryStore
from atoll.store.store import Outcome, Put, Txn, absent
from tests.support.wait import until

ROOT = keys.region_root("r1")


class GatedStore(MemoryStore):
    """Holds transactions back until the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def transact(self, txn: Txn, *, deadline_s: float = 2.0) -> Outcome:
        await self.gate.wait()
        return await super().transact(txn, deadline_s=deadline_s)


async def committer_of(store: GatedStore, tasks: asyncio.TaskGroup, settled: list[PlanSettled]) -> Committer:
    store.gate.set()
    clock = SystemClock()
    authority, _ = await Election(store, ROOT, name="a", address="x:1", clock=clock).campaign()
    store.gate.clear()
    return Committer(LaneWriter(store, authority, {}), tasks, settled.append, clock)


def put(key: bytes) -> Plan:
    return Plan("BIND", (absent(key),), (Put(key, b"v"),))


def count(verdict: str) -> float:
    value: Any = SETTLED.labels("BIND", verdict)._value.get()
    return float(value)


async def test_each_plan_is_settled_once_with_its_verdict() -> None:
    store, settled = GatedStore(), list[PlanSettled]()
    before = count("committed"), count("rejected"), LATENCY._sum.get()
    async with asyncio.TaskGroup() as tasks:
        committer = await committer_of(store, tasks, settled)
        store.gate.set()
        committer.commit(Commit(1, 0, put(ROOT + b"x")))
        committer.commit(Commit(2, 1, put(ROOT + b"y")))
    assert {s.plan_id: type(s.settled) for s in settled} == {1: Committed, 2: Committed}
    async with asyncio.TaskGroup() as tasks:
        committer._tasks = tasks
        committer.commit(Commit(3, 0, put(ROOT + b"x")))
    assert isinstance(settled[-1].settled, Rejected)
    assert (count("committed") - before[0], count("rejected") - before[1]) == (2, 1)


async def test_the_time_of_sending_is_told_not_the_time_of_the_answer() -> None:
    store, settled = GatedStore(), list[PlanSettled]()
    clock = SystemClock()
    async with asyncio.TaskGroup() as tasks:
        committer = await committer_of(store, tasks, settled)
        committer.commit(Commit(1, 0, put(ROOT + b"x")))
        await asyncio.sleep(0)
        sent_by_ms = clock.now_ms()
        await until(lambda: clock.now_ms() > sent_by_ms)
        store.gate.set()
    assert settled[0].sent_ms <= sent_by_ms


async def test_a_stopped_committer_sends_and_posts_nothing() -> None:
    store, settled = GatedStore(), list[PlanSettled]()
    async with asyncio.TaskGroup() as tasks:
        committer = await committer_of(store, tasks, settled)
        committer.commit(Commit(1, 0, put(ROOT + b"x")))
        await asyncio.sleep(0)
        committer.stop()
        committer.commit(Commit(2, 1, put(ROOT + b"y")))
        store.gate.set()
    assert settled == []
    assert store.state.get(ROOT + b"y") is None


async def test_a_deposed_leader_is_told_so() -> None:
    store, settled = GatedStore(), list[PlanSettled]()
    async with asyncio.TaskGroup() as tasks:
        committer = await committer_of(store, tasks, settled)
        leader = store.state.get(keys.leader(ROOT))
        assert leader is not None
        await store.revoke(leader.lease)
        store.gate.set()
        committer.commit(Commit(1, 0, put(ROOT + b"x")))
    assert isinstance(settled[0].settled, Deposed)
    assert store.state.get(ROOT + b"x") is None
