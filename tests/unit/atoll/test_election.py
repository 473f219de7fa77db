"""Who leads, for how long, and that every outcome of a leader's writes is settled right."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from atoll.api.v1 import objects_pb2
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.errors import InvariantBroken
from atoll.lane import Authority, Committed, Deposed, Plan, Rejected
from atoll.store import keys
from atoll.store.faulty import Fault, Faults, FaultyStore
from atoll.store.memory import MemoryState, MemoryStore
from atoll.store.store import LeaseGone, Outcome, Put, Store, StoreUnavailable, Txn, list_all
from tests.support import virtual_time
from tests.support.audit import assert_clean
from tests.support.virtual_time import VirtualClock

ROOT = keys.region_root("north")
LEADER = keys.leader(ROOT)


def world() -> tuple[MemoryState, FaultyStore]:
    state = MemoryState()
    return state, FaultyStore(MemoryStore(state, VirtualClock()))


def candidate(store: Store, name: str = "a") -> Election:
    return Election(store, ROOT, name=name, address=f"{name}:1", clock=VirtualClock())


def plan(n: int) -> Plan:
    """Puts one key that no other plan puts."""
    record = objects_pb2.JoinToken(id=f"t{n}")
    return Plan("TOKEN", writes=(Put(keys.join_token(ROOT, record.id), record.SerializeToString()),))


def run(main: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(main)


# ---- campaign


def test_a_campaign_that_is_cancelled_leaves_no_lease() -> None:
    class Held(MemoryStore):
        """The winning transaction is sent, and never answered."""

        async def transact(self, txn: Txn, *, deadline_s: float = 2.0) -> Outcome:
            await super().transact(txn, deadline_s=deadline_s)
            sent.set()
            return await asyncio.Future[Outcome]()

    async def main() -> None:
        state = MemoryState()
        campaign = asyncio.create_task(candidate(Held(state, VirtualClock())).campaign())
        await sent.wait()
        assert state.get(LEADER) is not None
        campaign.cancel()
        with pytest.raises(asyncio.CancelledError):
            await campaign
        assert state.get(LEADER) is None

    sent = asyncio.Event()
    run(main())


def test_the_term_is_the_create_revision_and_the_store_life_comes_with_it() -> None:
    async def main() -> None:
        state, store = world()
        life = objects_pb2.StoreLife(number=4).SerializeToString()
        state.transact(Txn(success=(Put(keys.store_life(ROOT), life),)))
        authority, revision = await candidate(store).campaign()
        leader = state.get(LEADER)
        assert leader is not None
        assert authority == Authority(ROOT, leader.create_revision, store_life=4, store_life_revision=2)
        assert (revision, leader.version) == (leader.create_revision, 1)
        assert objects_pb2.Leader.FromString(leader.value).address == "a:1"

    run(main())


def test_a_second_candidate_waits_until_the_first_resigns() -> None:
    async def main() -> None:
        _, store = world()
        first, second = candidate(store, "a"), candidate(store, "b")
        old, _ = await first.campaign()
        waiting = asyncio.create_task(second.campaign())
        holding = asyncio.create_task(first.hold())
        await asyncio.sleep(60)
        assert not waiting.done()
        assert not holding.done()
        await first.resign()
        new, _ = await waiting
        assert new.term > old.term
        assert await holding == "the lease is gone"

    run(main())


def test_a_leader_that_stops_renewing_is_replaced() -> None:
    async def main() -> None:
        _, store = world()
        await candidate(store, "a").campaign()
        began_s = asyncio.get_running_loop().time()
        await candidate(store, "b").campaign()
        assert 6 <= asyncio.get_running_loop().time() - began_s <= 13

    run(main())


@pytest.mark.parametrize("fault", Fault)
def test_every_outcome_of_the_winning_write_ends_in_one_leader_that_knows_it(fault: Fault) -> None:
    async def main() -> None:
        state, store = world()
        store.inject(fault)
        election = candidate(store)
        authority, _ = await election.campaign()
        await store.apply_late()  # what was thought lost arrives now: its lease is gone
        leader = state.get(LEADER)
        assert leader is not None
        assert leader.create_revision == authority.term
        writer = LaneWriter(store, authority, {})
        assert isinstance(await writer.commit(0, plan(1)), Committed)
        await assert_clean(store)

    run(main())


def test_nonce_and_lease_are_fresh_in_each_campaign() -> None:
    async def main() -> None:
        state, store = world()
        election = candidate(store)
        seen = []
        for _ in range(3):
            await election.campaign()
            leader = state.get(LEADER)
            assert leader is not None
            seen.append((leader.lease, objects_pb2.Leader.FromString(leader.value).nonce))
            await election.resign()
        assert len({lease for lease, _ in seen}) == len({nonce for _, nonce in seen}) == 3

    run(main())


def test_campaigns_of_many_in_a_faulty_store_never_make_two_leaders_of_one_term() -> None:
    async def main() -> None:
        state = MemoryState()
        terms: list[int] = []

        async def compete(number: int) -> None:
            faults = Faults(seed=number, not_sent=0.1, lost=0.1, unanswered=0.2, late=0.2, unavailable=0.2, delay_s=1)
            store = FaultyStore(MemoryStore(state, VirtualClock()), faults)
            election = candidate(store, f"c{number}")
            for _ in range(10):
                authority, _ = await election.campaign()
                terms.append(authority.term)
                writer = LaneWriter(store, authority, await revisions(MemoryStore(state, VirtualClock())))
                for n in range(3):
                    await writer.commit(n % 2, plan(len(terms) * 10 + n))
                await election.resign()

        await asyncio.gather(*(compete(number) for number in range(5)))
        assert len(terms) == len(set(terms)) == 50
        await assert_clean(MemoryStore(state, VirtualClock()))

    run(main())


# ---- hold


class Keepalives(FaultyStore):
    """Answers keepalives as the test says: True, an exception, or never."""

    def __init__(self, *answers: object) -> None:
        super().__init__(MemoryStore(MemoryState(), VirtualClock()))
        self._answers = list(answers)
        self.asked_ms: list[int] = []

    async def keep_alive(self, lease_id: int, *, deadline_s: float = 2.0) -> int:
        self.asked_ms.append(VirtualClock().now_ms())
        match self._answers.pop(0):
            case Exception() as error:
                raise error
            case None:
                await asyncio.sleep(deadline_s)
                raise StoreUnavailable("no answer")
            case float(late_s):
                await asyncio.sleep(late_s)
        return await super().keep_alive(lease_id)


@pytest.mark.parametrize(
    ("answers", "reason", "ended_ms"),
    [
        ((LeaseGone(""),), "the lease is gone", 2_000),
        ((StoreUnavailable(""), StoreUnavailable("")), "2 renewals in a row went unanswered", 4_000),
        ((None, None), "2 renewals in a row went unanswered", 6_000),
        ((None, True, None, True, LeaseGone("")), "the lease is gone", 10_000),
        ((7.0,), "the lease is gone", 9_000),  # the lease ran out while the renewal was under way
    ],
)
def test_leadership_ends_in_time(answers: tuple[object, ...], reason: str, ended_ms: int) -> None:
    async def main() -> None:
        election = candidate(Keepalives(*answers))
        await election.campaign()
        assert await election.hold() == reason
        assert VirtualClock().now_ms() == ended_ms

    run(main())


def test_a_paused_process_gives_up_when_it_wakes_after_its_time_counted_from_the_sending() -> None:
    async def main() -> None:
        class PausedClock(VirtualClock):
            paused_ms = 0

            def now_ms(self) -> int:
                return super().now_ms() + self.paused_ms

        clock, store = PausedClock(), Keepalives(1.9, True, True)  # sent at 2.0, answered at 3.9
        election = Election(store, ROOT, name="a", address="a:1", clock=clock)
        await election.campaign()
        holding = asyncio.create_task(election.hold())
        await asyncio.sleep(3.95)
        clock.paused_ms = 4_500  # it wakes at 8.5: after 2.0 + 6, before 3.9 + 6
        assert await holding == "the lease was not renewed in its time"
        assert store.asked_ms == [2_000]

    run(main())


def test_holding_needs_a_won_campaign() -> None:
    with pytest.raises(InvariantBroken):
        run(held_without_a_campaign())


async def held_without_a_campaign() -> None:
    await candidate(world()[1]).hold()


def test_resigning_gets_by_without_the_store() -> None:
    async def main() -> None:
        state = MemoryState()
        await candidate(FaultyStore(MemoryStore(state, VirtualClock()), Faults(unavailable=1.0))).resign()
        election = candidate(FaultyStore(MemoryStore(state, VirtualClock())))
        await election.campaign()
        election._store = FaultyStore(MemoryStore(state, VirtualClock()), Faults(unavailable=1.0))
        await election.resign()
        assert state.get(LEADER) is not None

    run(main())


# ---- lanes


async def revisions(store: Store) -> dict[int, int]:
    return lane_revisions(ROOT, (await list_all(store, ROOT)).items)


@pytest.mark.parametrize(
    ("fault", "committed", "counters"),
    [
        (None, True, (0, 0, 0, 0)),
        (Fault.NOT_SENT, True, (0, 0, 0, 1)),
        (Fault.BUSY, True, (0, 0, 0, 1)),
        (Fault.LOST, False, (1, 1, 0, 0)),
        (Fault.LATE, False, (1, 1, 0, 0)),
        (Fault.UNANSWERED, True, (1, 0, 1, 0)),
    ],
)
def test_each_outcome_is_settled_as_it_was(fault: Fault | None, committed: bool, counters: tuple[int, ...]) -> None:
    async def main() -> None:
        state, store = world()
        authority, _ = await candidate(store).campaign()
        writer = LaneWriter(store, authority, {})
        store.inject(fault)
        settled = await writer.commit(0, plan(1))
        assert isinstance(settled, Committed if committed else Rejected)
        await store.apply_late()
        assert (state.get(keys.join_token(ROOT, "t1")) is not None) == committed
        assert (writer.unknown, writer.sealed, writer.committed_by_seal, writer.resent) == counters
        assert isinstance(await writer.commit(0, plan(2)), Committed)
        await assert_clean(store)

    run(main())


def test_lanes_settle_independently_under_many_faults() -> None:
    async def main() -> None:
        state = MemoryState()
        faults = Faults(seed=7, not_sent=0.1, lost=0.2, unanswered=0.2, late=0.2, busy=0.1, delay_s=0.1)
        store = FaultyStore(MemoryStore(state, VirtualClock()), faults)
        election = candidate(MemoryStore(state, VirtualClock()))
        authority, _ = await election.campaign()
        holding = asyncio.create_task(election.hold())
        writer = LaneWriter(store, authority, {})
        settled: dict[int, object] = {}

        async def work(lane: int) -> None:
            for n in range(lane * 1000, lane * 1000 + 100):
                settled[n] = await writer.commit(lane, plan(n))

        await asyncio.gather(*(work(lane) for lane in range(4)))
        await store.apply_late()
        assert not holding.done()
        holding.cancel()
        wrong = [
            n
            for n, s in settled.items()
            if (state.get(keys.join_token(ROOT, f"t{n}")) is None) != (type(s) is Rejected)
        ]
        assert wrong == []
        assert writer.unknown == writer.sealed + writer.committed_by_seal
        assert writer.unknown > 100
        assert min(writer.sealed, writer.committed_by_seal, writer.resent) > 10
        await assert_clean(MemoryStore(state, VirtualClock()))

    run(main())


def test_a_deposed_leader_commits_nothing_and_its_successor_goes_on_with_the_lanes() -> None:
    async def main() -> None:
        state, store = world()
        first, second = candidate(store, "a"), candidate(store, "b")
        authority, _ = await first.campaign()
        old = LaneWriter(store, authority, {})
        assert isinstance(await old.commit(0, plan(1)), Committed)
        assert isinstance(await old.commit(1, plan(2)), Committed)
        await first.resign()
        assert await old.commit(0, plan(3)) == Deposed("another term")
        authority, _ = await second.campaign()
        assert await old.commit(1, plan(4)) == Deposed("another term")
        new = LaneWriter(store, authority, await revisions(store))
        assert isinstance(await new.commit(0, plan(5)), Committed)
        assert isinstance(await new.commit(1, plan(6)), Committed)
        assert state.get(keys.join_token(ROOT, "t3")) is state.get(keys.join_token(ROOT, "t4")) is None
        await assert_clean(store)

    run(main())


def test_a_new_life_of_the_store_deposes() -> None:
    async def main() -> None:
        state, store = world()
        authority, _ = await candidate(store).campaign()
        life = objects_pb2.StoreLife(number=1).SerializeToString()
        state.transact(Txn(success=(Put(keys.store_life(ROOT), life),)))
        assert await LaneWriter(store, authority, {}).commit(0, plan(1)) == Deposed("another store life")

    run(main())
