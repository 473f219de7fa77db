"""Burst at the global plane: who is granted how much of it, and what is refused at the door."""

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Invalid, QuotaExceeded
from atoll.model.accounts import BURST, HARD
from atoll.model.resources import Vector, vector
from global_cp.core import budgets, views
from global_cp.core.purse import purse
from global_cp.core.reports import Reports
from tests.support.global_core import GlobalCore, ack, tenant, workload

UNIT = Vector(500, 256)
LOW, REJECT = objects_pb2.PRIORITY_LOW, objects_pb2.ON_QUOTA_REJECT


def _granted(core: GlobalCore) -> tuple[Vector, Vector]:
    return budgets.granted(core.slice_of()).hard, budgets.granted(core.slice_of()).burst


def _set_burst(core: GlobalCore, percent: int, quota: Vector = UNIT * 10) -> object:
    document = tenant(quota=quota)
    document.spec.burst_percent = percent
    return core.ask(global_pb2.ApplyTenantRequest(tenant=document, request_id=f"burst-{percent}-{core.now_ms}"))


def test_a_tenant_has_half_of_its_quota_as_burst_unless_it_says_less(core: GlobalCore) -> None:
    money = purse(core.records.budgets.get("acme"))
    assert (money.target.hard, money.target.burst, money.free.burst) == (UNIT * 10, UNIT * 5, UNIT * 5)
    _set_burst(core, 20)
    assert purse(core.records.budgets.get("acme")).effective.burst == UNIT * 2
    _set_burst(core, 0)
    assert [part.account for part in core.records.budgets.get("acme").accounts] == [HARD]


@pytest.mark.parametrize("percent", [-1, 51])
def test_more_than_half_is_refused(core: GlobalCore, percent: int) -> None:
    answer = _set_burst(core, percent)
    assert isinstance(answer, Invalid) and answer.mistakes[0].path == "spec.burst"


def test_burst_is_granted_when_the_quota_does_not_pay_for_all_that_waits(core: GlobalCore) -> None:
    core.apply(workload(replicas=8, priority=LOW))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 6, UNIT * 6, wanted=UNIT * 2))
    assert _granted(core) == (UNIT * 8, Vector()), "quota for them is on its way"
    core.apply(workload(replicas=18, priority=LOW))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 10, UNIT * 10, wanted=UNIT * 8))
    assert _granted(core) == (UNIT * 10, UNIT * 5), "all the burst there is, and no more"
    status = views.tenant(core.records, "acme").status
    assert vector(status.granted) == UNIT * 10 and vector(status.burst.granted) == UNIT * 5


def test_what_runs_by_burst_asks_for_no_quota(core: GlobalCore) -> None:
    """So that others may have it for work that burst does not pay for."""
    core.apply(workload(replicas=14, priority=LOW))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 10, UNIT * 10, wanted=UNIT * 4))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 10, UNIT * 8, burst=UNIT * 4, bursting=UNIT * 4))
    core.apply(workload(replicas=4, priority=LOW))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 2, UNIT * 2, burst=UNIT * 4, bursting=UNIT * 4))
    assert _granted(core) == (UNIT * 2, UNIT * 4)
    for _ in range(2):  # that none of it is in use, and then that the lower target is obeyed
        core.say(1, slice_ack=ack(core.slice_of(), UNIT * 2, UNIT * 2))
    assert _granted(core) == (UNIT * 4, Vector()), "what burst had paid for needs quota when it is to run again"


def test_a_lowered_burst_comes_back_as_work_drains(core: GlobalCore) -> None:
    core.apply(workload(replicas=14, priority=LOW))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 10, UNIT * 10, wanted=UNIT * 4))
    _set_burst(core, 0)
    money = purse(core.records.budgets.get("acme"))
    assert (money.target.burst, money.effective.burst) == (Vector(), UNIT * 4)
    assert views.tenant(core.records, "acme").status.converging
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 10, UNIT * 10, burst=UNIT * 3, bursting=UNIT * 3))
    core.say(1, slice_ack=ack(core.slice_of(), UNIT * 10, UNIT * 10))
    assert not purse(core.records.budgets.get("acme")).effective.burst


def test_an_acknowledgement_is_judged_by_account(core: GlobalCore) -> None:
    """A region that enforces more of one than it was granted breaks (X), whatever it has left of the other."""
    core.apply(workload(replicas=4))
    topic = budgets.Budgets(core.records, core.settings, Reports(0))
    assert "I3 (X)" in topic.acknowledged(ack(core.slice_of(), UNIT, UNIT, burst=UNIT))
    assert not topic.acknowledged(ack(core.slice_of(), UNIT * 4, UNIT))


def test_a_record_of_the_time_before_burst_gives_none(core: GlobalCore) -> None:
    old = objects_pb2.Budget(tenant="acme")
    old.accounts.add(account=HARD, target=UNIT.to_proto(), effective=UNIT.to_proto(), free=UNIT.to_proto())
    assert not purse(old).target.burst and purse(old).target.hard == UNIT
    slice_ = objects_pb2.Slice()
    slice_.accounts.add(account=BURST, granted=UNIT.to_proto())
    assert budgets.granted(slice_).burst == UNIT and not budgets.granted(slice_).hard


@pytest.mark.parametrize(
    ("spec", "replicas", "taken"),
    [
        ({"priority": LOW}, 15, True),
        ({"priority": LOW}, 16, False),
        ({}, 10, True),
        ({}, 11, False),
        ({"priority": objects_pb2.PRIORITY_HIGH}, 11, False),
    ],
)
def test_reject_of_low_work_counts_burst(core: GlobalCore, spec: dict[str, int], replicas: int, taken: bool) -> None:
    wanted = workload(replicas=replicas, on_quota=REJECT, **spec)
    answer = core.ask(global_pb2.ApplyWorkloadRequest(workload=wanted, request_id="r"))
    assert isinstance(answer, QuotaExceeded) == (not taken)
    if not taken:
        assert ("quota and burst" in str(answer)) == ("priority" in spec and spec["priority"] == LOW)


def test_reject_of_low_work_counts_what_gets_the_quota_not_what_waits_for_it(core: GlobalCore) -> None:
    core.apply(workload("web", replicas=30))
    low = workload("low", replicas=5, priority=LOW, on_quota=REJECT)
    answer = core.ask(global_pb2.ApplyWorkloadRequest(workload=low, request_id="r"))
    assert not isinstance(answer, QuotaExceeded)
    more = workload("more", replicas=1, priority=LOW, on_quota=REJECT)
    answer = core.ask(global_pb2.ApplyWorkloadRequest(workload=more, request_id="s"))
    assert isinstance(answer, QuotaExceeded)
