"""Whether critical services could do without any one region: told, kept up to date, refused where required."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Invalid
from atoll.lane import Rejected
from atoll.model.resources import NOTHING, Vector
from global_cp.config import CoreSettings
from global_cp.core import events
from tests.support.global_core import GlobalCore, report, workload

REAL_TIME, LOW = objects_pb2.PRIORITY_REAL_TIME, objects_pb2.PRIORITY_LOW
REQUIRED, PREFERRED, NONE = objects_pb2.RECOVERY_REQUIRED, objects_pb2.RECOVERY_PREFERRED, objects_pb2.RECOVERY_NONE
ONE = Vector(1_000, 1_024)
Accepted = global_pb2.ApplyWorkloadResponse


def summary(nodes: int, each: Vector = ONE * 4) -> objects_pb2.RegionSummary:
    amount = (each * nodes).to_proto()
    return objects_pb2.RegionSummary(
        nodes_ready=nodes,
        nodes_total=nodes,
        open_capacity=amount,
        free=amount,
        capacity=amount,
        largest_node=each.to_proto(),
    )


@pytest.fixture
def core() -> GlobalCore:
    return three_regions()


def three_regions(**settings: int) -> GlobalCore:
    """Each with room for eight replicas."""
    core = GlobalCore(CoreSettings(**settings))  # type: ignore[arg-type]
    core.elect()
    core.tenant(quota=ONE * 100)
    core.tenant("other", quota=ONE * 100)
    for session, region in enumerate(("east", "north", "west"), 1):
        core.connect(session, region)
        core.say(session, summary=summary(2))
    return core


def service(name: str = "risk", replicas: int = 8, **spec: object) -> objects_pb2.Workload:
    return workload(name, replicas, ONE, **({"priority": REAL_TIME} | spec))


def condition(core: GlobalCore, name: str = "risk") -> tuple[bool, str, str] | None:
    core.pass_time(6_000)
    status = core.records.statuses.get("acme", name)
    assert status is not None
    for each in status.conditions:
        if each.type == "RecoveryFeasible":
            return each.status == objects_pb2.CONDITION_STATUS_TRUE, each.reason, each.message
    return None


def accepted(answer: object) -> Accepted:
    assert isinstance(answer, Accepted), answer
    return answer


def test_a_critical_service_is_told_whether_others_have_room_for_it(core: GlobalCore) -> None:
    assert not accepted(core.apply(service(regions=["north", "west"]))).warnings
    found = condition(core)
    assert found is not None and found[:2] == (True, "RoomElsewhere")


def test_what_is_missing_is_told_with_the_region_the_replicas_and_the_amount(core: GlobalCore) -> None:
    core.say(3, summary=summary(1))
    answer = accepted(core.apply(service(replicas=6, regions=["north", "west"])))
    (warning,) = answer.warnings
    assert warning.startswith("if north is lost, 2 replicas would find no room: ")
    assert "(west) lack cpu 2, memory 2Gi" in warning
    found = condition(core)
    assert found is not None and found[:2] == (False, "RoomMissing") and found[2] in warning


def test_it_follows_the_regions(core: GlobalCore) -> None:
    core.apply(service(regions=["north", "west"]))
    assert (condition(core) or ())[:1] == (True,)
    core.say(3, summary=summary(1))
    assert (condition(core) or ())[:2] == (False, "RoomMissing")
    core.say(3, summary=summary(2))
    assert (condition(core) or ())[:1] == (True,)
    core.ask(global_pb2.UpdateRegionRequest(name="west", cordoned=True))
    found = condition(core)
    assert found is not None and not found[0] and "no other region takes work" in found[2]


def test_lower_priorities_give_way_and_equal_ones_do_not(core: GlobalCore) -> None:
    core.apply(service("batch", 8, priority=LOW, regions=["west"]))
    assert not accepted(core.apply(service(regions=["north", "west"]))).warnings
    core.apply(service("equal", 3, regions=["west"]))
    found = condition(core)
    assert found is not None and found[2].startswith("if north is lost, 3 replicas")


def test_those_who_leave_one_region_compete_for_the_others(core: GlobalCore) -> None:
    """Each alone would fit; together they do not."""
    core.apply(service("one", 5, regions=["north", "west"]))
    assert (condition(core, "one") or ())[:1] == (True,)
    answer = accepted(core.apply(service("two", 5, regions=["north", "west"])))
    assert answer.warnings and "2 replicas" in answer.warnings[0]
    core.apply(service("two", 5, regions=["north", "west", "east"]))
    assert (condition(core, "two") or ())[:1] == (True,), "it may go east"
    assert (condition(core, "one") or ())[:1] == (True,), "for the other goes east"


def test_who_may_go_nowhere_takes_nobodys_room(core: GlobalCore) -> None:
    core.apply(service("bound", 5, recovery=PREFERRED, regions=["north"]))
    assert not accepted(core.apply(service(replicas=3, regions=["north", "west"]))).warnings
    assert (condition(core) or ())[:1] == (True,)
    core.apply(service("free", 6, regions=["north", "west"]))
    found = condition(core)
    assert found is not None and found[2].startswith("if north is lost, 1 replica"), "of those who may go west alone"


def test_what_runs_in_a_cordoned_region_stays_when_another_is_lost(core: GlobalCore) -> None:
    even = {"regions": ["north", "west"], "spread": objects_pb2.Spread(strategy=objects_pb2.SPREAD_STRATEGY_EVEN)}
    core.apply(service(replicas=4, **even))
    core.ask(global_pb2.UpdateRegionRequest(name="west", cordoned=True))
    found = condition(core)
    assert found is not None and found[2].startswith("if north is lost, 2 replicas"), "not the two in the west"
    core.ask(global_pb2.UpdateRegionRequest(name="west", draining=True))
    assert (condition(core) or ())[2].startswith("if north is lost, 4 replicas"), "they leave it anyway"


@pytest.mark.parametrize("before", [0, 1])
def test_what_is_admitted_counts_before_a_region_is_told_of_it(before: int) -> None:
    core = three_regions(lanes=2)
    if before:
        core.apply(service("one", before, recovery=REQUIRED, regions=["north", "west"]))
    core.hold_commits = True
    five = [service(name, 5, recovery=REQUIRED, regions=["north", "west"]) for name in ("one", "two")]
    asked = [core.start(global_pb2.ApplyWorkloadRequest(workload=each)) for each in five]
    core.release(1)  # the first is admitted, and the regions do not know it
    assert not core.records.shares_of("acme", "one") or before
    core.hold_commits = False
    core.release()
    assert [type(core.replies[each].answer) for each in asked] == [Accepted, Invalid]


def test_what_is_admitted_may_go_to_a_region_that_comes_meanwhile() -> None:
    core = three_regions(lanes=2)
    core.hold_commits = True
    core.start(global_pb2.ApplyWorkloadRequest(workload=service("one", 9)))
    core.release(1)  # it is admitted, and about to be shared out
    core.connect(4, "south")
    core.say(4, summary=summary(2))
    while core.records.regions.get("south") is None:
        core.held.rotate(-1)
        if core.held[0].plan.operation == "REGION":
            core.release(1)
    assert not core.records.shares_of("acme", "one")
    two = global_pb2.ApplyWorkloadRequest(workload=service("two", 8, regions=["north", "west"]), dry_run=True)
    assert not accepted(core.ask(two)).warnings
    core.hold_commits = False
    core.release()


def test_what_was_to_come_and_never_came_takes_no_room(core: GlobalCore) -> None:
    core.apply(service("one", 5, regions=["north", "west"]))
    core.hold_commits = True
    core.start(global_pb2.ApplyWorkloadRequest(workload=service("two", 5, regions=["north", "west"])))
    core.release(1)  # it is admitted, and about to be shared out
    core.say(1, summary=summary(3))  # so that all are looked at
    core.pass_time(6_000)
    core.start(global_pb2.DeleteWorkloadRequest(tenant="acme", name="two"))
    (shares,) = core.held
    assert shares.plan.operation == "SET-SHARE"
    core.held.clear()
    core.hold_commits = False
    core.post(events.PlanSettled(shares.plan_id, Rejected("sealed"), core.now_ms))
    assert not core.records.shares_of("acme", "two") and core.records.workloads.get("acme", "two") is None
    assert (condition(core, "one") or ())[:1] == (True,)


def test_only_who_asks_is_looked_at(core: GlobalCore) -> None:
    core.say(3, summary=summary(0, NOTHING))
    for name, spec in (
        ("default", {"priority": objects_pb2.PRIORITY_DEFAULT}),
        ("none", {"recovery": NONE}),
        ("alone", {"regions": ["north"]}),
    ):
        assert not accepted(core.apply(service(name, 2, **spec))).warnings
        assert condition(core, name) is None
    accepted(core.apply(service("asks", 2, priority=LOW, recovery=PREFERRED, regions=["north", "east"])))
    assert condition(core, "asks") is not None


def test_nothing_is_said_while_the_nodes_of_a_region_are_not_known(core: GlobalCore) -> None:
    core.connect(4, "south")
    assert not accepted(core.apply(service(replicas=50, recovery=REQUIRED, regions=["north", "south"]))).warnings
    assert condition(core) is None
    core.say(4, summary=summary(2))
    assert (condition(core) or ())[:1] == (False,)


def test_a_region_without_nodes_has_no_room(core: GlobalCore) -> None:
    core.apply(service(regions=["north", "west"]))
    assert (condition(core) or ())[:1] == (True,)
    core.say(3, summary=summary(0, NOTHING))
    found = condition(core)
    assert found is not None and found[:2] == (False, "RoomMissing"), "there is no node that could be too small"
    assert found[2].startswith("if north is lost, 8 replicas would find no room: the other regions (west) lack cpu 8")
    assert isinstance(core.apply(service("more", 1, recovery=REQUIRED, regions=["north", "west"])), Invalid)


def test_a_region_that_takes_no_work_need_not_say_what_it_has(core: GlobalCore) -> None:
    core.apply(service(regions=["north", "west"]))
    core.ask(global_pb2.UpdateRegionRequest(name="west", cordoned=True))
    core.elect()
    core.connect(2, "north")
    core.say(2, summary=summary(2))
    assert (condition(core) or ())[:2] == (False, "RoomMissing")
    assert isinstance(core.apply(service("more", 1, recovery=REQUIRED, regions=["north", "west"])), Invalid)


def test_required_is_refused_with_everything_else_that_is_wrong(core: GlobalCore) -> None:
    wrong = service(replicas=9, recovery=REQUIRED, regions=["north", "west"])
    wrong.spec.tasks[0].strategy = "nonsense"
    refused = core.apply(wrong)
    assert isinstance(refused, Invalid)
    assert {mistake.path for mistake in refused.mistakes} == {"spec.recovery", "spec.tasks[0].strategy"}
    assert any("1 replica would find no room" in mistake.message for mistake in refused.mistakes)
    one_region = core.apply(service(recovery=REQUIRED, regions=["north"]))
    assert isinstance(one_region, Invalid) and "OneRegion" in one_region.mistakes[0].message


def test_what_is_admitted_is_not_refused_again_unless_it_asks_for_more(core: GlobalCore) -> None:
    required = service(replicas=8, recovery=REQUIRED, regions=["north", "west"])
    accepted(core.apply(required))
    core.say(3, summary=summary(1))
    required.spec.tasks[0].args.append("--other")
    assert accepted(core.apply(required)).warnings, "told, and not refused"
    fewer = global_pb2.ScaleWorkloadRequest(tenant="acme", name="risk", task="main", replicas=7)
    assert isinstance(core.ask(fewer), Accepted)
    more = global_pb2.ScaleWorkloadRequest(tenant="acme", name="risk", task="main", replicas=9)
    refused = core.ask(more)
    assert isinstance(refused, Invalid) and refused.mistakes[0].path == "replicas"


def test_a_replica_larger_than_every_other_node_is_told(core: GlobalCore) -> None:
    core.say(3, summary=summary(8, ONE))
    found = accepted(core.apply(workload("risk", 1, ONE * 2, priority=REAL_TIME, regions=["north", "west"]))).warnings
    assert found and "no node in the other regions (west) could hold" in found[0]


def test_a_gang_goes_whole(core: GlobalCore) -> None:
    gang = service(replicas=6)
    gang.spec.tasks[0].gang = True
    assert not accepted(core.apply(gang)).warnings
    for session in (1, 2, 3):
        core.say(session, summary=summary(1))
    assert (condition(core) or ())[:2] == (False, "RoomMissing"), "four here and two there are no room for a gang"


def test_protected_capacity_of_others_is_no_room(core: GlobalCore) -> None:
    core.apply(service(replicas=6, regions=["north", "west"]))
    assert (condition(core) or ())[:1] == (True,)
    core.tenant("other", quota=ONE * 100, west=ONE * 4)
    assert (condition(core) or ())[:1] == (False,)
    core.tenant("acme", quota=ONE * 100, west=ONE * 4)
    core.tenant("other", quota=ONE * 100)
    assert (condition(core) or ())[:1] == (True,), "its own is"


def test_too_little_quota_for_all_of_it_is_told(core: GlobalCore) -> None:
    core.tenant("acme", quota=ONE * 3)
    assert "QuotaMissing" in accepted(core.apply(service(replicas=4))).warnings[0]


def test_the_verdict_survives_a_leader_that_knows_nothing_yet(core: GlobalCore) -> None:
    core.say(3, summary=summary(1))
    core.apply(service(regions=["north", "west"]))
    before = condition(core)
    assert before is not None and not before[0]
    core.elect()
    core.connect(5, "north", term=2)
    assert condition(core) == before


def test_a_job_that_is_over_asks_for_nothing(core: GlobalCore) -> None:
    job = service("job", 8, type=objects_pb2.WORKLOAD_TYPE_JOB, regions=["west"])
    core.apply(job)
    core.apply(service(regions=["north", "west"]))
    assert (condition(core) or ())[:1] == (False,)
    share = core.records.shares.get("west", "acme", "job")
    assert share is not None
    told = report(share, desired=8, succeeded=8)
    told.tasks.add(task="main", desired=8, ended=8, succeeded=8)
    core.say(3, workload=told)
    assert (condition(core) or ())[:1] == (True,)


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]), st.integers(0, 4), st.sampled_from([LOW, REAL_TIME]), st.booleans()
        ),
        max_size=12,
    )
)
def test_claims_are_the_sums_over_live_shares(steps: list[tuple[str, int, int, bool]]) -> None:
    core = GlobalCore()
    core.elect()
    core.tenant(quota=ONE * 100)
    core.connect(1, "north")
    core.say(1, summary=summary(10))
    for name, replicas, priority, gone in steps:
        if gone:
            core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name=name))
        else:
            core.apply(service(name, replicas, priority=priority))
    shares = [share for share in core.records.shares if not share.removed]
    for level in (LOW, REAL_TIME):
        plain = sum(task.replicas for share in shares if share.spec.priority >= level for task in share.spec.tasks)
        assert core.records.claims.at_least("north", level).get("acme", NOTHING) == ONE * plain
