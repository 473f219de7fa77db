"""What a tenant's workloads ask for: replicas of jobs that have ended ask for nothing."""

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import QuotaExceeded
from atoll.model.resources import Vector
from tests.support.global_core import GlobalCore, workload
from tests.unit.global_cp.core.test_jobs import Region, _job


@pytest.fixture
def north(core: GlobalCore) -> Region:
    return Region(core)


def _reject(name: str, cpus: int) -> objects_pb2.Workload:
    """A service that asks for so many times 100m."""
    return workload(name, replicas=cpus, unit=Vector(100, 64), on_quota=objects_pb2.ON_QUOTA_REJECT)


def _tries(core: GlobalCore, wanted: objects_pb2.Workload) -> bool:
    """Whether it would be taken."""
    answer = core.apply(wanted, dry_run=True)
    assert isinstance(answer, QuotaExceeded | global_pb2.ApplyWorkloadResponse)
    return isinstance(answer, global_pb2.ApplyWorkloadResponse)


def test_replicas_that_have_ended_ask_for_no_quota(core: GlobalCore, north: Region) -> None:
    """Four replicas of two tasks, one after the other, on a quota of five."""
    core.tenant(quota=Vector(500, 10_000))
    core.apply(_job({"extract": (), "load": ("extract",)}))
    assert _tries(core, _reject("web", 1)) and not _tries(core, _reject("web", 2))
    north.end("extract", succeeded=1)
    assert _tries(core, _reject("web", 2)) and not _tries(core, _reject("web", 3))
    north.end("extract", succeeded=2)
    assert _tries(core, _reject("web", 3)) and not _tries(core, _reject("web", 4)), "load has yet to run"
    north.end("load", succeeded=1, failed=1)
    assert _tries(core, _reject("web", 5)), "the job is over"
    core.elect()
    assert _tries(core, _reject("web", 5)), "whoever leads"
    core.ask(global_pb2.ResumeJobRequest(tenant="acme", name="etl"))
    assert _tries(core, _reject("web", 3)) and not _tries(core, _reject("web", 4)), "load begins anew"


def test_a_changed_job_asks_anew_only_for_tasks_that_are_others(core: GlobalCore, north: Region) -> None:
    core.tenant(quota=Vector(400, 10_000))
    etl = _job({"extract": (), "load": ("extract",)}, on_quota=objects_pb2.ON_QUOTA_REJECT)
    core.apply(etl)
    north.end("extract", succeeded=2)
    core.apply(_reject("web", 2))
    etl.spec.tasks[1].parallelism = 1
    assert _tries(core, etl), "load has half as much to run"
    etl.spec.tasks[1].replicas = 3
    etl.spec.tasks[1].parallelism = 0
    assert not _tries(core, etl), "a third replica of load"
    etl.spec.tasks[1].replicas = 2
    etl.spec.tasks[0].command[:] = ["run", "again"]
    assert not _tries(core, etl), "extract would run again"
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web"))
    assert _tries(core, etl)
    core.hold_commits = True
    core.start(global_pb2.ApplyWorkloadRequest(workload=etl))
    core.release(1)  # the change, and not yet the status that follows from it
    assert core.machine.reign is not None
    assert core.machine.reign.records.asked("acme") == Vector(400, 256)
    core.hold_commits = False
    core.release()


def test_a_job_that_is_refused_over_quota_is_so_when_it_is_resumed(core: GlobalCore, north: Region) -> None:
    """What it left when it failed is another's by then."""
    core.tenant(quota=Vector(200, 10_000))
    core.apply(_job({"extract": ()}, on_quota=objects_pb2.ON_QUOTA_REJECT))
    north.end("extract", failed=2)
    core.apply(_reject("web", 1))
    assert isinstance(core.ask(global_pb2.ResumeJobRequest(tenant="acme", name="etl")), QuotaExceeded)
    core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web"))
    resumed = core.ask(global_pb2.ResumeJobRequest(tenant="acme", name="etl"))
    assert isinstance(resumed, global_pb2.ApplyWorkloadResponse)
    assert core.records.asked("acme") == Vector(200, 128)
