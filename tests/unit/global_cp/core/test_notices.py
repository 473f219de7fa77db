"""Ends of jobs are told at least once, again after failures, for a bounded time, and by whoever leads."""

import json

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Invalid
from global_cp.config import CoreSettings
from global_cp.core.events import Notified
from tests.support.global_core import UNIT, GlobalCore, report, workload

JOB = objects_pb2.WORKLOAD_TYPE_JOB
SUCCEEDED, FAILED, STOPPED = (
    objects_pb2.JOB_OUTCOME_SUCCEEDED,
    objects_pb2.JOB_OUTCOME_FAILED,
    objects_pb2.JOB_OUTCOME_STOPPED,
)
URL = "https://hooks.test/jobs"
HOUR_MS, DAY_MS = 3_600_000, 86_400_000


@pytest.fixture
def core() -> GlobalCore:
    core = GlobalCore(CoreSettings(webhooks=("https://hooks.test/",)))
    core.elect()
    core.tenant()
    core.connect(1, "north")
    return core


def job(name: str = "night", replicas: int = 2, on: tuple[int, ...] = (), **spec: object) -> objects_pb2.Workload:
    wish = objects_pb2.Notification(url=URL, on=on)  # type: ignore[arg-type]
    return workload(name, replicas, UNIT, type=JOB, notify=[wish], **spec)


def end(core: GlobalCore, name: str = "night", succeeded: int = 2, failed: int = 0, session: int = 1) -> None:
    """The region says that its replicas have ended."""
    share = core.records.shares.get("north", "acme", name)
    assert share is not None
    told = report(share, desired=2, succeeded=succeeded, failed=failed)
    task = told.tasks.add(task="main", desired=2, ended=2, succeeded=succeeded, failed=failed)
    if failed:
        task.failure = "main/1: it ended with code 3"
        task.exit.CopyFrom(objects_pb2.Exit(code=3, reason="Failed", message="it ended with code 3"))
    core.say(session, workload=told)
    core.pass_time(500)


def answer(core: GlobalCore, error: str = "", final: bool = False) -> None:
    """To the only notice that is under way."""
    (command,) = core.notified
    core.notified.clear()
    core.post(Notified(command.number, error, final))


def body(core: GlobalCore) -> dict[str, object]:
    (command,) = core.notified
    found: dict[str, object] = json.loads(command.body)
    return found


def test_a_job_that_has_succeeded_is_told_once_it_ends(core: GlobalCore) -> None:
    core.apply(job())
    assert not core.notified
    end(core)
    told = body(core)
    assert told["type"] == "job.succeeded"
    data = told["data"]
    assert isinstance(data, dict)
    assert (data["tenant"], data["workload"], data["outcome"], data["generation"]) == ("acme", "night", "succeeded", 1)
    assert data["endedAt"].endswith("Z") and data["tasks"][0]["succeeded"] == 2
    assert core.notified[0].url == URL
    answer(core)
    assert not core.records.notices.items()
    core.pass_time(HOUR_MS)
    assert not core.notified, "delivered is delivered"
    core.clean()


def test_a_failure_is_told_with_its_exit(core: GlobalCore) -> None:
    core.apply(job())
    end(core, succeeded=1, failed=1)
    data = body(core)["data"]
    assert isinstance(data, dict) and (data["outcome"], data["reason"]) == ("failed", "TaskFailed")
    (task,) = data["tasks"]
    assert task["phase"] == "failed"
    assert task["exit"] == {"code": 3, "kind": "Failed", "message": "it ended with code 3"}


def test_one_that_is_deleted_before_its_end_is_told_as_stopped(core: GlobalCore) -> None:
    core.apply(job())
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="night"))
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="night"))
    assert body(core)["type"] == "job.stopped"


def test_one_that_has_ended_is_not_told_again_when_it_is_deleted(core: GlobalCore) -> None:
    core.apply(job())
    end(core)
    answer(core)
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="night"))
    core.pass_time(1_000)
    assert not core.notified


def test_only_outcomes_that_are_asked_for_are_told(core: GlobalCore) -> None:
    core.apply(job(on=(FAILED, STOPPED)))
    end(core)
    assert not core.notified and not core.records.notices.items()


def test_a_resumed_job_is_told_again_when_it_ends_again(core: GlobalCore) -> None:
    core.apply(job())
    end(core, succeeded=1, failed=1)
    first = core.notified[0].id
    answer(core)
    core.ask(global_pb2.ResumeJobRequest(tenant="acme", name="night"))
    core.pass_time(500)
    end(core)
    assert body(core)["type"] == "job.succeeded" and core.notified[0].id != first


def test_failures_are_tried_again_later_and_later_under_the_same_id(core: GlobalCore) -> None:
    core.apply(job())
    end(core)
    first, pauses = core.notified[0].id, []
    for _ in range(8):
        answer(core, "status 503")
        before_ms = core.now_ms
        while not core.notified:
            core.pass_time(100)
        pauses.append(core.now_ms - before_ms)
        assert core.notified[0].id == first
    assert 700 <= pauses[0] <= 1_400 and pauses[2] > 2 * pauses[0]
    assert 44_000 <= pauses[-1] <= 76_000, "bounded"


def test_it_is_given_up_in_the_end_and_shown(core: GlobalCore) -> None:
    core.apply(job())
    end(core)
    tries = 0
    while core.notified:
        answer(core, "status 503")
        tries += 1
        for _ in range(100):
            if core.notified or core.now_ms > 1_000_000 + 2 * HOUR_MS:
                break
            core.pass_time(1_000)
    assert 50 < tries < 100
    core.pass_time(1_000)
    status = core.records.statuses.get("acme", "night")
    assert status is not None
    (condition,) = [c for c in status.conditions if c.type == "Notified"]
    assert condition.status == objects_pb2.CONDITION_STATUS_FALSE and condition.reason == "DeliveryFailed"
    assert condition.message == f"{URL}: status 503"
    (event,) = core.announced
    assert (event.type, event.object, event.tenant) == ("NotifyFailed", "workload/acme/night", "acme")
    assert event.message == f"{URL} was not told of its end: status 503" and event.at_ms
    core.pass_time(DAY_MS + HOUR_MS)
    assert not core.records.notices.items() and not core.notified
    core.clean()


def test_who_wants_no_more_is_not_asked_again(core: GlobalCore) -> None:
    core.apply(job())
    end(core)
    answer(core, "status 410", final=True)
    core.pass_time(HOUR_MS // 2)
    assert not core.notified
    ((_, notice),) = core.records.notices.items()
    assert notice.error == "status 410"


def test_the_next_leader_tells_what_nobody_has_taken(core: GlobalCore) -> None:
    core.apply(job())
    end(core)
    (lost,) = core.notified
    core.notified.clear()
    core.elect()
    core.pass_time(1)
    assert [again.id for again in core.notified] == [lost.id]
    core.post(Notified(lost.number, ""))
    assert core.records.notices.items(), "what an earlier leader sent says nothing of this one's"
    answer(core)
    assert not core.records.notices.items()


def test_the_end_and_its_notice_are_one_transaction(core: GlobalCore) -> None:
    """Killed before the commit there is neither, after it there are both."""
    core.apply(job())
    core.hold_commits = True
    share = core.records.shares.get("north", "acme", "night")
    assert share is not None
    told = report(share, desired=2, succeeded=2)
    told.tasks.add(task="main", desired=2, ended=2, succeeded=2)
    core.say(1, workload=told)
    while not any(b"/g/notice/" in write.key for held in core.held for write in held.plan.writes):
        core.release(1)
        core.pass_time(100)
    core.crash(applied=len(core.held))
    core.hold_commits = False
    core.elect()
    core.pass_time(1)
    assert body(core)["type"] == "job.succeeded"


def test_a_dead_address_of_one_tenant_holds_no_other_up(core: GlobalCore) -> None:
    core.tenant("other")
    for number in range(6):
        core.apply(job(f"j{number}"))
        core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name=f"j{number}"))
    other = job("mine")
    other.metadata.tenant = "other"
    core.apply(other)
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="other", name="mine"))
    assert [command.tenant for command in core.notified] == ["acme"] * 4 + ["other"]
    core.post(Notified(core.notified[0].number, ""))
    assert [command.tenant for command in core.notified][5:] == ["acme"], "the next one follows"


def test_runs_of_a_schedule_are_told_and_the_schedule_itself_is_not(core: GlobalCore) -> None:
    nightly = job(schedule=objects_pb2.Schedule(cron="* * * * *"))
    core.apply(nightly)
    core.pass_time(61_000)
    (run,) = [w.metadata.name for w in core.records.workloads if w.metadata.owner]
    end(core, run)
    data = body(core)["data"]
    assert isinstance(data, dict) and (data["workload"], data["run"]) == ("night", run)
    answer(core)
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="night"))
    assert not core.notified


def test_an_address_that_no_setting_allows_is_refused_at_admission(core: GlobalCore) -> None:
    wrong = job()
    wrong.spec.notify[0].url = "http://169.254.169.254/latest/meta-data"
    refused = core.apply(wrong)
    assert isinstance(refused, Invalid) and refused.mistakes[0].path == "spec.notify[0].url"


def test_dead_addresses_of_many_tenants_hold_no_other_up(core: GlobalCore) -> None:
    tenants = [f"dead-{number}" for number in range(4)] + ["alive"]
    for tenant in tenants:
        core.tenant(tenant)
        for number in range(9 if tenant != "alive" else 1):
            core.apply(workload(f"j{number}", 1, UNIT, tenant, type=JOB, notify=[objects_pb2.Notification(url=URL)]))
            core.ask(global_pb2.DeleteWorkloadRequest(tenant=tenant, name=f"j{number}"))
    assert len(core.notified) == 16 and "alive" not in {command.tenant for command in core.notified}
    for command in core.notified[:2]:
        core.post(Notified(command.number, "nobody there"))
    assert [command.tenant for command in core.notified][16:] == ["dead-0", "alive"]


def test_ends_with_much_to_tell_are_told_by_as_many_transactions_as_it_takes(core: GlobalCore) -> None:
    names = [f"j{number}" for number in range(12)]
    for name in names:
        core.apply(job(name))
    for name in names:
        share = core.records.shares.get("north", "acme", name)
        assert share is not None
        told = report(share, desired=2, failed=2)
        told.tasks.add(task="main", desired=2, ended=2, failed=2, failure="why " * 20_000)
        core.say(1, workload=told)
    core.pass_time(10_000)
    assert len(core.notified) == core.settings.notify_of_tenant and len(core.records.notices) == len(names)
