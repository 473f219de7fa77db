"""The election around the core, over the memory store: no process, no ports."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.clock import SystemClock
from atoll.errors import OutcomeUnknown, Unavailable
from atoll.lane import Plan
from atoll.store import keys
from atoll.store.memory import MemoryState, MemoryStore
from atoll.store.store import Outcome, Put, Txn, absent
from regional.core.commands import Commit
from regional.loop import Region
from tests.support.crews import alive
from tests.support.pki import Pki
from tests.support.region import REGION, settings
from tests.support.wait import until

ROOT = keys.region_root(REGION)


class HeldStore(MemoryStore):
    """Lane transactions wait while it is not `open`; elections go on."""

    def __init__(self, state: MemoryState) -> None:
        super().__init__(state)
        self.open = asyncio.Event()
        self.open.set()
        self.held: list[Txn] = []
        self.only = keys.lanes(ROOT)  # what is held, while it is not open, compares a key that begins so

    async def transact(self, txn: Txn, *, deadline_s: float = 2.0) -> Outcome:
        if any(c.key.startswith(self.only) for c in txn.compares):
            self.held.append(txn)
            await self.open.wait()
            self.held.remove(txn)
        return await super().transact(txn, deadline_s=deadline_s)


class World:
    def __init__(self, pki: Pki, folder: Path) -> None:
        self.pki = pki
        self.folder = folder
        self.state = MemoryState()

    @asynccontextmanager
    async def region(self, name: str = "a", **changes: Any) -> AsyncIterator[tuple[Region, HeldStore]]:
        store = HeldStore(self.state)
        own = settings(self.pki, self.folder / name, **{"name": name, "election_ttl_s": 2, **changes})
        region = Region(own, store, SystemClock())
        task = asyncio.create_task(region.run(f"{name}:1", f"{name}:2"))
        yield region, store
        store.open.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def leader(self) -> objects_pb2.Leader | None:
        item = self.state.get(keys.leader(ROOT))
        return objects_pb2.Leader.FromString(item.value) if item else None

    def term(self) -> int:
        item = self.state.get(keys.leader(ROOT))
        return item.create_revision if item else 0

    def depose(self) -> None:
        """The leader's lease ends under it."""
        item = self.state.get(keys.leader(ROOT))
        assert item is not None
        self.state.revoke(item.lease)


@pytest.fixture
def world(pki: Pki, tmp_path: Path) -> World:
    return World(pki, tmp_path)


def leads(region: Region) -> bool:
    return region.machine.state is not None


def is_kept(world: World, key: bytes) -> bool:
    return world.state.get(key) is not None


def write(key: bytes) -> Plan:
    return Plan("TEST", (absent(key),), (Put(key, b"v"),))


async def ask_nodes(region: Region) -> regional_pb2.ListNodesResponse:
    (answer,) = [part async for part in region.api.answer("ListNodes", b"")]
    return regional_pb2.ListNodesResponse.FromString(answer)


async def test_the_only_candidate_leads_and_answers(world: World) -> None:
    async with world.region() as (region, _):
        with pytest.raises(Unavailable):
            await ask_nodes(region)
        await until(lambda: leads(region))
        assert (await ask_nodes(region)).nodes == []
        leader = world.leader()
        assert leader is not None
        assert (leader.name, leader.address) == ("a", "a:1")


async def test_a_region_has_as_many_workers_as_it_is_told_and_leaves_none(world: World) -> None:
    async with world.region(workers=2) as (region, _):
        crew = region._crew
        assert crew
        await until(lambda: leads(region) and crew.pids)
        assert region.machine.state
        assert region.machine.state.evaluator is crew
        pids = crew.pids
        assert len(pids) == 1
    assert not any(map(alive, pids))


async def test_leadership_lost_is_won_again_without_a_new_process(world: World) -> None:
    async with world.region() as (region, _):
        await until(lambda: leads(region))
        first = world.term()
        world.depose()
        await until(lambda: world.term() > first and leads(region))
        assert region.machine.state is not None
        assert region.machine.state.authority.term == world.term()
        await region._writes.write(write(ROOT + b"join/x"))
        assert is_kept(world, ROOT + b"join/x")


async def test_a_refused_term_ends_the_reign_at_once(world: World) -> None:
    """The lease is not what tells a leader that it is deposed: its next transaction is."""
    async with world.region(election_ttl_s=60) as (region, _):
        await until(lambda: leads(region))
        first = world.term()
        world.depose()
        with pytest.raises((OutcomeUnknown, Unavailable), match="leader"):  # its own fenced write may learn it first
            await region._writes.write(write(ROOT + b"join/x"))
        await until(lambda: world.term() > first and leads(region))
        assert not is_kept(world, ROOT + b"join/x")


async def test_what_was_in_flight_when_a_reign_ended_is_never_sent_by_the_next(world: World) -> None:
    async with world.region() as (region, store):
        await until(lambda: leads(region))
        store.only = ROOT + b"join/x"
        store.open.clear()
        asked = asyncio.create_task(region._writes.write(write(ROOT + b"join/x")))
        await until(lambda: store.held)
        world.depose()
        with pytest.raises(OutcomeUnknown):
            await asked
        store.open.set()
        await until(lambda: leads(region))
        await region._writes.write(write(ROOT + b"join/y"))
        assert not is_kept(world, ROOT + b"join/x")


async def test_a_write_that_never_left_is_not_told_as_unknown(world: World) -> None:
    """Only the one in flight may have been written; the one that waited for the lane surely was not."""
    async with world.region(lanes=1) as (region, store):
        await until(lambda: leads(region))
        store.open.clear()
        await until(lambda: store.held)  # the idle leader's proof has the lane
        asked = asyncio.create_task(region._writes.write(write(ROOT + b"join/x")))
        await asyncio.sleep(0)
        world.depose()
        with pytest.raises(Unavailable, match="not written"):
            await asked
        store.open.set()


async def test_a_command_of_an_ended_reign_has_no_committer(world: World) -> None:
    async with world.region() as (region, _):
        await until(lambda: leads(region))
        old = region._leadership._reign
        assert old is not None
        world.depose()
        await until(lambda: region._leadership._reign not in (None, old))
        old.committer.commit(Commit(1, 0, write(ROOT + b"join/late")))
        await region._writes.write(write(ROOT + b"join/y"))
        assert not is_kept(world, ROOT + b"join/late")


async def test_a_standby_waits_and_follows_at_once_when_the_leader_resigns(world: World) -> None:
    async with world.region("a") as (first, _):
        await until(lambda: leads(first))
        async with world.region("b") as (second, _):
            with pytest.raises(Unavailable, match="a:1"):
                await ask_nodes(second)
            world.depose()
            await until(lambda: leads(first) or leads(second))


async def test_a_region_that_ends_gives_its_leadership_up(world: World) -> None:
    async with world.region() as (region, _):
        await until(lambda: leads(region))
    assert world.leader() is None


async def test_an_uplink_that_breaks_ends_the_process_and_not_only_the_uplink(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(hello: object) -> None:
        raise ValueError("broken")

    own = settings(world.pki, world.folder / "a")
    region = Region(own, MemoryStore(world.state), SystemClock())
    monkeypatch.setattr(region._uplink, "run", broken)
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup):
            await region.run("a:1", "a:2")
