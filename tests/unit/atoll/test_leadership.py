"""A win is told in parts, so that the lease is kept while a core reads many records; or it is not told at all."""

import asyncio
import gc
import weakref

from atoll.leadership import RECORDS_AT_ONCE, Leadership
from atoll.reign import LeadershipLost, LeadershipWon, PlanSettled, RecordsRead
from atoll.store import keys
from atoll.store.memory import MemoryState, MemoryStore
from atoll.store.store import Put, Txn, prefix_end
from tests.support import virtual_time
from tests.support.virtual_time import VirtualClock

ROOT = keys.region_root("north")
LEADER = keys.leader(ROOT)
TTL_S = 6
PARTS = 40
PART_S = 0.25  # all together longer than the lease

Told = RecordsRead | LeadershipWon | LeadershipLost | PlanSettled


class Core:
    """Takes PART_S of everybody's time for each part."""

    def __init__(self, state: MemoryState) -> None:
        self.told: list[Told] = []
        self.reading, self.won, self.lost = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.leadership = Leadership(
            MemoryStore(state, VirtualClock()),
            ROOT,
            name="a",
            clock=VirtualClock(),
            ttl_s=TTL_S,
            transaction_deadline_s=2,
            history_s=0,
            post=self.post,
        )

    def post(self, event: Told) -> None:
        self.told.append(event)
        match event:
            case RecordsRead():
                self.reading.set()
                virtual_time.compute(PART_S)
            case LeadershipWon():
                self.won.set()
            case LeadershipLost():
                self.lost.set()
            case _:
                pass


def full() -> MemoryState:
    state = MemoryState()
    for number in range(PARTS * RECORDS_AT_ONCE):
        state.transact(Txn(success=(Put(keys.node(ROOT, f"n{number:06d}"), b"node"),)))
    return state


def test_the_lease_is_kept_while_the_core_reads() -> None:
    async def main() -> None:
        core = Core(state)
        running = asyncio.create_task(core.leadership.run("a:1"))
        await core.won.wait()
        assert VirtualClock().now_ms() > TTL_S * 1000
        state.expire(VirtualClock().now_ms())
        assert state.get(LEADER) is not None
        listed = [item.key for item in state.range(ROOT, prefix_end(ROOT)).items]
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        *parts, won, lost = core.told
        assert isinstance(won, LeadershipWon)
        assert isinstance(lost, LeadershipLost)
        read = [item for part in parts if isinstance(part, RecordsRead) for item in part.records]
        assert [item.key for item in (*read, *won.records)] == listed

    state = full()
    virtual_time.run(main())


class Knowing(Core):
    """Knows things that know each other, as long as it leads."""

    def post(self, event: Told) -> None:
        match event:
            case RecordsRead() if not self.told:
                self.thing = Thing()
                self.remembered = weakref.ref(self.thing)
                self.thing.itself = self.thing
            case LeadershipWon():
                self.leadership.met(event)
            case LeadershipLost():
                del self.thing
                self.leadership.met(event)
            case _:
                pass
        super().post(event)


class Thing:
    itself: object


def test_the_collector_of_cycles_leaves_out_the_records_of_a_reign_and_takes_them_when_it_ends() -> None:
    async def main() -> None:
        core = Knowing(state)
        running = asyncio.create_task(core.leadership.run("a:1"))
        await core.reading.wait()
        assert not gc.isenabled()
        await core.won.wait()
        assert gc.isenabled() and gc.get_freeze_count() > 0
        assert core.remembered() is not None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert gc.isenabled() and gc.get_freeze_count() == 0
        assert core.remembered() is None

    state = full()
    gc.unfreeze()
    virtual_time.run(main())


def test_a_win_that_is_lost_meanwhile_is_not_told() -> None:
    async def main() -> None:
        core = Core(state)
        running = asyncio.create_task(core.leadership.run("a:1"))
        await core.reading.wait()
        leader = state.get(LEADER)
        assert leader is not None
        state.revoke(leader.lease)
        await core.lost.wait()
        assert {type(event) for event in core.told} == {RecordsRead, LeadershipLost}
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    state = full()
    virtual_time.run(main())
