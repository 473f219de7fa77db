"""What is refused of a job, each mistake at its path; how long its longest chain takes."""

from collections.abc import Callable

import pytest

from atoll.api.v1 import objects_pb2
from global_cp.core.admission import mistakes_in_workload
from global_cp.core.defaults import complete_workload
from global_cp.core.job_rules import longest_chain_ms, missed
from tests.support.global_core import UNIT, workload

Spec = objects_pb2.WorkloadSpec
JOB = objects_pb2.WORKLOAD_TYPE_JOB


def _job(**upstream: str) -> objects_pb2.Workload:
    """A job of these tasks, each depending on those named."""
    job = workload("etl", type=JOB)
    del job.spec.tasks[:]
    for name, others in (upstream or {"main": ""}).items():
        task = job.spec.tasks.add(name=name, replicas=2, command=["run"], depends_on=others.split())
        task.resources.requests.CopyFrom(UNIT.to_proto())
    return job


def _mistakes(job: objects_pb2.Workload) -> dict[str, str]:
    return {m.path: m.message for m in mistakes_in_workload(complete_workload(job), {}, {})}


def _retries(spec: Spec, **fields: object) -> None:
    spec.tasks[0].retries.MergeFrom(objects_pb2.RetryPolicy(**fields))  # type: ignore[arg-type]


BAD: list[tuple[str, Callable[[Spec], object]]] = [
    ("spec.deadline", lambda s: setattr(s, "deadline_ms", -1)),
    ("spec.notBefore", lambda s: setattr(s, "not_before_ms", 1 << 62)),
    ("spec.notAfter", lambda s: [setattr(s, "not_before_ms", 9), setattr(s, "not_after_ms", 9)]),
    ("spec.deadline", lambda s: [setattr(s, "not_before_ms", 9), setattr(s, "deadline_ms", 5)]),
    ("spec.activeDeadline", lambda s: setattr(s, "active_deadline_s", -1)),
    ("spec.activeDeadline", lambda s: [setattr(s, "active_deadline_s", 5), setattr(s, "estimate_ms", 6_000)]),
    ("spec.timeToLive", lambda s: setattr(s, "time_to_live_s", 1 << 40)),
    ("spec.onFailure", lambda s: setattr(s, "on_failure", 9)),
    ("spec.tasks[0].parallelism", lambda s: setattr(s.tasks[0], "parallelism", -1)),
    ("spec.tasks[0].completions", lambda s: setattr(s.tasks[0], "completions", 3)),
    ("spec.tasks[0].replicas", lambda s: setattr(s.tasks[0], "replicas", 10_001)),
    ("spec.tasks[0].speculation.percent", lambda s: setattr(s.tasks[0].speculation, "percent", 100)),
    ("spec.tasks[0].speculation.most", lambda s: setattr(s.tasks[0].speculation, "most", -1)),
    ("spec.tasks[0].retries.limit", lambda s: _retries(s, limit=-1)),
    ("spec.tasks[0].retries.backoff", lambda s: _retries(s, backoff_ms=1)),
    ("spec.tasks[0].retries.backoffMax", lambda s: _retries(s, backoff_ms=500, backoff_max_ms=100)),
    ("spec.tasks[0].retries.fatalCodes[0]", lambda s: _retries(s, fatal_codes=[0])),
    ("spec.tasks[0].retries.ignoredCodes[0]", lambda s: _retries(s, ignored_codes=[256])),
    ("spec.tasks[0].retries.ignoredCodes[0]", lambda s: _retries(s, ignored_codes=[2], fatal_codes=[2])),
    ("spec.tasks[0].retries.fatalCodes", lambda s: _retries(s, fatal_codes=range(1, 100))),
    ("spec.tasks[0].dependsOn[0]", lambda s: s.tasks[0].depends_on.append("main")),
    ("spec.tasks[0].dependsOn[0]", lambda s: s.tasks[0].depends_on.append("nobody")),
    ("spec.tasks[0].dependsOn[0]", lambda s: s.tasks[0].depends_on.append("A B")),
]


@pytest.mark.parametrize(("path", "spoil"), BAD, ids=[f"{i}-{path}" for i, (path, _) in enumerate(BAD)])
def test_it_is_refused_at_its_path(path: str, spoil: Callable[[Spec], object]) -> None:
    job = _job()
    assert _mistakes(job) == {}
    spoil(job.spec)
    assert path in _mistakes(job)


def test_a_circle_is_named() -> None:
    assert _mistakes(_job(a="", b="a", c="a b", d="b c")) == {}
    found = _mistakes(_job(start="", a="start c", b="a", c="b"))
    assert list(found.values()) == ["goes in a circle: a → c → b → a"]


def test_a_service_has_nothing_of_a_job() -> None:
    service = workload()
    service.spec.active_deadline_s = 3
    service.spec.not_before_ms = 7
    service.spec.tasks[0].parallelism = 1
    service.spec.tasks[0].depends_on.append("main")
    assert set(_mistakes(service)) == {
        "spec.activeDeadline",
        "spec.notBefore",
        "spec.tasks[0].parallelism",
        "spec.tasks[0].dependsOn",
    }


def test_the_longest_chain_counts_waves() -> None:
    job = _job(a="", b="a", c="")
    job.spec.estimate_ms = 10_000
    assert longest_chain_ms(job.spec) == 20_000
    job.spec.tasks[2].replicas, job.spec.tasks[2].parallelism = 9, 2
    assert longest_chain_ms(job.spec) == 50_000


def test_times_that_have_passed_or_leave_no_room_are_refused_together() -> None:
    job = _job(a="", b="a")
    job.spec.estimate_ms = 10_000
    job.spec.deadline_ms, job.spec.not_after_ms = 1_000, 1_019_000
    found = {m.path: m.message for m in missed(job.spec, 1_000_000)}
    assert found["spec.deadline"] == "has passed 16.6 min ago"
    assert found["spec.notAfter"] == "cannot be met: 19 s are left and the estimate is 20 s"
    (long_ago,) = [m for m in missed(job.spec, 2_519 * 86_400_000) if m.path == "spec.deadline"]
    assert long_ago.message == "has passed 2,519 days ago"
    job.spec.not_after_ms, job.spec.deadline_ms = 1_021_000, 0
    assert missed(job.spec, 1_000_000) == []
    job.spec.not_before_ms = 1_010_000
    assert [m.path for m in missed(job.spec, 1_000_000)] == ["spec.notAfter"]


def test_who_counts_tries_counts_runs() -> None:
    job = _job()
    assert complete_workload(job).spec.tasks[0].retries.limit == 5
    job.spec.tasks[0].restart.mode = objects_pb2.RESTART_MODE_NEVER
    assert complete_workload(job).spec.tasks[0].retries.limit == 0
    job = _job()
    job.spec.tasks[0].retries.limit = 3
    done = complete_workload(job)
    assert done.spec.tasks[0].restart.mode == objects_pb2.RESTART_MODE_NEVER and complete_workload(done) == done
