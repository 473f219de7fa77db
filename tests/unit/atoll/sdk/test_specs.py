"""The builder's spread over regions."""

import pytest

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.sdk.specs import Workload


def test_a_spread_as_in_a_manifest() -> None:
    spec = Workload(name="a", spread="even", regions=["eu", "us"], residency=["jurisdiction in (eu)"]).to_proto().spec
    assert spec.spread.strategy == objects_pb2.SPREAD_STRATEGY_EVEN and list(spec.regions) == ["eu", "us"]
    assert spec.spread.residency[0].values == ["eu"]
    assert spec.tasks[0].replicas == 1


def test_fixed_counts_leave_the_sum_to_the_server() -> None:
    spec = Workload(name="a", fixed={"eu": 2, "us": 1}).to_proto().spec
    assert [(count.region, count.replicas) for count in spec.spread.fixed] == [("eu", 2), ("us", 1)]
    assert spec.tasks[0].replicas == 0
    assert Workload(name="a", fixed={"eu": 2}, replicas=2).to_proto().spec.tasks[0].replicas == 2


def test_every_mistake_is_told() -> None:
    with pytest.raises(errors.Invalid) as caught:
        Workload(name="a", spread="evn", residency=["a b"], requires=["c d"]).to_proto()
    paths = [mistake.path for mistake in caught.value.mistakes]
    assert paths == ["spec.tasks[0].requires[0]", "spec.spread.residency[0]", "spec.spread.strategy"]


def test_a_job_as_in_a_manifest() -> None:
    text = """
apiVersion: atoll/v1
kind: Workload
metadata: {name: parts}
spec:
  type: job
  priority: low
  deadline: "2030-01-01T00:00:00Z"
  notBefore: "2029-01-01T00:00:00Z"
  notAfter: "2031-01-01T00:00:00Z"
  activeDeadline: 30m
  timeToLive: 1h
  estimate: 10m
  task: {completions: 8, parallelism: 3, retries: 0, strategy: spread, resources: {requests: {cpu: 100m}}}
"""
    (document,) = manifest.parse(text, "parts.yaml")
    made = Workload(
        name="parts",
        job=True,
        priority="low",
        deadline="2030-01-01T00:00:00Z",
        not_before="2029-01-01T00:00:00Z",
        not_after="2031-01-01T00:00:00Z",
        active_deadline="30m",
        time_to_live="1h",
        estimate="10m",
        cpu="100m",
        completions=8,
        parallelism=3,
        retries=0,
        strategy="spread",
    ).to_proto()
    assert isinstance(document.message, objects_pb2.Workload)
    for spec in (made.spec, document.message.spec):
        spec.spread.SetInParent()
    assert made.spec == document.message.spec
    with pytest.raises(errors.Invalid) as caught:
        Workload(name="a", deadline="soon", active_deadline="1", estimate="x").to_proto()
    assert [m.path for m in caught.value.mistakes] == ["spec.deadline", "spec.activeDeadline", "spec.estimate"]


def test_more_is_in_the_words_of_a_manifest() -> None:
    more = {
        "runClass": "bounded",
        "task": {"resources": {"limits": {"cpu": "1"}}, "gang": True, "tolerations": ["a=b"]},
    }
    made = Workload(name="a", cpu="250m", replicas=3, requires=["x"], more=more).to_proto()
    (task,) = made.spec.tasks
    assert (task.replicas, task.resources.requests.cpu_milli, task.resources.limits.cpu_milli) == (3, 250, 1_000)
    assert task.gang and task.requires and made.spec.run_class == objects_pb2.RUN_CLASS_BOUNDED
    assert task.tolerations == [objects_pb2.Toleration(key="a", value="b")]
    with pytest.raises(errors.Invalid) as caught:
        Workload(name="a", cpu="x", more={"task": {"gangg": True}, "onQuota": "no"}).to_proto()
    assert [m.path for m in caught.value.mistakes] == [
        "spec.tasks[0].resources.requests.cpu",
        "spec.task.gangg",
        "spec.onQuota",
    ]


def test_an_image_with_ports_as_in_a_manifest() -> None:
    text = """
apiVersion: atoll/v1
kind: Workload
metadata: {name: box}
spec:
  task:
    replicas: 1
    image: some/image:1
    resources: {cpu: 200m, memory: 64Mi}
    ports: [8080, 9090]
    readiness: {http: {port: 8080, path: /well}}
"""
    (document,) = manifest.parse(text, "box.yaml")
    box = Workload(
        name="box", image="some/image:1", cpu="200m", memory="64Mi", ports=(8080, 9090, 8080), http="8080/well"
    )
    assert isinstance(document.message, objects_pb2.Workload)
    assert box.to_proto().spec.tasks == document.message.spec.tasks


def test_what_is_not_migratable_is_written_and_read_so() -> None:
    assert not Workload(name="a").to_proto().spec.HasField("migratable"), "the server decides"
    kept = Workload(name="a", command=["run"], migratable=False).to_proto()
    (read,) = manifest.parse(manifest.to_yaml([manifest.tree(kept, "Workload")]))
    assert isinstance(read.message, objects_pb2.Workload)
    assert read.message.spec.HasField("migratable") and not read.message.spec.migratable
