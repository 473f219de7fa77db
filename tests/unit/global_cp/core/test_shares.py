"""What the regions are told to run, over the life of a workload, and when a share may be forgotten."""

from atoll.api.v1 import global_pb2, objects_pb2
from global_cp.core import events
from tests.support.global_core import UNIT, GlobalCore, report, workload

FIXED, EVEN = objects_pb2.SPREAD_STRATEGY_FIXED, objects_pb2.SPREAD_STRATEGY_EVEN


def _core(quota: int = 20, **rooms: int) -> GlobalCore:
    """Regions of these names, in order of sessions from 1, each with room for so many."""
    core = GlobalCore()
    core.elect()
    for session, (name, room) in enumerate(rooms.items(), 1):
        core.connect(session, name, law="us" if name == "south" else "eu")
        _sum_up(core, session, room)
    core.tenant(quota=UNIT * quota)
    return core


def _sum_up(core: GlobalCore, session: int, room: int) -> None:
    summary = objects_pb2.RegionSummary(
        nodes_ready=1, nodes_total=1, largest_node=(UNIT * 10).to_proto(), free=(UNIT * room).to_proto()
    )
    core.say(session, summary=summary)


def _gone(session: int) -> events.RegionGone:
    return events.RegionGone(session)


def _share(core: GlobalCore, region: str) -> objects_pb2.Share:
    share = core.records.shares.get(region, "acme", "web")
    assert share is not None
    return share


def _told(core: GlobalCore) -> dict[str, int]:
    shares = core.records.shares_of("acme", "web")
    return {name: share.spec.tasks[0].replicas for name, share in shares.items() if not share.removed}


def _say(core: GlobalCore, session: int, region: str, *, ready: int, unplaced: int = 0, unpaid: int = 0) -> None:
    """The region reports on its share as it is."""
    share = _share(core, region)
    desired = share.spec.tasks[0].replicas
    said = report(share, desired=desired, bound=ready, ready=ready, waiting=desired - ready, closed=share.removed)
    if not share.removed:
        said.tasks.add(
            task="main", desired=desired, healthy=ready, waiting=desired - ready, unplaced=unplaced, unpaid=unpaid
        )
    core.say(session, workload=said)


def _spread(**fields: object) -> objects_pb2.Spread:
    return objects_pb2.Spread(**fields)  # type: ignore[arg-type]


def _fixed(**counts: int) -> objects_pb2.Spread:
    return _spread(fixed=[objects_pb2.RegionReplicas(region=name, replicas=count) for name, count in counts.items()])


def _drain(core: GlobalCore, region: str) -> None:
    core.ask(global_pb2.UpdateRegionRequest(name=region, draining=True))


def test_preferred_takes_the_room_there_is() -> None:
    core = _core(north=3, south=2, west=9)
    core.apply(workload(replicas=7, regions=["north", "south", "west"]))
    assert _told(core) == {"north": 3, "south": 2, "west": 2}
    core.apply(workload("db", replicas=2, regions=["north", "west"]))
    db = core.records.shares_of("acme", "db")
    assert list(db) == ["west"], "what was told to north is not room any more, though its summary is old"
    core.clean()


def test_an_even_and_a_fixed_spread() -> None:
    core = _core(north=9, south=9, west=9)
    core.apply(workload(replicas=5, spread=_spread(strategy=EVEN)))
    assert _told(core) == {"north": 2, "south": 2, "west": 1}
    core.apply(workload(replicas=0, spread=_fixed(west=3, north=1)))
    for session, name in enumerate(("north", "south", "west"), 1):
        _say(core, session, name, ready=_told(core).get(name, 0))
    _say(core, 3, "west", ready=3)
    assert _told(core) == {"north": 1, "west": 3}
    stored = core.records.workloads.get("acme", "web")
    assert stored is not None and stored.spec.tasks[0].replicas == 4
    core.clean()


def test_residency_is_never_broken_and_left_at_once() -> None:
    core = _core(north=9, south=9)
    core.apply(workload(replicas=2, regions=["south", "north"]))
    assert _told(core) == {"south": 2}
    eu = objects_pb2.LabelRequirement(key="law", operator=objects_pb2.SELECTOR_OPERATOR_IN, values=["eu"])
    core.apply(workload(replicas=2, regions=["south", "north"], spread=_spread(residency=[eu])))
    assert _told(core) == {"north": 2} and _share(core, "south").removed
    core.ask(global_pb2.UpdateRegionRequest(name="north", labels=[objects_pb2.Label(key="law", value="us")]))
    assert _told(core) == {}
    status = core.records.statuses.get("acme", "web")
    core.pass_time(1_000)
    status = core.records.statuses.get("acme", "web")
    assert status is not None
    (reason,) = status.pending
    assert reason.code == "NoRegion" and "north does not meet the residency" in reason.message
    core.clean()


def test_a_drained_region_gives_up_what_is_ready_elsewhere() -> None:
    core = _core(north=9, south=9)
    core.apply(workload(replicas=3, regions=["north", "south"]))
    _say(core, 1, "north", ready=3)
    _drain(core, "north")
    assert _told(core) == {"north": 3, "south": 3}
    _say(core, 2, "south", ready=2)
    assert _told(core) == {"north": 1, "south": 3}
    core.elect()
    core.connect(3, "north")
    core.connect(4, "south")
    assert _told(core) == {"north": 1, "south": 3}, "the plan is in the shares: another leader goes on with it"
    _say(core, 4, "south", ready=3)
    assert _told(core) == {"south": 3}
    _say(core, 3, "north", ready=0)
    assert list(core.records.shares_of("acme", "web")) == ["south"]
    core.clean()


def test_without_quota_to_spare_a_drain_goes_in_steps() -> None:
    core = _core(quota=4, north=9, south=9)
    core.apply(workload(replicas=4, regions=["north", "south"]))
    _say(core, 1, "north", ready=4)
    _drain(core, "north")
    seen = [_told(core)]
    while "north" in _told(core):
        _say(core, 1, "north", ready=_told(core)["north"])
        _say(core, 2, "south", ready=_told(core)["south"])
        seen.append(_told(core))
    assert seen == [{"north": 3, "south": 1}, {"north": 2, "south": 2}, {"north": 1, "south": 3}, {"south": 4}]
    core.clean()


def test_a_move_of_more_than_the_quota_pays_for_ends() -> None:
    """What waits in the new region waited for the quota of what was to be given up for it (property tests)."""
    core = _core(quota=1, north=9, south=9)
    core.apply(workload(replicas=2, regions=["south", "north"]))
    _say(core, 2, "south", ready=1, unpaid=1)
    _drain(core, "south")
    assert _told(core) == {"north": 1, "south": 1}, "what waits is told to the other region at once"
    _say(core, 2, "south", ready=1)
    _say(core, 1, "north", ready=0, unpaid=1)
    assert _told(core) == {"north": 2}
    core.clean()


def _half_way() -> GlobalCore:
    """A move of six replicas of which quota pays for four; the first stride has been given up."""
    core = _core(quota=4, north=9, south=9)
    core.apply(workload(replicas=6, regions=["north", "south"]))
    _say(core, 1, "north", ready=4, unpaid=2)
    _drain(core, "north")
    assert _told(core) == {"north": 4, "south": 2}
    _say(core, 1, "north", ready=4)
    _say(core, 2, "south", ready=0, unpaid=2)
    assert _told(core) == {"north": 3, "south": 3}
    _say(core, 1, "north", ready=3)
    _say(core, 2, "south", ready=0, unpaid=3)
    assert _told(core) == {"north": 3, "south": 3}, "the next one when its quota has come to what replaces it"
    return core


def test_a_move_gives_up_more_quota_when_that_of_the_last_stride_serves() -> None:
    core = _half_way()
    _say(core, 2, "south", ready=1, unpaid=2)
    assert _told(core) == {"north": 2, "south": 4}
    core.clean()


def test_a_move_gives_up_more_quota_after_a_while_though_others_took_it() -> None:
    core = _half_way()
    core.pass_time(core.settings.move_patience_ms - 1)
    assert _told(core) == {"north": 3, "south": 3}
    core.pass_time(core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 2, "south": 4}
    core.elect()
    assert _told(core) == {"north": 2, "south": 4}
    core.clean()


def test_with_quota_for_all_a_move_gives_up_nothing_for_want_of_a_grant() -> None:
    core = _core(quota=8, north=9, south=9)
    core.apply(workload(replicas=4, regions=["north", "south"]))
    _say(core, 1, "north", ready=4)
    _drain(core, "north")
    _say(core, 1, "north", ready=4)
    _say(core, 2, "south", ready=0, unpaid=4)
    core.pass_time(3 * core.settings.move_patience_ms)
    assert _told(core) == {"north": 4, "south": 4}
    core.clean()


def test_a_cordoned_region_gets_no_more_and_says_so_when_it_is_the_only_one() -> None:
    core = _core(north=9)
    core.apply(workload(replicas=2))
    core.ask(global_pb2.UpdateRegionRequest(name="north", cordoned=True))
    core.apply(workload(replicas=3))
    core.pass_time(1_000)
    assert _told(core) == {"north": 2}
    status = core.records.statuses.get("acme", "web")
    assert status is not None
    (reason,) = [reason for reason in status.pending if reason.code == "NoRegion"]
    assert "north is cordoned" in reason.message
    core.ask(global_pb2.UpdateRegionRequest(name="north", cordoned=False))
    assert _told(core) == {"north": 3}
    core.clean()


def test_replicas_that_wait_for_room_move_after_a_while_and_do_not_come_back() -> None:
    core = _core(north=5, south=9)
    core.apply(workload(replicas=5, regions=["north", "south"]))
    _say(core, 1, "north", ready=3, unplaced=2)
    core.pass_time(core.settings.overflow_settle_ms // 2)
    assert _told(core) == {"north": 5}
    core.pass_time(core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 3, "south": 2}
    _sum_up(core, 1, 9)
    _say(core, 1, "north", ready=3)
    _say(core, 2, "south", ready=0, unplaced=2)
    core.pass_time(3 * core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 3, "south": 2}, "north said not long ago that it has none"
    core.clean()


def test_replicas_that_have_long_waited_for_room_move_when_another_region_has_some() -> None:
    core = _core(north=5, south=0)
    core.apply(workload(replicas=5, regions=["north", "south"]))
    _say(core, 1, "north", ready=3, unplaced=2)
    core.pass_time(5 * core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 5}
    _sum_up(core, 2, 1)
    core.pass_time(core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 4, "south": 1}
    core.clean()


def test_replicas_that_wait_for_room_move_from_the_even_level_whatever_others_say() -> None:
    core = _core(north=5, south=0)
    core.apply(workload(replicas=4, spread=_spread(strategy=EVEN)))
    _say(core, 1, "north", ready=1, unplaced=1)
    core.pass_time(2 * core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 1, "south": 3}
    core.clean()


def test_where_all_regions_are_full_no_replica_that_runs_is_given_up_for_evenness() -> None:
    core = _core(quota=11, north=8, south=2)
    web = workload(replicas=11, spread=_spread(strategy=EVEN))
    core.apply(web)
    _say(core, 1, "north", ready=6)
    _say(core, 2, "south", ready=2, unplaced=3)
    core.pass_time(core.settings.overflow_settle_ms + 1_000)
    assert _told(core) == {"north": 9, "south": 2}
    _say(core, 1, "north", ready=8, unplaced=1)
    _say(core, 2, "south", ready=2)
    core.pass_time(2 * core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 8, "south": 3}
    _say(core, 1, "north", ready=8)
    _say(core, 2, "south", ready=2, unplaced=1)
    core.pass_time(2 * core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 8, "south": 3}
    web.spec.tasks[0].replicas = 10
    core.apply(web)
    assert _told(core) == {"north": 8, "south": 2}
    core.clean()


def test_that_a_region_was_full_is_forgotten_when_it_counts_no_more() -> None:
    core = _core(north=5, south=5)
    core.apply(workload(replicas=2, regions=["north", "south"]))
    _say(core, 1, "north", ready=1, unplaced=1)
    core.pass_time(2 * core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 1, "south": 1}
    assert core.machine.reign is not None
    remembered = core.machine.reign.shares._overflow._full_until_ms
    _say(core, 1, "north", ready=1)
    core.pass_time(core.settings.overflow_hold_ms - 2 * core.settings.overflow_settle_ms)
    core.tenant("other")
    assert remembered
    core.pass_time(2 * core.settings.overflow_settle_ms)
    core.tenant("another")
    assert not remembered


def test_a_gang_that_has_waited_for_room_goes_where_all_of_it_has_some() -> None:
    core = _core(north=3, south=0)
    gang = workload(replicas=3, regions=["north", "south"])
    gang.spec.tasks[0].gang = True
    core.apply(gang)
    _say(core, 1, "north", ready=0, unplaced=3)
    core.pass_time(3 * core.settings.overflow_settle_ms)
    assert _told(core) == {"north": 3}
    _sum_up(core, 2, 3)
    core.pass_time(core.settings.overflow_settle_ms)
    assert _told(core) == {"south": 3}
    core.clean()


def test_a_region_that_is_not_connected_keeps_its_shares() -> None:
    core = _core(north=5, south=9)
    core.apply(workload(replicas=5, regions=["north", "south"]))
    core.machine.handle(_gone(1), core.now_ms)
    core.pass_time(600_000)
    assert _told(core) == {"north": 5}
    core.clean()


def test_a_share_told_to_a_region_that_was_just_lost_does_no_harm() -> None:
    """Nobody knows whether it heard of it: so it counts as if it ran all, until it is heard again."""
    core = _core(quota=4, north=9, south=9)
    core.post(_gone(1))
    core.apply(workload(replicas=2, regions=["north", "south"]))
    assert _told(core) == {"north": 2}
    _drain(core, "north")
    assert _told(core) == {"north": 2, "south": 2}
    _say(core, 2, "south", ready=2)
    assert _told(core) == {"south": 2} and _share(core, "north").removed, "it serves: nothing is stuck"
    assert list(core.records.shares_of("acme", "web")) == ["north", "south"], "the order to stop stays for north"
    core.connect(3, "north", term=2)
    assert [share.removed for share in core.sent(3, "share")] == [True]  # type: ignore[attr-defined]
    _say(core, 3, "north", ready=0)
    assert list(core.records.shares_of("acme", "web")) == ["south"]
    core.clean()


def test_a_new_order_of_preference_moves_make_before_break() -> None:
    core = _core(north=9, south=9)
    core.apply(workload(regions=["north"]))
    _say(core, 1, "north", ready=2)
    core.apply(workload(regions=["south", "north"]))
    assert _told(core) == {"north": 2, "south": 2}
    _say(core, 1, "north", ready=2)
    _say(core, 2, "south", ready=2)
    old, new = _share(core, "north"), _share(core, "south")
    assert old.removed and not new.removed
    core.say(2, workload=report(old, closed=True))  # not this region's to say
    assert core.records.shares.get("north", "acme", "web") is not None
    core.say(1, workload=report(old, closed=True))
    assert core.records.shares.get("north", "acme", "web") is None
    assert core.records.workloads.get("acme", "web") is not None
    core.clean()


def test_a_word_of_an_older_removal_closes_nothing() -> None:
    core = GlobalCore()
    core.elect()
    core.connect(1, "north")
    core.connect(2, "south")
    core.tenant()
    core.apply(workload(regions=["north"]))
    core.apply(workload(regions=["south"], replicas=0))
    late = core.records.shares.get("north", "acme", "web")
    assert late is not None
    core.apply(workload(regions=["north"]))
    core.apply(workload(regions=["south"], replicas=0))
    core.say(1, workload=report(late, closed=True))
    again = core.records.shares.get("north", "acme", "web")
    assert again is not None and again.removed and again.metadata.generation > late.metadata.generation
    core.clean()


def test_a_word_of_a_removal_that_was_taken_back_closes_nothing() -> None:
    """It came while the share was on its way to be wanted again, at the same generation (a random history)."""
    core = _core(north=9, south=9)
    core.apply(workload(replicas=2, spread=_spread(strategy=EVEN)))
    _drain(core, "north")
    _say(core, 2, "south", ready=2)
    removed = _share(core, "north")
    assert removed.removed
    core.hold_commits = True
    core.start(global_pb2.UpdateRegionRequest(name="north", cordoned=False))
    core.release(1)
    assert [commit.plan.operation for commit in core.held] == ["SET-SHARE"]
    core.say(1, workload=report(removed, closed=True))
    core.hold_commits = False
    core.release()
    assert not _share(core, "north").removed
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web"))
    again = _share(core, "north")
    assert again.removed and again.metadata.generation == removed.metadata.generation, "its region may run it still"
    core.clean()


def test_a_workload_that_no_region_has_goes_at_once() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant()
    core.apply(workload())
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web"))
    assert core.records.workloads.get("acme", "web") is None
    core.clean()
