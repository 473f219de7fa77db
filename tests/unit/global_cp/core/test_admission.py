"""Every kind of bad input: one mistake each, at a stable path; and all of them at once."""

from collections.abc import Callable
from typing import Any

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Conflict, Invalid, NotFound, QuotaExceeded
from atoll.manifest.selectors import parse_requirement
from atoll.model.resources import LARGEST, Vector
from global_cp.core.admission import mistakes_in_tenant, mistakes_in_workload, over_quota, spelled
from global_cp.core.defaults import complete_tenant, complete_workload
from tests.support.global_core import GlobalCore, tenant, workload

Spoil = Callable[[objects_pb2.Workload], object]
NORTH = {"north": objects_pb2.Region()}
ROOM = objects_pb2.RegionSummary(
    nodes_total=2, largest_node=objects_pb2.Resources(cpu_milli=4_000, memory_mib=8_192, disk_mib=100)
)


def _task(w: objects_pb2.Workload) -> objects_pb2.Task:
    return w.spec.tasks[0]


def _second_task(w: objects_pb2.Workload) -> None:
    w.spec.tasks.add().CopyFrom(w.spec.tasks[0])


def _http(w: objects_pb2.Workload, port: int = 80, path: str = "/", **fields: int) -> None:
    probe = objects_pb2.Probe(http=objects_pb2.HttpCheck(port=port, path=path), **fields)  # type: ignore[arg-type]
    _task(w).readiness.CopyFrom(probe)


def _requests(w: objects_pb2.Workload) -> objects_pb2.Resources:
    return _task(w).resources.requests


TASK = "spec.tasks[0]"
EXISTS = objects_pb2.LabelRequirement(key="app", operator=objects_pb2.SELECTOR_OPERATOR_EXISTS)
BAD: list[tuple[str, Spoil]] = [
    ("metadata.name", lambda w: setattr(w.metadata, "name", "")),
    ("metadata.name", lambda w: setattr(w.metadata, "name", "a/b")),
    ("metadata.name", lambda w: setattr(w.metadata, "name", "..")),
    ("metadata.name", lambda w: setattr(w.metadata, "name", "a\0b")),
    ("metadata.name", lambda w: setattr(w.metadata, "name", "x" * 10_240)),
    ("metadata.labels[0]", lambda w: w.metadata.labels.add(key="bad key")),
    ("metadata.labels[0]", lambda w: w.metadata.labels.add(key="trusted/pool", value="a")),
    ("metadata.labels[0]", lambda w: w.metadata.labels.add(key="a", value="b c")),
    ("metadata.annotations", lambda w: w.metadata.annotations.add(key="a", value="x" * 20_000)),
    ("spec.type", lambda w: setattr(w.spec, "type", 77)),
    ("spec.priority", lambda w: setattr(w.spec, "priority", 99)),
    ("spec.bounded", lambda w: setattr(w.spec, "bounded_s", 5)),
    ("spec.deadline", lambda w: setattr(w.spec, "deadline_ms", 1)),
    ("spec.deadline", lambda w: _job(w, deadline_ms=-1)),
    ("spec.deadline", lambda w: _job(w, deadline_ms=1 << 62)),
    ("spec.estimate", lambda w: _job(w, estimate_ms=-1)),
    ("spec.estimate", lambda w: _job(w, estimate_ms=1 << 62)),
    ("spec.bounded", lambda w: setattr(w.spec, "run_class", objects_pb2.RUN_CLASS_BOUNDED)),
    ("spec.regions[0]", lambda w: w.spec.regions.append("atlantis")),
    ("spec.regions[0]", lambda w: w.spec.regions.append("../north")),
    ("spec.regions[1]", lambda w: w.spec.regions.extend(["north", "north"])),
    ("spec.tasks", lambda w: w.spec.ClearField("tasks")),
    ("spec.tasks[1].name", _second_task),
    (f"{TASK}.name", lambda w: setattr(_task(w), "name", "No")),
    (f"{TASK}.replicas", lambda w: setattr(_task(w), "replicas", -1)),
    (f"{TASK}.replicas", lambda w: setattr(_task(w), "replicas", 10_001)),
    (f"{TASK}.command", lambda w: _task(w).ClearField("command")),
    (f"{TASK}.command[0]", lambda w: _task(w).command.insert(0, "")),
    (f"{TASK}.args[0]", lambda w: _task(w).args.append("a\0b")),
    (f"{TASK}.image", lambda w: setattr(_task(w), "driver", objects_pb2.DRIVER_DOCKER)),
    (f"{TASK}.image", lambda w: setattr(_task(w), "image", "a image")),
    (f"{TASK}.driver", lambda w: setattr(_task(w), "driver", 12)),
    (f"{TASK}.env[0]", lambda w: _task(w).env.add(key="1A")),
    (f"{TASK}.env[0]", lambda w: _task(w).env.add(key="ATOLL_TOKEN")),
    (f"{TASK}.env[0]", lambda w: _task(w).env.add(key="A", value="\0")),
    (f"{TASK}.env[1].name", lambda w: _task(w).env.extend([objects_pb2.Label(key="A"), objects_pb2.Label(key="A")])),
    (f"{TASK}.ports[0].number", lambda w: _task(w).ports.add(name="http", number=65_536)),
    (f"{TASK}.ports[0].name", lambda w: _task(w).ports.add(name="A", number=80)),
    (f"{TASK}.resources.requests.cpu", lambda w: setattr(_requests(w), "cpu_milli", 0)),
    (f"{TASK}.resources.requests.memory", lambda w: setattr(_requests(w), "memory_mib", 0)),
    (f"{TASK}.resources.requests.disk", lambda w: setattr(_requests(w), "disk_mib", -1)),
    (f"{TASK}.resources.requests.gpu", lambda w: setattr(_requests(w), "gpu_milli", LARGEST)),
    (f"{TASK}.resources.requests.gpu", lambda w: setattr(_requests(w), "gpu_milli", 1_500)),
    (f"{TASK}.resources.requests.gpu", lambda w: setattr(_requests(w), "gpu_milli", 65_000)),
    (f"{TASK}.resources.limits.gpu", lambda w: setattr(_task(w).resources.limits, "gpu_milli", 1)),
    (f"{TASK}.gpuModels", lambda w: _task(w).gpu_models.append("T4")),
    (f"{TASK}.resources.limits.cpu", lambda w: setattr(_task(w).resources.limits, "cpu_milli", 1)),
    (f"{TASK}.resources.requests", lambda w: setattr(_requests(w), "memory_mib", 8_193)),
    (f"{TASK}.readiness", lambda w: _task(w).readiness.SetInParent()),
    (f"{TASK}.readiness.http.port", lambda w: _http(w, port=0)),
    (f"{TASK}.readiness.http.path", lambda w: _http(w, path="no-slash")),
    (f"{TASK}.readiness.interval", lambda w: _http(w, interval_ms=5)),
    (f"{TASK}.readiness.timeout", lambda w: _http(w, timeout_ms=-1)),
    (f"{TASK}.readiness.failureThreshold", lambda w: _http(w, failure_threshold=-2)),
    (f"{TASK}.readiness.startPeriod", lambda w: _http(w, start_period_ms=-2)),
    (f"{TASK}.liveness.tcp.port", lambda w: _task(w).liveness.tcp.SetInParent()),
    (f"{TASK}.liveness.command.command", lambda w: _task(w).liveness.command.SetInParent()),
    (f"{TASK}.restart.backoffMax", lambda w: setattr(_task(w).restart, "backoff_max_ms", 20)),
    (f"{TASK}.restart.localLimit", lambda w: setattr(_task(w).restart, "local_limit", -1)),
    (f"{TASK}.minReady", lambda w: setattr(_task(w), "min_ready_ms", -1)),
    (f"{TASK}.terminationGrace", lambda w: setattr(_task(w), "termination_grace_s", 9_999)),
    (f"{TASK}.nodeSelector[0]", lambda w: _task(w).node_selector.add(key="?")),
    (f"{TASK}.requires[0]", lambda w: _task(w).requires.add(key="zone")),
    (f"{TASK}.requires[0]", lambda w: _task(w).requires.add(key="n", operator=5, values=["many"])),
    (f"{TASK}.prefers[0].weight", lambda w: _prefer(w, 101)),
    (f"{TASK}.tolerations[0]", lambda w: _task(w).tolerations.add(key="a b")),
    (f"{TASK}.topologySpread[0].within", lambda w: _task(w).topology_spread.add(within="?")),
    (f"{TASK}.topologySpread[0].within", lambda w: _task(w).topology_spread.add()),
    (f"{TASK}.topologySpread[1].within", lambda w: [_task(w).topology_spread.add(within="zone") for _ in "ab"]),
    (f"{TASK}.topologySpread[0].maxSkew", lambda w: _task(w).topology_spread.add(within="zone", max_skew=-1)),
    (f"{TASK}.topologySpread[0].weight", lambda w: _task(w).topology_spread.add(within="zone", weight=101)),
    (f"{TASK}.topologySpread", lambda w: [_task(w).topology_spread.add(within=key) for key in "abcde"]),
    (f"{TASK}.colocateWith[0]", lambda w: _task(w).colocate_with.add()),
    (f"{TASK}.colocateWith[0]", lambda w: _task(w).colocate_with.add(workload="a", labels=[EXISTS])),
    (f"{TASK}.colocateWith[0].workload", lambda w: _task(w).colocate_with.add(workload="A")),
    (f"{TASK}.colocateWith[0].within", lambda w: _task(w).colocate_with.add(workload="a", within="?")),
    (f"{TASK}.colocateWith[1]", lambda w: [_task(w).colocate_with.add(workload="a", weight=i) for i in (1, 2)]),
    (f"{TASK}.avoidColocating[0].labels[0]", lambda w: _task(w).avoid_colocating.add(labels=[{"key": "app"}])),
    (f"{TASK}.avoidColocating[0].weight", lambda w: _task(w).avoid_colocating.add(workload="a", weight=101)),
    (f"{TASK}.avoidColocating[0].weight", lambda w: _task(w).avoid_colocating.add(workload="a", weight=-1)),
    (f"{TASK}.avoidColocating", lambda w: [_task(w).avoid_colocating.add(workload=name) for name in "abcdefghi"]),
    (f"{TASK}.avoidColocating[0]", lambda w: [near.add(workload="a") for near in _both(w)]),
    (f"{TASK}.requires[0]", lambda w: _demand(w, "zone=a", "zone=b")),
    (f"{TASK}.requires[1]", lambda w: _demand(w, "gpu", "!zone", "zone in (a,b)")),
    (f"{TASK}.requires[0]", lambda w: _demand(w, "zone in (a,b)", "zone notin (b,a)")),
    (f"{TASK}.requires[0]", lambda w: _demand(w, "slots>8", "slots<9")),
    (f"{TASK}.requires[0]", lambda w: _demand(w, "slots>8", "slots in (3,8,ten)")),
    (f"{TASK}.requires[0]", lambda w: [_demand(w, "zone=a"), _task(w).node_selector.add(key="zone", value="b")]),
]


def _both(w: objects_pb2.Workload) -> list[Any]:
    return [_task(w).colocate_with, _task(w).avoid_colocating]


def _demand(w: objects_pb2.Workload, *texts: str) -> None:
    _task(w).requires.extend(map(parse_requirement, texts))


def _prefer(w: objects_pb2.Workload, weight: int) -> None:
    requirement = objects_pb2.LabelRequirement(key="zone", operator=objects_pb2.SELECTOR_OPERATOR_IN, values=["a"])
    _task(w).prefers.add(requirement=requirement, weight=weight)


def _job(w: objects_pb2.Workload, deadline_ms: int = 0, estimate_ms: int = 0) -> objects_pb2.Workload:
    w.spec.type = objects_pb2.WORKLOAD_TYPE_JOB
    w.spec.deadline_ms, w.spec.estimate_ms = deadline_ms, estimate_ms
    return w


def _paths(w: objects_pb2.Workload) -> list[str]:
    return [m.path for m in mistakes_in_workload(complete_workload(w), NORTH, {"north": ROOM})]


def test_a_good_workload_has_no_mistake() -> None:
    good = workload()
    _http(good)
    _prefer(good, 50)
    good.spec.regions.append("north")
    assert _paths(good) == []


@pytest.mark.parametrize(("path", "spoil"), BAD, ids=[f"{i}-{path}" for i, (path, _) in enumerate(BAD)])
def test_bad_input_is_refused_at_its_path_and_changes_nothing(path: str, spoil: Spoil) -> None:
    bad = workload()
    spoil(bad)
    assert path in _paths(bad)
    core = GlobalCore()
    core.elect()
    core.connect(1)
    core.say(1, summary=ROOM)
    core.tenant()
    revision = core.state.revision
    answer = core.apply(bad)
    assert isinstance(answer, Invalid) and answer.code == "E1001"
    assert path in [mistake.path for mistake in answer.mistakes]
    assert core.state.revision == revision


def test_demands_that_one_node_can_meet_are_no_contradiction() -> None:
    good = workload()
    _demand(good, "zone in (a,b)", "zone!=a", "slots>8", "slots<10", "slots notin (8)", "!old", "old!=yes")
    good.spec.tasks[0].node_selector.add(key="zone", value="b")
    good.spec.tasks[0].colocate_with.add(workload="db", within="zone")
    good.spec.tasks[0].avoid_colocating.add(workload="db")
    assert _paths(good) == []


def test_all_mistakes_are_told_at_once() -> None:
    bad = workload("A/B", replicas=-1, regions=["atlantis"])
    assert set(_paths(bad)) == {"metadata.name", "spec.regions[0]", f"{TASK}.replicas"}


def test_a_spec_that_is_too_large_is_refused() -> None:
    bad = workload()
    bad.spec.tasks[0].args.extend("x" * 1_000 for _ in range(70))
    assert _paths(bad) == ["spec"]


def test_an_unknown_tenant_is_a_mistake_and_an_unknown_workload_is_not_found() -> None:
    core = GlobalCore()
    core.elect()
    answer = core.apply(workload(owner="nobody"))
    assert isinstance(answer, Invalid) and [m.path for m in answer.mistakes] == ["metadata.tenant"]
    assert isinstance(core.ask(global_pb2.ScaleWorkloadRequest(tenant="acme", name="web")), NotFound)
    assert isinstance(core.ask(global_pb2.DeleteWorkloadRequest(tenant="acme", name="web")), NotFound)
    assert isinstance(core.ask(global_pb2.DeleteTenantRequest(name="acme")), NotFound)


def test_completing_is_idempotent_and_leaves_the_input_alone() -> None:
    said = workload()
    _http(said)
    _task(said).ports.add(number=8080)
    before = said.SerializeToString(deterministic=True)
    complete = complete_workload(said)
    assert said.SerializeToString(deterministic=True) == before
    assert complete_workload(complete) == complete
    task = complete.spec.tasks[0]
    assert (task.driver, task.readiness.interval_ms, task.termination_grace_s) == (
        objects_pb2.DRIVER_PROCESS,
        2_000,
        10,
    )
    assert task.resources.limits == task.resources.requests
    assert [port.name for port in task.ports] == ["8080"]


def test_what_the_server_owns_cannot_be_said() -> None:
    said = workload()
    said.metadata.generation, said.metadata.uid, said.metadata.deleted_ms = 99, "mine", 5
    said.status.observed_generation = 7
    complete = complete_workload(said)
    assert complete.metadata == objects_pb2.Metadata(name="web", tenant="acme") and not complete.HasField("status")


def test_quota_reject_names_what_is_missing_and_never_refuses_less() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant(quota=Vector(1_000, 10_000))
    answer = core.apply(workload(replicas=3, on_quota=objects_pb2.ON_QUOTA_REJECT))
    assert isinstance(answer, QuotaExceeded) and answer.code == "E2201"
    assert "cpu: 1500m asked in all, quota 1, missing 500m" in answer.message
    core.apply(workload(replicas=3))  # queue: admitted, and waits
    fewer = core.apply(workload(replicas=2, on_quota=objects_pb2.ON_QUOTA_REJECT))
    assert isinstance(fewer, global_pb2.ApplyWorkloadResponse)
    core.clean()


def test_a_stale_generation_is_a_conflict() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant()
    assert isinstance(core.apply(workload(), if_generation=1), Conflict)
    core.apply(workload())
    stale = core.apply(workload(replicas=5), if_generation=9)
    assert isinstance(stale, Conflict) and stale.code == "E3002"
    fresh = core.apply(workload(replicas=5), if_generation=1)
    assert isinstance(fresh, global_pb2.ApplyWorkloadResponse) and fresh.workload.metadata.generation == 2


def test_the_type_of_a_workload_cannot_change() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant()
    core.apply(workload())
    answer = core.apply(workload(type=objects_pb2.WORKLOAD_TYPE_JOB))
    assert isinstance(answer, Invalid) and [m.path for m in answer.mistakes] == ["spec.type"]


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 100, "a/b", "\0"])
def test_a_change_needs_a_request_id(request_id: str) -> None:
    core = GlobalCore()
    core.elect()
    core._requests = -1
    request = global_pb2.ApplyTenantRequest(tenant=tenant(), request_id=request_id or " ")
    answer = core.ask(request)
    assert isinstance(answer, Invalid) and answer.mistakes[0].path == "requestId"


def test_tenants_are_checked_too() -> None:
    bad = tenant("A!", Vector(-1, LARGEST + 1))
    bad.spec.weight = 5_000
    paths = [mistake.path for mistake in mistakes_in_tenant(complete_tenant(bad))]
    assert paths == ["metadata.name", "spec.quota.cpu", "spec.quota.memory", "spec.weight"]
    assert mistakes_in_tenant(complete_tenant(tenant())) == []


def test_fields_are_spelled_as_in_manifests() -> None:
    names = ["cpu_milli", "memory_mib", "start_period_ms", "node_selector", "replicas", "termination_grace_s"]
    assert [spelled(n) for n in names] == [
        "cpu",
        "memory",
        "startPeriod",
        "nodeSelector",
        "replicas",
        "terminationGrace",
    ]


def test_over_quota_tells_each_dimension() -> None:
    assert over_quota(Vector(1, 1), Vector(1, 1)) == ""
    assert "memory" in over_quota(Vector(1, 2), Vector(1, 1)) and "cpu" not in over_quota(Vector(1, 2), Vector(1, 1))


def test_a_deadline_that_cannot_be_met_is_refused_and_one_that_could_is_not_asked_again() -> None:
    core = GlobalCore()
    core.elect()
    core.tenant()
    past, near = core.now_ms - 1, core.now_ms + 60_000
    for deadline_ms, estimate_ms in ((past, 0), (near, 60_000)):
        answer = core.apply(_job(workload(), deadline_ms, estimate_ms))
        assert isinstance(answer, Invalid) and [m.path for m in answer.mistakes] == ["spec.deadline"]
    assert isinstance(core.apply(_job(workload(), near, 59_000)), global_pb2.ApplyWorkloadResponse)
    core.pass_time(120_000)
    assert isinstance(core.apply(_job(workload(), near, 59_000)), global_pb2.ApplyWorkloadResponse)
    assert isinstance(core.apply(_job(workload(), near, 58_000)), Invalid)
