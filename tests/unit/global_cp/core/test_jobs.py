"""Jobs at the global plane: which tasks are open, what follows their ends, their times; over leaders that die."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.errors import Conflict
from atoll.model.resources import Vector
from atoll.store import keys
from global_cp.core import jobs
from tests.support.global_core import UNIT, GlobalCore

JOB = objects_pb2.WORKLOAD_TYPE_JOB
CONTINUE = objects_pb2.ON_FAILURE_CONTINUE
Tasks = dict[str, tuple[str, ...]]
CHAIN: Tasks = {"extract": (), "transform": ("extract",), "load": ("transform",)}


def _job(tasks: Tasks, replicas: int = 2, **spec: object) -> objects_pb2.Workload:
    return objects_pb2.Workload(
        metadata=objects_pb2.Metadata(name="etl", tenant="acme"),
        spec=objects_pb2.WorkloadSpec(
            type=JOB,
            tasks=[
                objects_pb2.Task(
                    name=name,
                    replicas=replicas,
                    command=["run"],
                    depends_on=upstream,
                    resources=objects_pb2.ResourceRequirements(requests=Vector(100, 64).to_proto()),
                )
                for name, upstream in tasks.items()
            ],
            **spec,  # type: ignore[arg-type]
        ),
    )


class Region:
    """Runs what it is told: tells the ends of the replicas of tasks as the test wants them."""

    def __init__(self, core: GlobalCore, name: str = "north", session: int = 1) -> None:
        self.core, self.name, self.session = core, name, session
        self.ends: dict[str, tuple[int, int]] = {}  # succeeded and failed, by task
        self.surplus = 0  # bound beyond the part of a parallelism
        core.connect(session, name)

    @property
    def share(self) -> objects_pb2.Share:
        return self.core.records.shares.get(self.name, "acme", "etl") or objects_pb2.Share()

    @property
    def told(self) -> dict[str, int]:
        """What may run here."""
        return {task.name: task.replicas for task in self.share.spec.tasks if task.replicas}

    @property
    def parts(self) -> list[tuple[int, int]]:
        return [(part.replicas, part.held) for part in self.share.parallel]

    def end(self, task: str, succeeded: int = 0, failed: int = 0) -> None:
        self.ends[task] = (succeeded, failed)
        self.report()

    def report(self) -> None:
        share = self.share
        told = regional_pb2.WorkloadReport(
            tenant="acme", workload="etl", generation=share.metadata.generation, uid=share.metadata.uid
        )
        for task in sorted(share.spec.tasks, key=lambda task: task.name):
            succeeded, failed = self.ends.get(task.name, (0, 0))
            told.tasks.add(
                task=task.name,
                desired=task.replicas,
                ended=succeeded + failed,
                succeeded=succeeded,
                failed=failed,
                failure=f"{task.name}/1: it ended with code 3" if failed else "",
                surplus=self.surplus,
            )
        told.share_revision = self.core.records.mod(keys.share(self.name, "acme", "etl"))
        self.core.say(self.session, workload=told)
        self.core.pass_time(1_000)


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.elect()
    world.tenant()
    yield world
    world.clean()


@pytest.fixture
def north(core: GlobalCore) -> Region:
    return Region(core)


def _status(core: GlobalCore) -> objects_pb2.JobStatus:
    core.pass_time(1_000)
    status = core.records.statuses.get("acme", "etl")
    assert status is not None
    return status.job


def _phases(core: GlobalCore) -> dict[str, str]:
    names = {task.task: objects_pb2.TaskPhase.Name(task.phase) for task in _status(core).tasks}
    return {task: name.removeprefix("TASK_PHASE_").lower() for task, name in names.items()}


def test_a_task_starts_when_all_it_depends_on_has_succeeded(core: GlobalCore, north: Region) -> None:
    core.apply(_job(CHAIN))
    assert north.told == {"extract": 2}
    north.end("extract", succeeded=1)
    assert north.told == {"extract": 2}
    north.end("extract", succeeded=2)
    assert north.told == {"extract": 2, "transform": 2}
    north.end("transform", succeeded=2)
    north.end("load", succeeded=2)
    status = _status(core)
    assert (status.phase, status.reason) == (jobs.DONE, "Succeeded") and status.ended_ms > status.started_ms


def test_a_diamond_joins_what_it_forked(core: GlobalCore, north: Region) -> None:
    core.apply(_job({"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}))
    north.end("a", succeeded=2)
    assert set(north.told) == {"a", "b", "c"}
    north.end("c", succeeded=2)
    assert set(north.told) == {"a", "b", "c"}
    north.end("b", succeeded=2)
    assert set(north.told) == {"a", "b", "c", "d"}


def test_what_depends_on_a_failed_task_is_skipped_and_says_why(core: GlobalCore, north: Region) -> None:
    core.apply(_job(CHAIN))
    north.end("extract", succeeded=1, failed=1)
    assert _phases(core) == {"extract": "failed", "transform": "skipped", "load": "skipped"}
    status = _status(core)
    assert status.phase == jobs.FAILED and status.reason == "TaskFailed"
    assert "it ended with code 3" in status.message and status.tasks[1].message == "extract did not succeed"
    assert north.told == {"extract": 2}, "what has ended stays for those who ask"


def test_by_default_a_failure_stops_the_rest_and_with_continue_only_what_depends_on_it(
    core: GlobalCore, north: Region
) -> None:
    fork: Tasks = {"a": (), "b": (), "after-a": ("a",), "after-b": ("b",)}
    core.apply(_job(fork))
    north.end("b", succeeded=1)
    north.end("a", failed=2)
    assert _phases(core) == {"a": "failed", "b": "stopped", "after-a": "skipped", "after-b": "skipped"}
    assert list(north.share.stopped) == ["b"] and north.told == {"a": 2, "b": 1}
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="etl"))
    core.say(
        1,
        workload=regional_pb2.WorkloadReport(
            tenant="acme", workload="etl", generation=1, uid=north.share.metadata.uid, closed=True
        ),
    )
    north.ends.clear()
    core.apply(_job(fork, on_failure=CONTINUE))
    north.end("a", failed=2)
    assert _phases(core) == {"a": "failed", "b": "running", "after-a": "skipped", "after-b": "pending"}
    north.end("b", succeeded=2)
    north.end("after-b", succeeded=2)
    assert _status(core).phase == jobs.FAILED and _phases(core)["after-b"] == "succeeded"


def test_enough_completions_are_a_success_and_stop_the_rest(core: GlobalCore, north: Region) -> None:
    job = _job({"main": ()}, replicas=5)
    job.spec.tasks[0].completions = 3
    core.apply(job)
    north.end("main", succeeded=2, failed=1)
    assert _phases(core) == {"main": "running"}
    north.end("main", succeeded=3, failed=1)
    assert _phases(core) == {"main": "succeeded"} and list(north.share.stopped) == ["main"]


def test_a_task_over_several_regions_is_one_task(core: GlobalCore, north: Region) -> None:
    south = Region(core, "south", 2)
    core.apply(
        _job({"a": (), "b": ("a",)}, replicas=2, spread=objects_pb2.Spread(strategy=objects_pb2.SPREAD_STRATEGY_EVEN))
    )
    assert north.told == south.told == {"a": 1}
    north.end("a", succeeded=1)
    assert "b" not in north.told
    south.end("a", succeeded=1)
    assert north.told == south.told == {"a": 1, "b": 1}
    south.end("b", failed=1)
    assert _phases(core)["b"] == "failed" and list(north.share.stopped) == ["b"] == list(south.share.stopped)


def test_a_resumed_job_goes_on_from_what_failed(core: GlobalCore, north: Region) -> None:
    core.apply(_job(CHAIN))
    assert isinstance(core.ask(global_pb2.ResumeJobRequest(tenant="acme", name="etl")), Conflict)
    north.end("extract", succeeded=2)
    north.end("transform", succeeded=1, failed=1)
    assert _phases(core)["load"] == "skipped"
    core.ask(global_pb2.ResumeJobRequest(tenant="acme", name="etl"))
    north.ends["transform"] = (1, 0)  # the region tries again what failed
    north.report()
    assert _phases(core) == {"extract": "succeeded", "transform": "running", "load": "pending"}
    assert north.share.spec.resumed == 2 == north.share.metadata.generation and not north.share.stopped
    north.end("transform", succeeded=2)
    north.end("load", succeeded=2)
    assert _status(core).phase == jobs.DONE


def test_a_job_that_failed_goes_on_when_a_task_of_it_is_corrected(core: GlobalCore, north: Region) -> None:
    """Also with what was stopped, and with what was skipped for it: it says nothing any more of what is over."""
    core.apply(_job({"a": (), "b": (), "after-a": ("a",), "after-b": ("b",)}))
    north.end("a", failed=2)
    assert _phases(core) == {"a": "failed", "b": "stopped", "after-a": "skipped", "after-b": "skipped"}
    corrected = _job({"a": (), "b": (), "after-a": ("a",), "after-b": ("b",)})
    corrected.metadata.labels.add(key="seen", value="yes")
    core.apply(corrected)
    assert _status(core).phase == jobs.FAILED, "a label is no correction"
    corrected.spec.tasks[0].command[:] = ["right"]
    core.apply(corrected)
    north.ends.clear()
    north.report()
    assert _phases(core) == {"a": "running", "b": "running", "after-a": "pending", "after-b": "pending"}
    assert north.share.spec.resumed == north.share.metadata.generation and not north.share.stopped
    for task in ("a", "b", "after-a", "after-b"):
        north.end(task, succeeded=2)
    assert _status(core).phase == jobs.DONE


def test_what_was_skipped_waits_again_when_what_failed_is_corrected_meanwhile(core: GlobalCore, north: Region) -> None:
    fork: Tasks = {"a": (), "b": (), "after-a": ("a",), "last": ("after-a", "b")}
    core.apply(_job(fork, on_failure=CONTINUE))
    north.end("a", failed=2)
    assert _phases(core) == {"a": "failed", "b": "running", "after-a": "skipped", "last": "skipped"}
    corrected = _job(fork, on_failure=CONTINUE)
    corrected.spec.tasks[0].command[:] = ["right"]
    core.apply(corrected)
    north.ends.clear()
    north.report()
    assert _phases(core) == {"a": "running", "b": "running", "after-a": "pending", "last": "pending"}
    north.end("a", succeeded=2)
    assert set(north.told) == {"a", "b", "after-a"}


def test_another_spec_keeps_what_has_succeeded(core: GlobalCore, north: Region) -> None:
    core.apply(_job(CHAIN))
    north.end("extract", succeeded=2)
    changed = _job(CHAIN)
    changed.spec.tasks[2].command[:] = ["other"]
    core.apply(changed)
    assert set(north.told) == {"extract", "transform"}
    changed.spec.tasks[0].command[:] = ["anew"]
    core.apply(changed)
    north.ends.clear()
    north.report()
    assert _phases(core) == {"extract": "running", "transform": "running", "load": "pending"}


def test_nothing_starts_before_its_window_and_nothing_outlasts_it(core: GlobalCore, north: Region) -> None:
    begin, end = core.now_ms + 60_000, core.now_ms + 120_000
    core.apply(_job(CHAIN, not_before_ms=begin, not_after_ms=end))
    assert not north.told and _status(core).phase == jobs.WAITS
    core.pass_time(60_000)
    assert north.told == {"extract": 2} and _status(core).started_ms >= begin
    core.pass_time(60_000)
    north.report()
    assert _status(core).reason == "WindowOver" and not north.told and list(north.share.stopped) == ["extract"]
    assert _phases(core) == {"extract": "stopped", "transform": "skipped", "load": "skipped"}


def test_the_active_deadline_counts_from_the_begin_and_anew_from_a_resumption(core: GlobalCore, north: Region) -> None:
    core.apply(_job({"main": ()}, active_deadline_s=30))
    core.pass_time(29_000)
    assert north.told == {"main": 2}
    core.pass_time(2_000)
    north.report()
    assert _status(core).reason == "DeadlineExceeded" and not north.told
    core.ask(global_pb2.ResumeJobRequest(tenant="acme", name="etl"))
    core.pass_time(1_000)
    assert north.told == {"main": 2} and _status(core).phase == jobs.RUNS
    core.pass_time(31_000)
    assert _status(core).reason == "DeadlineExceeded"


def test_a_job_that_has_ended_goes_by_itself(core: GlobalCore, north: Region) -> None:
    core.apply(_job({"main": ()}, time_to_live_s=60))
    north.end("main", succeeded=2)
    core.pass_time(50_000)
    core.elect()
    north = Region(core)
    assert not north.share.removed
    core.pass_time(20_000)
    assert north.share.removed
    core.say(
        1,
        workload=regional_pb2.WorkloadReport(
            tenant="acme", workload="etl", generation=1, uid=north.share.metadata.uid, closed=True
        ),
    )
    core.pass_time(1_000)
    assert core.records.workloads.get("acme", "etl") is None


@pytest.mark.parametrize("applied", [0, 1])
@pytest.mark.parametrize("crash_at", range(8))
def test_every_step_survives_the_leader(core: GlobalCore, crash_at: int, applied: int) -> None:
    """The leader dies at the n-th transaction of the history, which had applied or had not. Whatever the next leader
    does not hear again it does not open, and what was opened stays open."""
    region, commits = Region(core), 0
    core.apply(_job(CHAIN))
    core.hold_commits = True
    for task in CHAIN:
        region_ends = {task: (2, 0)}
        region.ends |= region_ends
        for _ in range(8):
            if commits == crash_at and core.held:
                commits += 1
                core.crash(applied)
                core.hold_commits = False
                core.elect()
                opened = dict(region.told)
                region.session += 1
                core.connect(region.session)
                assert region.told == opened, "nothing is opened or closed on nobody's word"
                region.report()
            commits += bool(core.held)
            core.release(1)
            region_share = core.machine.reign and core.machine.reign.records.shares.get("north", "acme", "etl")
            assert region_share
            told = {each.name for each in region_share.spec.tasks if each.replicas}
            assert all(set(CHAIN[name]) <= set(region.ends) for name in told)
            _say(core, region)
    core.hold_commits = False
    core.release()
    region.report()
    assert _status(core).phase == jobs.DONE


def _say(core: GlobalCore, region: Region) -> None:
    """As `report`, while commits are held."""
    assert core.machine.reign
    share = core.machine.reign.records.shares.get("north", "acme", "etl")
    assert share
    told = regional_pb2.WorkloadReport(
        tenant="acme", workload="etl", generation=share.metadata.generation, uid=share.metadata.uid
    )
    for task in sorted(share.spec.tasks, key=lambda task: task.name):
        ended = region.ends.get(task.name, (0, 0))[0] if task.replicas else 0
        told.tasks.add(task=task.name, desired=task.replicas, ended=ended, succeeded=ended)
    core.say(region.session, workload=told)
    core.pass_time(300)


def test_what_has_a_place_stays_and_what_waits_may_go() -> None:
    assert jobs.settled({"a": 2, "b": 1}, {"a": 3}, 3) == {"a": 3, "b": 0}
    assert jobs.settled({"a": 2, "b": 1}, {"a": 2}, 3) == {"a": 2, "b": 1}
    assert jobs.settled({"a": 0, "b": 2, "c": 2}, {"a": 1, "b": 0, "c": 2}, 4) == {"a": 1, "b": 1, "c": 2}
    assert jobs.settled({"a": 2, "b": 0}, {"a": 3, "b": 1}, 2) == {"a": 2, "b": 0}, "fewer are asked for"


def test_each_region_has_its_part_and_quota_only_for_that(core: GlobalCore, north: Region) -> None:
    job = _job({"main": ()}, replicas=10)
    job.spec.tasks[0].parallelism = 3
    job.spec.tasks[0].resources.requests.CopyFrom(UNIT.to_proto())
    core.apply(job)
    assert [(part.task, part.replicas) for part in north.share.parallel] == [("main", 3)]
    core.pass_time(1_000)
    slice_ = core.records.slices.get("acme", "north")
    assert slice_ and slice_.accounts[0].granted == (UNIT * 3).to_proto()


def test_a_part_goes_to_another_region_only_when_the_first_one_says_that_nothing_runs_by_it(
    core: GlobalCore, north: Region
) -> None:
    south = Region(core, "south", 2)
    job = _job({"main": ()}, spread=objects_pb2.Spread(strategy=objects_pb2.SPREAD_STRATEGY_EVEN))
    job.spec.tasks[0].parallelism = 1
    core.apply(job)
    assert (north.parts, south.parts) == ([(1, 0)], [(0, 0)])
    south.report()
    north.end("main", succeeded=1)
    assert (north.parts, south.parts) == ([(0, 1)], [(0, 0)]), "it has not heard of that yet"
    north.report()
    assert (north.parts, south.parts) == ([(0, 0)], [(1, 0)])
    job.spec.tasks[0].args[:] = ["anew"]
    core.apply(job)
    south.surplus = 1
    north.ends.clear()
    north.report()
    south.report()
    assert (north.parts, south.parts) == ([(0, 0)], [(0, 1)]), "it runs by an earlier share still"
    core.elect()
    for region in (north, south):
        core.connect(region.session, region.name)
        region.report()
    assert (north.parts, south.parts) == ([(0, 0)], [(0, 1)]), "also for another leader"
    south.surplus = 0
    south.report()
    assert (north.parts, south.parts) == ([(1, 0)], [(0, 0)])
