"""Short spellings for the documents: `Workload(name="hello", image="…", replicas=3, cpu="100m").to_proto()`."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.manifest import scalars, selectors
from atoll.model import resources

_TIMES = (  # name here, field, as in a manifest, whether it is a span
    ("deadline", "deadline_ms", "deadline", False),
    ("not_before", "not_before_ms", "notBefore", False),
    ("not_after", "not_after_ms", "notAfter", False),
    ("active_deadline", "active_deadline_s", "activeDeadline", True),
    ("time_to_live", "time_to_live_s", "timeToLive", True),
    ("estimate", "estimate_ms", "estimate", True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A workload with one task. Quantities, durations and selectors are texts, as in a manifest.

    With an `image` it runs as a container. `http` is PORT or PORT/PATH: the port is published, as `ports` are, and the
    path is asked until it answers.
    """

    name: str
    tenant: str = ""
    image: str = ""
    command: Sequence[str] = ()
    replicas: int | None = None  # 1, or the sum of `fixed`, or `completions`
    cpu: str = ""
    memory: str = ""
    disk: str = ""
    gpu: str = ""  # "2" whole devices, or "500m" of one
    gpu_models: Sequence[str] = ()  # one of these; none = any
    env: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Sequence[int] = ()
    http: str = ""
    job: bool = False
    parallelism: int = 0  # of a job, here and below: so many replicas at once; 0 = all
    completions: int = 0  # so many must succeed; 0 = all
    retries: int | None = None  # of a replica after its first try
    deadline: str = ""  # RFC 3339 or "now+2h"
    not_before: str = ""  # likewise
    not_after: str = ""
    active_deadline: str = ""  # "30m" from its begin
    time_to_live: str = ""  # after its end
    estimate: str = ""  # how long a replica runs: "10m"
    priority: str = ""
    strategy: str = ""  # of placement
    regions: Sequence[str] = ()  # in order of preference; none = any
    spread: str = ""  # preferred, even, fixed or cheapest
    fixed: Mapping[str, int] = field(default_factory=dict)  # replicas by region
    residency: Sequence[str] = ()  # requirements on labels of regions: "jurisdiction in (eu)"
    requires: Sequence[str] = ()
    migratable: bool | None = None  # of a service: its replicas may be moved to even out nodes; true when left out
    more: Mapping[str, Any] = field(default_factory=dict)  # of the spec, as in a manifest: {"task": {"gang": True}}

    def to_proto(self) -> objects_pb2.Workload:
        """Raises Invalid with every mistake."""
        mistakes: list[errors.Mistake] = []
        replicas = (0 if self.fixed else self.completions or 1) if self.replicas is None else self.replicas
        task = objects_pb2.Task(replicas=replicas, image=self.image, command=self.command, env=_labels(self.env))
        task.strategy, task.parallelism, task.completions = self.strategy, self.parallelism, self.completions
        if self.retries is not None:
            task.retries.CopyFrom(objects_pb2.RetryPolicy(limit=self.retries))
        task.gpu_models.extend(self.gpu_models)
        for name in ("cpu", "memory", "disk", "gpu"):
            text = getattr(self, name)
            unit = f"{name}_milli" if name in ("cpu", "gpu") else f"{name}_mib"
            try:
                setattr(task.resources.requests, unit, resources.parse_quantity(text, unit) if text else 0)
            except resources.QuantityError as error:
                mistakes.append(errors.Mistake(f"spec.tasks[0].resources.requests.{name}", str(error)))
        task.requires.extend(_requirements(self.requires, "spec.tasks[0].requires", mistakes))
        self._publish(task, mistakes)
        spec = objects_pb2.WorkloadSpec(tasks=[task], regions=self.regions, migratable=self.migratable)
        self._spread(spec.spread, mistakes)
        self._times(spec, mistakes)
        if self.job:
            spec.type = objects_pb2.WORKLOAD_TYPE_JOB
        if self.priority:
            try:
                number = scalars.parse_enum(self.priority, objects_pb2.Priority.DESCRIPTOR)
                spec.priority = objects_pb2.Priority.ValueType(number)
            except scalars.ScalarError as error:
                mistakes.append(errors.Mistake("spec.priority", str(error)))
        self._add_more(spec, mistakes)
        if mistakes:
            raise errors.Invalid(f"workload {self.name!r} is not well formed", mistakes=tuple(mistakes))
        metadata = objects_pb2.Metadata(name=self.name, tenant=self.tenant, labels=_labels(self.labels))
        return objects_pb2.Workload(metadata=metadata, spec=spec)

    def _add_more(self, spec: objects_pb2.WorkloadSpec, mistakes: list[errors.Mistake]) -> None:
        if not self.more:
            return
        written = {"apiVersion": "atoll/v1", "kind": "Workload", "metadata": {"name": "more"}}
        try:
            (document,) = manifest.parse(json.dumps({**written, "spec": {"task": {}, **self.more}}))
        except manifest.ManifestError as error:
            mistakes += [errors.Mistake(mark.path, mark.message) for mark in error.marks]
            return
        assert isinstance(document.message, objects_pb2.Workload)
        said = document.message.spec
        said.tasks[0].ClearField("replicas")
        spec.tasks[0].MergeFrom(said.tasks[0])
        del said.tasks[:]
        spec.MergeFrom(said)

    def _times(self, spec: objects_pb2.WorkloadSpec, mistakes: list[errors.Mistake]) -> None:
        now_ms = round(time.time() * 1000)
        for name, field_name, written, is_span in _TIMES:
            text: str = getattr(self, name)
            try:
                if text and is_span:
                    setattr(spec, field_name, scalars.parse_duration(text, field_name))
                elif text:
                    setattr(spec, field_name, scalars.parse_instant(text, now_ms))
            except scalars.ScalarError as error:
                mistakes.append(errors.Mistake(f"spec.{written}", str(error)))

    def _spread(self, spread: objects_pb2.Spread, mistakes: list[errors.Mistake]) -> None:
        for region, replicas in self.fixed.items():
            spread.fixed.add(region=region, replicas=replicas)
        spread.residency.extend(_requirements(self.residency, "spec.spread.residency", mistakes))
        if self.spread:
            try:
                number = scalars.parse_enum(self.spread, objects_pb2.SpreadStrategy.DESCRIPTOR)
                spread.strategy = objects_pb2.SpreadStrategy.ValueType(number)
            except scalars.ScalarError as error:
                mistakes.append(errors.Mistake("spec.spread.strategy", str(error)))

    def _publish(self, task: objects_pb2.Task, mistakes: list[errors.Mistake]) -> None:
        for number in dict.fromkeys(self.ports):
            task.ports.add(number=number)
        if not self.http:
            return
        port, _, path = self.http.partition("/")
        if not port.isascii() or not port.isdecimal() or not 1 <= int(port[:6]) <= 65_535:
            mistakes.append(errors.Mistake("http", f"{self.http!r} is not PORT or PORT/PATH"))
            return
        if int(port) not in self.ports:
            task.ports.add(name="http", number=int(port))
        task.readiness.http.CopyFrom(objects_pb2.HttpCheck(port=int(port), path="/" + path))


def _requirements(
    texts: Sequence[str], path: str, mistakes: list[errors.Mistake]
) -> list[objects_pb2.LabelRequirement]:
    found = []
    for index, text in enumerate(texts):
        try:
            found.append(selectors.parse_requirement(text))
        except selectors.SelectorError as error:
            mistakes.append(errors.Mistake(f"{path}[{index}]", str(error)))
    return found


def _labels(values: Mapping[str, str]) -> list[objects_pb2.Label]:
    return [objects_pb2.Label(key=key, value=values[key]) for key in sorted(values)]
