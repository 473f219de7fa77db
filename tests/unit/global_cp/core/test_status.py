"""The roll-up: what users see follows the regions' reports at the present generation, and nothing else."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.model.resources import Vector
from global_cp.config import CoreSettings
from global_cp.core.status import set_conditions
from tests.support.global_core import GlobalCore, report, workload

TRUE = objects_pb2.CONDITION_STATUS_TRUE


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.elect()
    world.connect(1)
    world.tenant()
    world.apply(workload())
    yield world
    world.clean()


def _status(core: GlobalCore) -> objects_pb2.WorkloadStatus:
    core.pass_time(1_000)
    status = core.records.statuses.get("acme", "web")
    assert status is not None
    return status


def _share(core: GlobalCore) -> objects_pb2.Share:
    share = core.records.shares.get("north", "acme", "web")
    assert share is not None
    return share


def _true(status: objects_pb2.WorkloadStatus) -> list[str]:
    return [condition.type for condition in status.conditions if condition.status == TRUE]


def test_conditions_follow_the_counts(core: GlobalCore) -> None:
    assert _true(_status(core)) == ["Admitted"] and _status(core).observed_generation == 0
    core.say(1, workload=report(_share(core), bound=2, started=1))
    status = _status(core)
    assert _true(status) == ["Admitted", "Bound"] and status.observed_generation == 1
    core.say(1, workload=report(_share(core), bound=2, started=2, ready=2, serving=2))
    assert _true(_status(core)) == ["Admitted", "Bound", "Ready", "Serving", "Started"]


def test_reports_of_an_older_generation_do_not_count(core: GlobalCore) -> None:
    old = _share(core)
    core.say(1, workload=report(old, bound=2, started=2, ready=2, serving=2))
    _status(core)
    core.ask(global_pb2.ScaleWorkloadRequest(tenant="acme", name="web", replicas=3))
    core.say(1, workload=report(old, bound=2, started=2, ready=2, serving=2))
    status = _status(core)
    assert _true(status) == ["Admitted"] and status.observed_generation == 1 and status.counts.bound == 0
    core.say(1, workload=report(_share(core), bound=3, started=3, ready=3, serving=3))
    assert _status(core).observed_generation == 2 and "Serving" in _true(_status(core))


def test_since_moves_only_with_the_status(core: GlobalCore) -> None:
    core.say(1, workload=report(_share(core), bound=2, started=1))
    first = {c.type: c.since_ms for c in _status(core).conditions}
    core.say(1, workload=report(_share(core), bound=2, started=2))
    second = {c.type: c.since_ms for c in _status(core).conditions}
    assert second["Bound"] == first["Bound"] and second["Started"] > first["Started"]


def test_a_takeover_changes_no_status_until_the_region_reports_again(core: GlobalCore) -> None:
    core.say(1, workload=report(_share(core), bound=2, started=2, ready=2, serving=2))
    before = _status(core)
    core.elect()
    core.connect(2)
    assert _status(core) == before
    core.say(2, workload=report(_share(core), bound=2, started=2, ready=1, serving=1))
    assert "Ready" not in _true(_status(core))


def test_a_new_leader_writes_what_the_old_one_owed_where_no_region_tells_of_it(core: GlobalCore) -> None:
    nightly = workload("nightly", type=objects_pb2.WORKLOAD_TYPE_JOB)
    nightly.spec.schedule.cron = "0 3 * * *"
    core.apply(nightly)
    core.pass_time(1_000)
    core.apply(workload("other", replicas=0))  # its status is written at once, the next one after a while
    nightly.spec.schedule.cron = "0 4 * * *"
    core.apply(nightly)
    core.elect()
    core.pass_time(1_000)
    status = core.records.statuses.get("acme", "nightly")
    assert status is not None and status.observed_generation == 2


def test_pending_reasons_are_merged_with_what_only_the_global_plane_knows(core: GlobalCore) -> None:
    core.tenant(quota=Vector(600, 10_000))
    said = report(_share(core), bound=1, waiting=1)
    said.pending.add(code="InsufficientCpu", nodes=3, message="3 nodes")
    core.say(1, workload=said)
    assert [reason.code for reason in _status(core).pending] == ["QuotaExhausted", "InsufficientCpu"]
    assert _status(core).pending[0].message.endswith("cpu 400m more than its quota"), "no burst for such work"


def test_without_an_active_region_the_reason_says_so() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant()
    core.apply(workload())
    assert [reason.code for reason in _status(core).pending] == ["NoRegion"]
    core.connect(1)
    assert core.records.shares.get("north", "acme", "web") is not None
    assert _status(core).pending == []


def test_status_is_written_in_batches_at_a_bounded_rate() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant()
    core.connect(1)
    for index in range(100):
        core.apply(workload(f"w{index}", replicas=0))
    start = core.state.revision
    for _ in range(10):
        for share in core.records.shares:
            core.say(1, workload=report(share, waiting=core.now_ms % 1_000))
        core.pass_time(100)
    batches = core.state.revision - start
    assert batches <= 1 + 1_000 // core.settings.status_interval_ms


def test_a_job_that_succeeded_has_come_all_the_way() -> None:
    job = workload(type=objects_pb2.WORKLOAD_TYPE_JOB)
    counts = objects_pb2.SlotCounts(desired=2, succeeded=1, bound=1, started=1, ready=1, serving=1)
    status = objects_pb2.WorkloadStatus()
    set_conditions(status, job, counts, True, [], 5)
    assert len(status.conditions) == 5 and all(c.status == TRUE for c in status.conditions)


def test_a_report_that_undoes_what_is_on_its_way_is_told_too() -> None:
    """With two lanes the next look comes before the first answer, and finds the stored status right."""
    core = GlobalCore(CoreSettings(lanes=2))
    core.elect()
    core.connect(1)
    core.tenant()
    core.apply(workload())
    everything = report(_share(core), bound=2, started=2, ready=2, serving=2)
    core.say(1, workload=everything)
    _status(core)
    core.hold_commits = True
    core.say(1, workload=report(_share(core), bound=2, started=2, ready=1, serving=1))
    core.pass_time(1_000)
    assert [commit.plan.operation for commit in core.held] == ["STATUS"]
    core.say(1, workload=everything)
    core.pass_time(1_000)
    core.hold_commits = False
    core.release()
    assert _status(core).counts.serving == 2
    core.clean()
