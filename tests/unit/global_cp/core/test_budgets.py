"""Grants, shrinks and take-backs, step by step; the property tests look for what these steps do not think of."""

from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.errors import Conflict
from atoll.model.accounts import ACCOUNTS, charged_to
from atoll.model.resources import Vector, vector
from global_cp.config import CoreSettings
from global_cp.core.entitlements import Claim, entitlements
from global_cp.core.purse import Purse, purse
from tests.support.global_core import GlobalCore, ack, granted, report, shrink_target, tenant, workload

UNIT = Vector(500, 256)


def _operations(core: GlobalCore) -> list[str]:
    lanes = [change for batch in core.state.batches(b"/g/lane/", 1) for change in batch.changes]
    return [objects_pb2.Lane.FromString(change.item.value).operation for change in lanes if change.item]


def test_a_grant_follows_demand_up_to_what_is_free(core: GlobalCore) -> None:
    core.apply(workload(replicas=4))
    first = core.slice_of()
    core.apply(workload(replicas=14))
    assert granted(first) == UNIT * 4 and granted(core.slice_of()) == UNIT * 10
    assert core.slice_of().seq > first.seq
    assert purse(core.records.budgets.get("acme")).free.hard == Vector()


def test_a_shrink_takes_back_only_what_the_region_has_given_up(core: GlobalCore) -> None:
    core.apply(workload(replicas=4))
    core.apply(workload(replicas=1))
    wanted = core.slice_of()
    assert granted(wanted) == UNIT * 4 and shrink_target(wanted) == UNIT
    core.say(1, slice_ack=ack(wanted, UNIT * 3, UNIT * 3))
    assert granted(core.slice_of()) == UNIT * 3
    core.say(1, slice_ack=ack(wanted, UNIT))  # of a seq that has passed
    assert granted(core.slice_of()) == UNIT * 3
    core.say(1, slice_ack=ack(core.slice_of(), UNIT, UNIT))
    assert granted(core.slice_of()) == UNIT
    assert _operations(core).count("TAKE-BACK") == 2


def test_a_newer_target_supersedes_a_shrink(core: GlobalCore) -> None:
    core.apply(workload(replicas=4))
    core.apply(workload(replicas=1))
    late = ack(core.slice_of(), UNIT)
    core.apply(workload(replicas=3))
    assert shrink_target(core.slice_of()) == UNIT * 3
    core.say(1, slice_ack=late)
    assert granted(core.slice_of()) == UNIT * 4


def test_a_lower_quota_converges_as_budget_comes_back(core: GlobalCore) -> None:
    core.apply(workload(replicas=8))
    core.tenant(quota=UNIT * 5)
    money = purse(core.records.budgets.get("acme"))
    assert (money.target.hard, money.effective.hard, money.free.hard) == (UNIT * 5, UNIT * 8, Vector())
    assert shrink_target(core.slice_of()) == UNIT * 5
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 6, UNIT * 6))
    assert purse(core.records.budgets.get("acme")).effective.hard == UNIT * 6
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 5, UNIT * 5))
    assert purse(core.records.budgets.get("acme")).effective.hard == UNIT * 5


def test_an_acknowledgement_is_kept_and_one_above_the_grant_ends_the_session(core: GlobalCore) -> None:
    core.apply(workload(replicas=4))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 4, UNIT * 2))
    kept = core.records.acks.get("north", "acme")
    assert kept is not None and vector(kept.uses[0].bound) == UNIT * 2
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 5))
    assert "I3 (X)" in core.closed[1]
    assert granted(core.slice_of()) == UNIT * 4


def test_validity_is_renewed_before_it_ends(core: GlobalCore) -> None:
    core.apply(workload(replicas=1))
    first = core.slice_of()
    core.pass_time(core.settings.slice_validity_ms)
    assert core.slice_of().valid_until_ms > first.valid_until_ms and granted(core.slice_of()) == granted(first)
    assert "RENEW" in _operations(core)


def test_a_tenant_goes_when_its_budget_is_back_and_begins_above_its_old_seq(core: GlobalCore) -> None:
    core.apply(workload(replicas=4))
    core.ask(
        global_pb2.CreateUserTokenRequest(name="ann", role=objects_pb2.ROLE_USER, tenant="acme"),
        objects_pb2.UserToken(id="ab", hash=b"h"),
    )
    refused = core.ask(global_pb2.DeleteTenantRequest(name="acme"))
    assert isinstance(refused, Conflict) and refused.code == "E3005"
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web"))
    share = core.records.shares.get("north", "acme", "web")
    assert share is not None
    core.say(1, workload=report(share, closed=True))
    core.ask(global_pb2.DeleteTenantRequest(name="acme"))
    last = core.slice_of()
    core.say(1, slice_ack=ack(last, Vector()))
    assert core.records.tenants.get("acme") is None and core.records.slices.get("acme", "north") is None
    assert len(core.records.tokens) == 0
    core.tenant()
    core.apply(workload(replicas=1))
    assert core.slice_of().seq > last.seq + 1


def test_budget_does_not_wander_between_regions() -> None:
    claims = {"a": Claim(UNIT * 4), "b": Claim(UNIT * 3, granted=UNIT * 3)}
    assert entitlements(UNIT * 4, claims) == {"a": UNIT, "b": UNIT * 3}
    assert entitlements(UNIT, claims) == {"a": Vector(), "b": UNIT}


def test_what_a_region_cannot_use_comes_last() -> None:
    claims = {"a": Claim(UNIT * 4, granted=UNIT * 4, idle=UNIT * 3), "b": Claim(UNIT * 3)}
    assert entitlements(UNIT * 4, claims) == {"a": UNIT, "b": UNIT * 3}
    assert entitlements(UNIT * 6, claims) == {"a": UNIT * 3, "b": UNIT * 3}
    everything = {"a": UNIT * 4, "b": UNIT * 3}
    assert entitlements(UNIT * 7, claims) == everything, "with enough for all nothing is taken from anybody"


def test_of_a_lowered_quota_the_idle_surplus_comes_back_first() -> None:
    claims = {"a": Claim(UNIT * 5, granted=UNIT * 5), "b": Claim(UNIT * 5, granted=UNIT * 5, used=UNIT * 5)}
    assert entitlements(UNIT * 8, claims) == {"a": UNIT * 3, "b": UNIT * 5}


def test_what_zombies_hold_is_paid_after_what_is_needed() -> None:
    claims = {"a": Claim(UNIT * 2, granted=UNIT * 3, beside=UNIT), "b": Claim(UNIT * 2)}
    assert entitlements(UNIT * 4, claims) == {"a": UNIT * 2, "b": UNIT * 2}
    assert entitlements(UNIT * 6, claims) == {"a": UNIT * 3, "b": UNIT * 2}


def test_a_strict_tenant_has_budget_for_its_zombies_while_quota_lasts(core: GlobalCore) -> None:
    core.apply(workload(replicas=4))
    lost = ack(core.slice_of(), UNIT * 4, UNIT * 2)
    lost.uses[0].zombie.CopyFrom((UNIT * 2).to_proto())
    core.say(1, slice_ack=lost)
    assert granted(core.slice_of()) == UNIT * 4, "a tenant that is not strict does not pay for them"
    strict = tenant(quota=UNIT * 5)
    strict.spec.mode = objects_pb2.QUOTA_MODE_STRICT
    core.ask(global_pb2.ApplyTenantRequest(tenant=strict))
    assert granted(core.slice_of()) == UNIT * 5
    strict.spec.quota.CopyFrom((UNIT * 9).to_proto())
    core.ask(global_pb2.ApplyTenantRequest(tenant=strict))
    assert granted(core.slice_of()) == UNIT * 6
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 6, UNIT * 4))
    assert shrink_target(core.slice_of()) == UNIT * 4, "they are gone"


def test_a_region_has_budget_for_surges_while_it_asks_for_them_and_quota_lasts(core: GlobalCore) -> None:
    core.apply(workload(replicas=4))
    asks = ack(core.slice_of(), UNIT * 4, UNIT * 4)
    asks.uses[0].surge.CopyFrom((UNIT * 20).to_proto())
    core.say(1, slice_ack=asks)
    assert granted(core.slice_of()) == UNIT * 10, "as far as quota goes"
    core.apply(workload("other", replicas=5))
    assert granted(core.slice_of()) == UNIT * 10, "what shares need comes first"
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 10, UNIT * 9))
    assert shrink_target(core.slice_of()) == UNIT * 9, "it asks for none any more"


def _two_regions(quota: int) -> GlobalCore:
    core = GlobalCore()
    core.elect()
    core.connect(1, "north")
    core.connect(2, "south")
    core.tenant(quota=UNIT * quota)
    return core


def test_a_lowered_quota_is_effective_when_no_more_is_in_use() -> None:
    core = _two_regions(10)
    core.apply(workload("a", 5, regions=["north"]))
    core.apply(workload("b", 5, regions=["south"]))
    core.tenant(quota=UNIT * 8)
    core.say(2, slice_ack=ack(core.slice_of("south"), UNIT * 5, UNIT * 5))
    assert (shrink_target(core.slice_of()), shrink_target(core.slice_of("south"))) == (UNIT * 3, UNIT * 5)
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 3))
    assert purse(core.records.budgets.get("acme")).effective.hard == UNIT * 8
    core.clean()


def _granted(core: GlobalCore, region: str) -> Vector:
    return granted(core.records.slices.get("acme", region))


def test_what_one_region_gives_back_lets_another_grow_at_once() -> None:
    core = _two_regions(5)
    core.apply(workload("a", 4, regions=["north"]))
    core.apply(workload("b", 4, regions=["south"]))
    assert (_granted(core, "north"), _granted(core, "south")) == (UNIT * 4, UNIT)
    core.apply(workload("a", 1, regions=["north"]))
    assert _granted(core, "south") == UNIT, "not before north has given it up"
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 2, UNIT * 2))
    assert (_granted(core, "north"), _granted(core, "south")) == (UNIT * 2, UNIT * 3)
    core.say(1, slice_ack=ack(core.slice_of(), UNIT, UNIT))
    assert (_granted(core, "north"), _granted(core, "south")) == (UNIT, UNIT * 4)
    core.clean()


def _said(core: GlobalCore, name: str, **task: int) -> regional_pb2.WorkloadReport:
    share = core.records.shares.get("north", "acme", name)
    assert share is not None
    said = report(share, desired=share.spec.tasks[0].replicas)
    said.tasks.add(task="main", desired=share.spec.tasks[0].replicas, **task)  # type: ignore[arg-type]
    return said


def test_under_contention_budget_leaves_a_region_where_no_node_takes_the_work() -> None:
    core = _two_regions(4)
    core.apply(workload("a", 4, regions=["north"]))
    core.apply(workload("b", 3, regions=["south"]))
    core.say(1, workload=_said(core, "a", healthy=1, waiting=3, unplaced=3))
    core.pass_time(2 * core.settings.overflow_settle_ms)
    assert shrink_target(core.slice_of()) == UNIT
    core.say(1, slice_ack=ack(core.slice_of(), UNIT, UNIT))
    assert _granted(core, "south") == UNIT * 3
    core.say(1, workload=_said(core, "a", healthy=1, waiting=3))
    core.pass_time(2 * core.settings.overflow_settle_ms)
    assert (_granted(core, "north"), _granted(core, "south")) == (UNIT, UNIT * 3), "it does not wander back"
    core.clean()


def test_a_job_gives_back_the_budget_of_replicas_that_have_ended() -> None:
    core = _two_regions(4)
    core.apply(workload("a", 4, regions=["north"], type=objects_pb2.WORKLOAD_TYPE_JOB))
    core.apply(workload("b", 2, regions=["south"]))
    core.say(1, workload=_said(core, "a", healthy=1, ended=3))
    assert shrink_target(core.slice_of()) == UNIT
    core.say(1, slice_ack=ack(core.slice_of(), UNIT, UNIT))
    assert (_granted(core, "north"), _granted(core, "south")) == (UNIT, UNIT * 2)
    core.clean()


def test_a_purse_keeps_its_identity_when_dimensions_move_apart() -> None:
    for account in ACCOUNTS:
        unit, spent = charged_to(account, UNIT), charged_to(account, Vector(400, 0))
        purse_ = Purse(unit, unit, unit).paid(spent).with_target(charged_to(account, Vector(100, 1_000)))
        assert purse_.effective == charged_to(account, Vector(400, 1_000))
        assert purse_.free == charged_to(account, Vector(0, 1_000))
        assert purse_.returned(spent).effective == charged_to(account, Vector(100, 1_000))


def test_an_acknowledgement_that_undoes_what_is_on_its_way_is_kept_too() -> None:
    core = GlobalCore(CoreSettings(lanes=2))
    core.elect()
    core.connect(1)
    core.tenant(quota=UNIT * 10)
    core.apply(workload(replicas=4))
    idle, busy = ack(core.slice_of(), UNIT * 4), ack(core.slice_of(), UNIT * 4, bound=UNIT)
    core.say(1, slice_ack=idle)
    core.hold_commits = True
    core.say(1, slice_ack=busy)
    assert [commit.plan.operation for commit in core.held] == ["ACK"]
    core.say(1, slice_ack=idle)
    core.hold_commits = False
    core.release()
    assert core.records.acks.get("north", "acme") == idle
    core.clean()
