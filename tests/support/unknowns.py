"""A leader writes on many lanes with short deadlines while etcd's own leader is killed and paused again and again.

Each plan puts a key of its own, so the store's history is the truth about it; every settled verdict is compared with
that. Used by the integration test (a short run) and the benchmark (hundreds of unknown outcomes).
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from atoll.api.v1 import objects_pb2
from atoll.clock import SystemClock
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.lane import Committed, Deposed, Plan, Rejected, Settled
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Put, Store, list_all
from tests.support.etcd import EtcdCluster

ROOT = keys.region_root("north")
LEASE_TTL_S = 60  # outlives the faults: this is about transactions, not about elections
DEADLINE_S = 0.3
PAUSE_S = 0.02  # of a lane between two plans: leaves the processor to etcd


@dataclass
class Report:
    """`wrong` lists verdicts that the history contradicts."""

    faults: int = 0
    writers: list[LaneWriter] = field(default_factory=list)  # one a term
    verdicts: dict[bytes, Settled] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def unknowns(self) -> int:
        return sum(writer.unknown for writer in self.writers)

    @property
    def settled_committed(self) -> int:
        return sum(writer.committed_by_seal for writer in self.writers)

    @property
    def settled_sealed(self) -> int:
        return sum(writer.sealed for writer in self.writers)


def plan(name: str) -> Plan:
    token = objects_pb2.JoinToken(id=name)
    return Plan("TOKEN", writes=(Put(keys.join_token(ROOT, name), token.SerializeToString()),))


async def provoke(cluster: EtcdCluster, *, unknowns: int, longest_s: float, lanes: int, seed: int) -> Report:
    """Runs until that many outcomes were unknown or the time is over, heals the cluster, compares."""
    report = Report()
    store = await EtcdStore.connect(cluster.endpoints)
    loop = asyncio.get_running_loop()
    end_s = loop.time() + longest_s

    def enough() -> bool:
        return report.unknowns >= unknowns or loop.time() >= end_s

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_faults(cluster, random.Random(seed), report, enough))
            tasks.create_task(_lead(store, lanes, report, enough))
        await _compare(store, report)
    finally:
        await store.close()
    return report


async def _faults(cluster: EtcdCluster, draw: random.Random, report: Report, enough: Callable[[], bool]) -> None:
    """One member of three at a time, mostly the leader. A short pause ends before the others elect another leader:
    what it had received is then committed, after the client has given up. A long one and a kill lose or keep it."""
    while not enough():
        leader = await asyncio.to_thread(cluster.leader)
        victim = leader if draw.random() < 0.8 else (leader + 1) % len(cluster.members)
        await asyncio.sleep(draw.uniform(0.1, 0.6))
        report.faults += 1
        match draw.choice(("kill", "short pause", "long pause")):
            case "kill":
                cluster.kill(victim)
                await asyncio.sleep(draw.uniform(0.2, 1.0))
                await asyncio.to_thread(cluster.restart, victim)
            case pause:
                cluster.pause(victim)
                await asyncio.sleep(draw.uniform(0.35, 0.8) if pause == "short pause" else draw.uniform(1.2, 2.5))
                cluster.resume(victim)
        await asyncio.to_thread(cluster.wait_healthy)


async def _lead(store: Store, lanes: int, report: Report, enough: Callable[[], bool]) -> None:
    while not enough():
        election = Election(store, ROOT, name="a", address="", ttl_s=LEASE_TTL_S, clock=SystemClock())
        authority, _ = await election.campaign()
        holding = asyncio.create_task(election.hold())
        records = (await list_all(store, ROOT)).items
        writer = LaneWriter(store, authority, lane_revisions(ROOT, records), deadline_s=DEADLINE_S)
        report.writers.append(writer)
        async with asyncio.TaskGroup() as tasks:
            for lane in range(lanes):
                tasks.create_task(_write(writer, lane, f"{authority.term}.{lane}", report, enough))
        holding.cancel()
        await election.resign()


async def _write(writer: LaneWriter, lane: int, name: str, report: Report, enough: Callable[[], bool]) -> None:
    for n in itertools.count():
        one = plan(f"{name}.{n}")
        report.verdicts[one.writes[0].key] = settled = await writer.commit(lane, one)
        if enough() or isinstance(settled, Deposed):
            return
        await asyncio.sleep(PAUSE_S)


async def _compare(store: Store, report: Report) -> None:
    """A verdict of Committed names the revision; Rejected means never. Deposed makes no claim."""
    _, end = await store.get(keys.leader(ROOT))
    put_at: dict[bytes, list[int]] = {}
    async with store.watch(ROOT, start_revision=1) as batches:
        async for batch in batches:
            for change in batch.changes:
                put_at.setdefault(change.key, []).append(batch.revision)
            if batch.revision >= end:
                break
    for key, settled in report.verdicts.items():
        match settled:
            case Committed(revision=revision) if put_at.get(key) != [revision]:
                report.wrong.append(f"{key.decode()}: committed at {revision}, put at {put_at.get(key)}")
            case Rejected(message=message) if key in put_at:
                report.wrong.append(f"{key.decode()}: rejected ({message}), put at {put_at[key]}")
            case _:
                pass
