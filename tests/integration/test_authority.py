"""Authority on real etcd: unknown outcomes settled right, stale leaders fenced, one leader at each revision."""

import asyncio

import pytest

from atoll.api.v1 import objects_pb2
from atoll.clock import SystemClock
from atoll.election import Election, LaneWriter, lane_revisions
from atoll.lane import Committed, Deposed
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import Put, Refused, Store, Txn, absent, list_all
from tests.support import unknowns
from tests.support.audit import assert_clean
from tests.support.etcd import EtcdCluster
from tests.support.unknowns import ROOT, plan

pytestmark = pytest.mark.etcd
TTL_S = 2


def candidate(store: Store, name: str) -> Election:
    return Election(store, ROOT, name=name, address="", ttl_s=TTL_S, clock=SystemClock())


async def writer_of(store: Store, election: Election) -> LaneWriter:
    authority, revision = await election.campaign()
    records = await list_all(store, ROOT)
    assert records.revision >= revision
    return LaneWriter(store, authority, lane_revisions(ROOT, records.items))


@pytest.mark.slow
async def test_unknown_outcomes_are_settled_as_history_shows() -> None:
    with EtcdCluster(3, fsync=False) as cluster:
        report = await unknowns.provoke(cluster, unknowns=60, longest_s=20, lanes=16, seed=3)
        store = await EtcdStore.connect(cluster.endpoints)
        await assert_clean(store)
        await store.close()
    assert report.wrong == []
    assert report.unknowns >= 20
    assert report.unknowns == report.settled_committed + report.settled_sealed


async def test_a_paused_leader_is_fenced_after_another_was_elected(etcd_store: EtcdStore) -> None:
    paused = await writer_of(etcd_store, candidate(etcd_store, "a"))  # holds nothing from here on: it is paused
    assert isinstance(await paused.commit(0, plan("before")), Committed)
    ruling = await writer_of(etcd_store, candidate(etcd_store, "b"))
    assert await paused.commit(0, plan("stale")) == Deposed("another term")
    assert await paused.commit(1, plan("stale-on-a-fresh-lane")) == Deposed("another term")
    assert isinstance(await ruling.commit(0, plan("after")), Committed)
    names = {record.key for record in (await list_all(etcd_store, ROOT + b"join/")).items}
    assert names == {keys.join_token(ROOT, "before"), keys.join_token(ROOT, "after")}
    await assert_clean(etcd_store)


async def test_candidates_rule_one_after_another(etcd_store: EtcdStore) -> None:
    """Two resign in order, one goes silent each time; all write as long as they may."""
    reigns: list[tuple[int, list[int]]] = []

    async def compete(name: str, resigns: bool) -> None:
        for _ in range(2):
            election = candidate(etcd_store, name)
            authority, _ = await election.campaign()
            records = await list_all(etcd_store, ROOT)
            writer = LaneWriter(etcd_store, authority, lane_revisions(ROOT, records.items))
            revisions: list[int] = []
            reigns.append((authority.term, revisions))
            for n in range(20):
                settled = await writer.commit(n % 2, plan(f"{authority.term}.{n}"))
                if isinstance(settled, Committed):
                    revisions.append(settled.revision)
            if resigns:
                await election.resign()

    await asyncio.gather(compete("a", True), compete("b", True), compete("c", False))
    reigns.sort()
    assert len(reigns) == 6
    for (term, revisions), (following, _) in zip(reigns, [*reigns[1:], (2**63, [])], strict=True):
        assert revisions
        assert term < min(revisions) <= max(revisions) < following
    await assert_clean(etcd_store)


async def test_a_held_leadership_outlives_its_lease_time(etcd_store: EtcdStore) -> None:
    ruling, waiting = candidate(etcd_store, "a"), candidate(etcd_store, "b")
    await ruling.campaign()
    holding, campaign = asyncio.create_task(ruling.hold()), asyncio.create_task(waiting.campaign())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3 * TTL_S):
            await asyncio.shield(campaign)
    assert not holding.done()
    await ruling.resign()
    await campaign
    assert await holding == "the lease is gone"
    await assert_clean(etcd_store)


async def test_a_late_campaign_cannot_apply_once_its_lease_is_given_up(etcd_store: EtcdStore) -> None:
    """What settles a campaign of unknown outcome: etcd refuses a put on a lease that is gone."""
    lease = await etcd_store.grant(TTL_S)
    await etcd_store.revoke(lease.id)
    leader = Put(keys.leader(ROOT), objects_pb2.Leader(name="late").SerializeToString(), lease.id)
    outcome = await etcd_store.transact(Txn((absent(leader.key),), (leader,)))
    assert isinstance(outcome, Refused), outcome
    assert (await etcd_store.get(leader.key))[0] is None
