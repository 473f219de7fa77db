"""Jobs with a schedule: their runs begin once each, whoever leads; what is missed, kept, replaced and refused."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Invalid
from global_cp.core import jobs
from global_cp.core.jobs import DONE, FAILED
from global_cp.core.schedules import run_of
from tests.support.global_core import GlobalCore, report, workload
from tests.unit.global_cp.core.test_jobs import Region

MINUTE_MS = 60_000
ALLOW, FORBID = objects_pb2.CONCURRENCY_ALLOW, objects_pb2.CONCURRENCY_FORBID
REPLACE = objects_pb2.CONCURRENCY_REPLACE


class Nights(Region):
    """A region in which the run named last is told to end."""

    run = ""

    @property
    def share(self) -> objects_pb2.Share:
        return self.core.records.shares.get(self.name, "acme", self.run) or objects_pb2.Share()

    def finish(self, run: str, succeeded: int = 1, failed: int = 0) -> None:
        self.run = run
        self.ends["main"] = succeeded, failed
        share = self.share
        assert share.metadata.name == run
        told = report(share)
        told.tasks.add(task="main", desired=1, ended=succeeded + failed, succeeded=succeeded, failed=failed)
        self.core.say(self.session, workload=told)
        self.core.pass_time(1_000)

    def close(self, run: str) -> None:
        """The region has closed what was removed."""
        self.run = run
        assert self.share.removed
        self.core.say(self.session, workload=report(self.share, closed=True))
        self.core.pass_time(1_000)


def _nightly(**schedule: object) -> objects_pb2.Workload:
    job = workload("nightly", replicas=1, type=objects_pb2.WORKLOAD_TYPE_JOB)
    job.spec.schedule.MergeFrom(objects_pb2.Schedule(cron="*/10 * * * *", **schedule))  # type: ignore[arg-type]
    return job


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.now_ms = 1_800_000_000_000 // (10 * MINUTE_MS) * 10 * MINUTE_MS + MINUTE_MS  # 1 min past
    world.elect()
    world.tenant()
    yield world
    world.clean()


@pytest.fixture
def north(core: GlobalCore) -> Nights:
    return Nights(core)


def _runs(core: GlobalCore) -> list[str]:
    """Those that are not being deleted."""
    found = [w.metadata for w in core.records.workloads if w.metadata.owner == "nightly" and not w.metadata.deleted_ms]
    return [metadata.name for metadata in found]


def _status(core: GlobalCore) -> objects_pb2.ScheduleStatus:
    status = core.records.statuses.get("acme", "nightly")
    assert status is not None
    return status.schedule


def _next_time(core: GlobalCore) -> None:
    core.pass_time(10 * MINUTE_MS)


def test_each_time_has_a_run_of_its_own(core: GlobalCore, north: Nights) -> None:
    core.apply(_nightly())
    core.pass_time(5_000)
    assert _runs(core) == [] and not core.records.shares.items()
    assert _status(core).next_ms == core.now_ms // (10 * MINUTE_MS) * 10 * MINUTE_MS + 10 * MINUTE_MS
    _next_time(core)
    (first,) = _runs(core)
    assert first.startswith("nightly-20") and _status(core).last_run == first
    run = core.records.workloads.get("acme", first)
    assert run and not run.spec.HasField("schedule") and run.spec.type == objects_pb2.WORKLOAD_TYPE_JOB
    assert {label.key: label.value for label in run.metadata.labels}["atoll/schedule"] == "nightly"
    north.finish(first)
    _next_time(core)
    assert len(_runs(core)) == 2 and _status(core).missed == 0


def test_a_run_of_a_job_that_was_resumed_before_it_had_a_schedule_ends_once() -> None:
    nightly = _nightly()
    nightly.spec.resumed = 3
    run = run_of(nightly, 60_000, 60_000)
    assert run.spec.resumed == 0 and run.metadata.generation == 1
    succeeded = {"main": jobs.Ended(succeeded=1)}
    done = jobs.follow(run, jobs.follow(run, jobs.NO_STATUS, {}, 60_000), succeeded, 60_001)
    assert done.phase == DONE
    assert jobs.follow(run, done, succeeded, 60_002) == done


@pytest.mark.parametrize("applied", [0, 1])
def test_a_leader_that_dies_at_a_run_neither_loses_nor_doubles_it(core: GlobalCore, applied: int) -> None:
    core.apply(_nightly())
    core.pass_time(5_000)
    core.hold_commits = True
    _next_time(core)
    assert core.held
    core.crash(applied)
    core.hold_commits = False
    core.elect()
    core.pass_time(1_000)
    assert len(_runs(core)) == 1
    core.elect()
    core.pass_time(1_000)
    assert len(_runs(core)) == 1


def test_of_times_that_nobody_was_there_for_the_last_is_caught_up(core: GlobalCore, north: Nights) -> None:
    core.apply(_nightly())
    core.pass_time(5_000)
    core.crash(0)
    core.now_ms += 35 * MINUTE_MS
    core.elect()
    core.pass_time(1_000)
    assert len(_runs(core)) == 1 and (_status(core).missed, _status(core).reason) == (2, "TooLate")


def test_what_comes_too_late_is_missed(core: GlobalCore) -> None:
    core.apply(_nightly(starting_deadline_s=60))
    core.pass_time(5_000)
    core.crash(0)
    core.now_ms += 12 * MINUTE_MS
    core.elect()
    core.pass_time(1_000)
    assert _runs(core) == [] and (_status(core).missed, _status(core).reason) == (1, "TooLate")


def test_forbid_misses_a_time_while_a_run_goes_on_and_allow_does_not(core: GlobalCore, north: Nights) -> None:
    core.apply(_nightly(concurrency=FORBID))
    _next_time(core)
    (first,) = _runs(core)
    _next_time(core)
    assert _runs(core) == [first] and _status(core).reason == "StillRunning"
    north.finish(first)
    _next_time(core)
    assert len(_runs(core)) == 2
    core.apply(_nightly(concurrency=ALLOW))
    _next_time(core)
    assert len(_runs(core)) == 3


def test_replace_deletes_the_earlier_run_and_begins_when_it_is_gone(core: GlobalCore, north: Nights) -> None:
    core.apply(_nightly(concurrency=REPLACE))
    _next_time(core)
    (first,) = _runs(core)
    _next_time(core)
    assert _runs(core) == [], "the first is still being stopped"
    north.close(first)
    (second,) = _runs(core)
    assert second != first and _status(core).missed == 0


def test_of_runs_that_have_ended_the_newest_are_kept(core: GlobalCore, north: Nights) -> None:
    core.apply(_nightly(keep_succeeded=1, keep_failed=2))
    names = []
    for failed in (0, 1, 1, 0, 1):
        _next_time(core)
        names.append(_runs(core)[-1])
        north.finish(names[-1], succeeded=1 - failed, failed=failed)
    assert _runs(core) == [names[2], names[3], names[4]]
    phases = [core.records.statuses.get("acme", name) for name in _runs(core)]
    assert [status.job.phase for status in phases if status] == [FAILED, DONE, FAILED]


def test_a_suspended_schedule_begins_nothing(core: GlobalCore) -> None:
    core.apply(_nightly(suspended=True))
    _next_time(core)
    assert _runs(core) == [] and _status(core).next_ms == 0


def test_another_expression_counts_from_now(core: GlobalCore) -> None:
    core.apply(_nightly())
    core.pass_time(5 * MINUTE_MS)
    changed = _nightly()
    changed.spec.schedule.cron = "2-59/10 * * * *"
    core.apply(changed)
    core.pass_time(1_000)
    assert _runs(core) == []
    core.pass_time(10 * MINUTE_MS)
    assert len(_runs(core)) == 1


def test_a_deleted_schedule_takes_its_runs_with_it(core: GlobalCore, north: Nights) -> None:
    core.apply(_nightly())
    _next_time(core)
    (run,) = _runs(core)
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="nightly"))
    core.pass_time(1_000)
    assert core.records.workloads.get("acme", "nightly") is None and _runs(core) == []
    north.close(run)
    assert core.records.workloads.get("acme", run) is None


def test_nonsense_is_refused_at_its_path_all_at_once(core: GlobalCore) -> None:
    bad = _nightly(time_zone="Mars/Olympus", starting_deadline_s=-1, keep_failed=-1, keep_succeeded=101)
    bad.spec.schedule.cron = "61 25 * * *"
    bad.spec.deadline_ms = core.now_ms + MINUTE_MS
    bad.metadata.name = "x" * 60
    answer = core.apply(bad)
    assert isinstance(answer, Invalid)
    assert {m.path for m in answer.mistakes} == {
        "metadata.name",
        "spec.schedule.cron",
        "spec.schedule.timeZone",
        "spec.schedule.startingDeadline",
        "spec.schedule.keepSucceeded",
        "spec.schedule.keepFailed",
        "spec.deadline",
    }
    service = workload()
    service.spec.schedule.cron = "@daily"
    answer = core.apply(service)
    assert isinstance(answer, Invalid) and [m.path for m in answer.mistakes] == ["spec.schedule"]


def test_a_schedule_asks_for_no_quota_and_its_zone_counts(core: GlobalCore) -> None:
    job = _nightly(time_zone="Europe/Berlin")
    job.spec.schedule.cron = "0 3 * * *"
    job.spec.on_quota = objects_pb2.ON_QUOTA_REJECT
    job.spec.tasks[0].replicas = 10_000
    core.apply(job)
    core.pass_time(1_000)
    assert core.records.asked("acme").amounts() == (0, 0, 0, 0)
    assert _status(core).next_ms // 3_600_000 % 24 in (1, 2), "3 o'clock in Berlin"


def test_a_schedule_whose_status_comes_late_has_its_next_time(core: GlobalCore, north: Nights) -> None:
    """Statuses are written in batches: the one before may have been a moment ago."""
    core.apply(workload("web", replicas=1))
    core.apply(_nightly())
    core.pass_time(2_000)
    assert _status(core).next_ms
    _next_time(core)
    assert len(_runs(core)) == 1
