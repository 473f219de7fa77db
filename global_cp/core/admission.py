"""What may enter: every mistake in what a user sent, all at once, each with its path.

Decides validity of complete documents (`defaults.py`): shape, sizes, names, consistency, references, and whether any
node could ever hold one replica. Quota is judged apart (`over_quota`), because too little quota is no mistake. Leaves
to others: authorization (the border), the tenant, its strategies and what is already stored (`mutations.py`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model import gpu_models
from atoll.model.accounts import BURST_PERCENT
from atoll.model.cron import Zones, utc_only
from atoll.model.names import TRUSTED, mistake_in_label_key, mistake_in_label_value, mistake_in_name
from atoll.model.resources import DIMENSIONS, LARGEST, Vector, format_quantity, vector
from atoll.model.selectors import mistake_in_requirement
from global_cp.core.constraints import contradictions, mistakes_in_colocations
from global_cp.core.gang_rules import mistakes_in_gang
from global_cp.core.job_rules import mistakes_in_job
from global_cp.core.spread_rules import allowed, mistakes_in_spread

MOST_REPLICAS = 10_000
MOST_TASKS = 64
MOST_LABELS = 64
MOST_TOPOLOGY_RULES = 4
GPU_MILLI = 1000  # of one device
MOST_GPUS = 64  # of one node
MOST_GPU_MODELS = 16
MOST_OF_ONE_REPLICA = 10**9  # of each dimension: a million cores, a pebibyte; keeps every sum far inside 64 bits
LARGEST_SPEC_BYTES = 64 * 1024
LARGEST_ANNOTATIONS_BYTES = 16 * 1024
LONGEST_ESTIMATE_MS = 365 * 86_400_000
LONGEST_GRACE_S = 3_600
LONGEST_MIN_READY_MS = 3_600_000
LONGEST_BOUNDED_S = 7 * 86_400
LONGEST_PROBE_MS = 3_600_000
SHORTEST_PROBE_MS = 100

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_RESERVED_ENV = "ATOLL_"

Mistakes = Iterator[Mistake]


def mistakes_in_workload(
    workload: objects_pb2.Workload,
    regions: Mapping[str, objects_pb2.Region],
    summaries: Mapping[str, objects_pb2.RegionSummary],
    zones: Zones = utc_only,
    before: objects_pb2.WorkloadSpec | None = None,
) -> list[Mistake]:
    """`regions`: the registered ones; `summaries`: what is known of their nodes; `before`: what it changes."""
    found = list(mistakes_in_metadata(workload.metadata))
    found += _unknown_enums(workload.spec, "spec")
    spec = workload.spec
    if workload.spec.ByteSize() > LARGEST_SPEC_BYTES:
        found.append(Mistake("spec", f"is {spec.ByteSize()} bytes; at most {LARGEST_SPEC_BYTES} are allowed"))
    found += _run_class(spec)
    if spec.recovery and spec.type == objects_pb2.WORKLOAD_TYPE_JOB:
        found.append(Mistake("spec.recovery", "only services have it"))
    found += _within(spec.estimate_ms, 0, LONGEST_ESTIMATE_MS, "spec.estimate", "ms")
    found += mistakes_in_job(workload, zones)
    found += mistakes_in_spread(spec, regions)
    here = allowed(spec, regions)
    accepted = before.tasks if before and set(allowed(before, regions)) <= set(here) else ()
    found += mistakes_in_gang(spec, here, summaries, accepted)
    if not 1 <= len(spec.tasks) <= MOST_TASKS:
        found.append(Mistake("spec.tasks", f"has {len(spec.tasks)} tasks; 1 to {MOST_TASKS} are allowed"))
    found += _unique((task.name for task in spec.tasks), "spec.tasks", "name")
    for index, task in enumerate(spec.tasks):
        path = f"spec.tasks[{index}]"
        found += _task(task, path)
        if not any(_asks_alike(task, other) for other in accepted):  # its nodes may be gone for a while
            found += _feasible(task, path, here, summaries)
    return found


def mistakes_in_tenant(tenant: objects_pb2.Tenant) -> list[Mistake]:
    found = [*mistakes_in_metadata(tenant.metadata), *_unknown_enums(tenant.spec, "spec")]
    for dimension in DIMENSIONS:
        amount = getattr(tenant.spec.quota, dimension)
        if not 0 <= amount <= LARGEST:
            path = f"spec.quota.{spelled(dimension)}"
            found.append(Mistake(path, f"{amount} is not allowed: 0 to {LARGEST}"))
    found += _within(tenant.spec.weight, 1, 1_000, "spec.weight")
    found += _within(tenant.spec.burst_percent, 0, BURST_PERCENT, "spec.burst", " %")
    return found


def over_quota(asked: Vector, quota: Vector, told: str = "quota") -> str:
    """What is missing, for people; empty when all fits."""
    parts = [
        f"{spelled(name)}: {format_quantity(wanted, name)} asked in all, {told} {format_quantity(allowed, name)}, "
        f"missing {format_quantity(wanted - allowed, name)}"
        for name, wanted, allowed in zip(DIMENSIONS, asked.amounts(), quota.amounts(), strict=True)
        if wanted > allowed
    ]
    return "; ".join(parts)


def spelled(field: str) -> str:
    """A field's name as users write it: memory_mib → memory, start_period_ms → startPeriod."""
    words = field.split("_")
    if len(words) > 1 and words[-1] in ("ms", "s", "mib", "milli", "percent"):
        words.pop()
    return words[0] + "".join(word.capitalize() for word in words[1:])


def mistakes_in_metadata(metadata: objects_pb2.Metadata) -> Mistakes:
    yield from _named(metadata.name, "metadata.name")
    yield from _labels(metadata.labels, "metadata.labels")
    yield from _unique((label.key for label in metadata.annotations), "metadata.annotations", "key")
    for index, label in enumerate(metadata.annotations):
        if mistake := mistake_in_label_key(label.key):
            yield Mistake(f"metadata.annotations[{index}]", f"key {mistake}")
    size = sum(len(label.key) + len(label.value) for label in metadata.annotations)
    if size > LARGEST_ANNOTATIONS_BYTES:
        yield Mistake("metadata.annotations", f"are {size} long; at most {LARGEST_ANNOTATIONS_BYTES} is allowed")


def _run_class(spec: objects_pb2.WorkloadSpec) -> Mistakes:
    if spec.run_class == objects_pb2.RUN_CLASS_BOUNDED:
        yield from _within(spec.bounded_s, 1, LONGEST_BOUNDED_S, "spec.bounded", "s")
    elif spec.bounded_s:
        yield Mistake("spec.bounded", "only the run class bounded has it")


def _task(task: objects_pb2.Task, path: str) -> Mistakes:
    yield from _named(task.name, f"{path}.name")
    yield from _within(task.replicas, 0, MOST_REPLICAS, f"{path}.replicas")
    yield from _driver(task, path)
    yield from _environment(task, path)
    yield from _ports(task, path)
    yield from _resources(task.resources, f"{path}.resources")
    yield from _gpus(task, path)
    for name in ("liveness", "readiness"):
        if task.HasField(name):
            yield from _probe(getattr(task, name), f"{path}.{name}")
    yield from _restart(task.restart, f"{path}.restart")
    yield from _within(task.termination_grace_s, 1, LONGEST_GRACE_S, f"{path}.terminationGrace", "s")
    yield from _within(task.min_ready_ms, 0, LONGEST_MIN_READY_MS, f"{path}.minReady", "ms")
    yield from _constraints(task, path)


def _driver(task: objects_pb2.Task, path: str) -> Mistakes:
    if task.driver == objects_pb2.DRIVER_PROCESS:
        if not task.command:
            yield Mistake(f"{path}.command", "is missing: the process driver runs a command")
        if task.image:
            yield Mistake(f"{path}.image", "the process driver runs no image")
    if task.driver == objects_pb2.DRIVER_DOCKER and not task.image:
        yield Mistake(f"{path}.image", "is missing: the docker driver runs an image")
    if len(task.image) > 512 or any(c.isspace() or not c.isprintable() for c in task.image):
        yield Mistake(f"{path}.image", "is not the name of an image")
    if task.command and not task.command[0]:
        yield Mistake(f"{path}.command[0]", "is empty: the program to run is missing")
    for name in ("command", "args"):
        for index, word in enumerate(getattr(task, name)):
            if "\0" in word:
                yield Mistake(f"{path}.{name}[{index}]", "holds a NUL character")


def _environment(task: objects_pb2.Task, path: str) -> Mistakes:
    yield from _unique((label.key for label in task.env), f"{path}.env", "name")
    for index, label in enumerate(task.env):
        here = f"{path}.env[{index}]"
        if not _ENV_NAME.fullmatch(label.key):
            yield Mistake(here, f"{_shown(label.key)} is not allowed: letters, digits and '_', no digit first")
        elif label.key.startswith(_RESERVED_ENV):
            yield Mistake(here, f"{_shown(label.key)} is not allowed: {_RESERVED_ENV} is set by the agent")
        if "\0" in label.value:
            yield Mistake(here, "its value holds a NUL character")


def _ports(task: objects_pb2.Task, path: str) -> Mistakes:
    yield from _unique((port.name for port in task.ports), f"{path}.ports", "name")
    yield from _unique((str(port.number) for port in task.ports), f"{path}.ports", "number")
    for index, port in enumerate(task.ports):
        yield from _named(port.name, f"{path}.ports[{index}].name")
        yield from _within(port.number, 1, 65_535, f"{path}.ports[{index}].number")


def _resources(resources: objects_pb2.ResourceRequirements, path: str) -> Mistakes:
    for dimension in DIMENSIONS:
        request, limit = getattr(resources.requests, dimension), getattr(resources.limits, dimension)
        at = f"{path}.requests.{spelled(dimension)}"
        if dimension in ("cpu_milli", "memory_mib") and request == 0:
            yield Mistake(at, "is missing: every replica needs some")
        elif not 0 <= request <= MOST_OF_ONE_REPLICA:
            most = format_quantity(MOST_OF_ONE_REPLICA, dimension)
            yield Mistake(at, f"{format_quantity(request, dimension)} is not allowed: 0 to {most}")
        if limit != request and not request < limit <= MOST_OF_ONE_REPLICA:  # as much as the request: said above
            text = format_quantity(limit, dimension)
            yield Mistake(f"{path}.limits.{spelled(dimension)}", f"{text} is less than the request, or out of range")


def _gpus(task: objects_pb2.Task, path: str) -> Mistakes:
    at, asked = f"{path}.resources.requests.gpu", task.resources.requests.gpu_milli
    if asked > GPU_MILLI and asked % GPU_MILLI:
        text = format_quantity(asked, "gpu_milli")
        yield Mistake(at, f"{text} is not allowed: whole GPUs, or less than 1 for a part of one")
    elif asked > MOST_GPUS * GPU_MILLI:
        yield Mistake(at, f"more than the {MOST_GPUS} GPUs that a node can have")
    if task.resources.limits.gpu_milli not in (0, asked):
        yield Mistake(f"{path}.resources.limits.gpu", "is not the request: a GPU gives no more than was asked for")
    if task.gpu_models and not asked:
        yield Mistake(f"{path}.gpuModels", "without a request for a GPU: resources.requests.gpu is missing")
    if len(task.gpu_models) > MOST_GPU_MODELS:
        yield Mistake(f"{path}.gpuModels", f"has {len(task.gpu_models)}; at most {MOST_GPU_MODELS} are allowed")
    yield from _unique(task.gpu_models, f"{path}.gpuModels", "")
    for index, model in enumerate(task.gpu_models):
        if not model or (mistake_in_label_value(model)):
            said = mistake_in_label_value(model) or "is empty"
            yield Mistake(f"{path}.gpuModels[{index}]", said)


def _probe(probe: objects_pb2.Probe, path: str) -> Mistakes:
    match probe.WhichOneof("check"):
        case "http":
            yield from _within(probe.http.port, 1, 65_535, f"{path}.http.port")
            if not probe.http.path.startswith("/") or not probe.http.path.isprintable() or " " in probe.http.path:
                yield Mistake(f"{path}.http.path", f"{_shown(probe.http.path)} is not a path that begins with '/'")
        case "tcp":
            yield from _within(probe.tcp.port, 1, 65_535, f"{path}.tcp.port")
        case "command":
            if not probe.command.command or any("\0" in word for word in probe.command.command):
                yield Mistake(f"{path}.command.command", "is missing, or holds a NUL character")
        case _:
            yield Mistake(path, "checks nothing: http, tcp or command is missing")
    yield from _within(probe.start_period_ms, 0, LONGEST_PROBE_MS, f"{path}.startPeriod", "ms")
    yield from _within(probe.interval_ms, SHORTEST_PROBE_MS, LONGEST_PROBE_MS, f"{path}.interval", "ms")
    yield from _within(probe.timeout_ms, 1, LONGEST_PROBE_MS, f"{path}.timeout", "ms")
    yield from _within(probe.failure_threshold, 1, 100, f"{path}.failureThreshold")
    yield from _within(probe.success_threshold, 1, 100, f"{path}.successThreshold")


def _restart(restart: objects_pb2.RestartPolicy, path: str) -> Mistakes:
    yield from _within(restart.local_limit, 1, 1_000, f"{path}.localLimit")
    yield from _within(restart.backoff_ms, 10, LONGEST_PROBE_MS, f"{path}.backoff", "ms")
    yield from _within(restart.backoff_max_ms, 10, 24 * LONGEST_PROBE_MS, f"{path}.backoffMax", "ms")
    if restart.backoff_max_ms < restart.backoff_ms:
        yield Mistake(f"{path}.backoffMax", "is shorter than backoff")


def _constraints(task: objects_pb2.Task, path: str) -> Mistakes:
    yield from _labels(task.node_selector, f"{path}.nodeSelector")
    for index, requirement in enumerate(task.requires):
        if mistake := mistake_in_requirement(requirement):
            yield Mistake(f"{path}.requires[{index}]", mistake)
    for index, preference in enumerate(task.prefers):
        here = f"{path}.prefers[{index}]"
        if mistake := mistake_in_requirement(preference.requirement):
            yield Mistake(f"{here}.requirement", mistake)
        yield from _within(preference.weight, 1, 100, f"{here}.weight")
    for index, toleration in enumerate(task.tolerations):
        here = f"{path}.tolerations[{index}]"
        if toleration.key and (mistake := mistake_in_label_key(toleration.key)):
            yield Mistake(here, f"key {mistake}")
        if mistake := mistake_in_label_value(toleration.value):
            yield Mistake(here, f"value {mistake}")
    for index, rule in enumerate(task.topology_spread):
        here = f"{path}.topologySpread[{index}]"
        if mistake := mistake_in_label_key(rule.within):
            yield Mistake(f"{here}.within", mistake)
        if rule.within in [other.within for other in task.topology_spread[:index]]:
            yield Mistake(f"{here}.within", "stands twice")
        yield from _within(rule.max_skew, 1, MOST_REPLICAS, f"{here}.maxSkew")
        yield from _within(rule.weight, 0, 100, f"{here}.weight")
    yield from mistakes_in_colocations(task, path)
    yield from contradictions(task, path)
    if len(task.topology_spread) > MOST_TOPOLOGY_RULES:
        yield Mistake(f"{path}.topologySpread", f"at most {MOST_TOPOLOGY_RULES} rules are allowed")


def _asks_alike(task: objects_pb2.Task, other: objects_pb2.Task) -> bool:
    """Whether the same nodes, as far as `_feasible` looks at them, could hold both."""
    return task.resources.requests == other.resources.requests and set(task.gpu_models) == set(other.gpu_models)


def _feasible(
    task: objects_pb2.Task, path: str, regions: Sequence[str], summaries: Mapping[str, objects_pb2.RegionSummary]
) -> Mistakes:
    """A request that no node of any allowed region could hold even when empty. Silent while a region is not known or
    none of its nodes is described yet."""
    request = vector(task.resources.requests)
    known = [summaries.get(region) or objects_pb2.RegionSummary() for region in regions]
    rooms = [vector(summary.largest_node) for summary in known]
    if not all(rooms):
        return
    large_enough = [summary for summary, room in zip(known, rooms, strict=True) if request.fits(room)]
    if rooms and not large_enough:
        most = rooms[0]
        for room in rooms[1:]:
            most = most.at_least(room)
        asked = ((name, held) for name, one, held in zip(DIMENSIONS, request, most, strict=True) if one)
        told = ", ".join(f"{name.partition('_')[0]} {format_quantity(held, name)}" for name, held in asked)
        yield Mistake(f"{path}.resources.requests", f"{request}: no node could ever hold this; the most is {told}")
    asked_of = large_enough or known
    if request.gpu_milli and asked_of and not any(gpu_models.may_hold(task, summary) for summary in asked_of):
        there = gpu_models.there_text(asked_of)
        yield Mistake(f"{path}.gpuModels", f"{gpu_models.asked_text(task)}: no node could ever hold this; {there}")


def _labels(labels: Sequence[objects_pb2.Label], path: str) -> Mistakes:
    yield from _unique((label.key for label in labels), path, "key")
    if len(labels) > MOST_LABELS:
        yield Mistake(path, f"has {len(labels)} entries; at most {MOST_LABELS} are allowed")
    for index, label in enumerate(labels):
        if mistake := mistake_in_label_key(label.key):
            yield Mistake(f"{path}[{index}]", f"key {mistake}")
        elif label.key.startswith(TRUSTED) and path.startswith("metadata"):
            yield Mistake(f"{path}[{index}]", f"{_shown(label.key)} is not allowed: {TRUSTED} is for nodes")
        if mistake := mistake_in_label_value(label.value):
            yield Mistake(f"{path}[{index}]", f"value {mistake}")


def _named(name: str, path: str) -> Mistakes:
    if mistake := mistake_in_name(name):
        yield Mistake(path, mistake)


def _within(value: int, least: int, most: int, path: str, unit: str = "") -> Mistakes:
    if not least <= value <= most:
        yield Mistake(path, f"{value}{unit} is not allowed: {least}{unit} to {most}{unit}")


def _unique(names: Iterator[str] | Sequence[str], path: str, what: str) -> Mistakes:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield Mistake(f"{path}[{index}]{'.' + what if what else ''}", f"{_shown(name)} is there twice")
        seen.add(name)


def _unknown_enums(message: Message, path: str) -> Mistakes:
    """Numbers that no enum of this version has; protobuf lets them through."""
    for field, value in message.ListFields():
        here = f"{path}.{spelled(field.name)}"
        many, enum = field.is_repeated, field.enum_type
        for index, item in enumerate(value if many else [value]):
            at = f"{here}[{index}]" if many else here
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                yield from _unknown_enums(item, at)
            elif enum is not None and item not in enum.values_by_number:
                yield Mistake(at, f"{item} is no value of {enum.name}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
