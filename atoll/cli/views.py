"""The columns of each kind."""

from typing import Any

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.cli.output import View, age, span
from atoll.manifest import scalars
from atoll.manifest.taints import format_taint
from atoll.model.resources import DIMENSIONS, format_quantity, vector
from atoll.sdk import progress

DEFAULT_TASK = "main"


def enum(number: int, kind: Any) -> str:
    return str(scalars.format_enum(number, kind.DESCRIPTOR)) if number else ""


def slot_text(slot: objects_pb2.SlotId) -> str:
    """`hello/0`, or `hello/worker/0` where the task has a name of its own."""
    parts = [slot.workload, *([] if slot.task == DEFAULT_TASK else [slot.task]), str(slot.index)]
    return "/".join(parts)


def workload_state(workload: objects_pb2.Workload) -> str:
    """`serving`, `deleting`, `done`, `failed`, or the last step begun with the first reason why it goes no further."""
    if workload.metadata.deleted_ms:
        return "deleting"
    now = progress.progress(workload, workload.metadata.generation)
    steps = now.steps()
    if workload.spec.HasField("schedule"):
        return "suspended" if workload.spec.schedule.suspended else "scheduled"
    if now.has(progress.DONE):
        return "failed" if now.failure else "done"
    if "serving" in now.reached:
        return "serving"
    reasons = [reason.code for reason in workload.status.pending]
    state = steps[-1] if steps else "new"
    return f"{state} ({reasons[0]})" if reasons else state


def _ready(workload: objects_pb2.Workload) -> str:
    """Ready of wanted; a replica of a job that has succeeded counts. A schedule runs nothing itself."""
    if workload.spec.HasField("schedule"):
        return "-"
    counts = workload.status.counts
    return f"{counts.ready + counts.succeeded}/{sum(task.replicas for task in workload.spec.tasks)}"


def _gpu(gpu: objects_pb2.Gpu) -> str:
    """`0:A100`, `1:A100=500m` with what is used of it."""
    return f"{gpu.number}:{gpu.model}" + (f"={rounded(gpu.used_milli, 'gpu_milli')}" if gpu.used_milli else "")


def _share(used: int, capacity: int, unit: str) -> str:
    return f"{rounded(used, unit)}/{rounded(capacity, unit)}"


def rounded(amount: int, unit: str) -> str:
    """A quantity for people: gigabytes and more to one decimal."""
    for size, suffix in ((1 << 20, "Ti"), (1 << 10, "Gi")):
        if unit.endswith("_mib") and (amount >= 10 * size or (amount and amount % size == 0)):
            return f"{amount / size:.1f}".removesuffix(".0") + suffix
    return format_quantity(amount, unit)


def quantities(amount: objects_pb2.Resources) -> dict[str, str]:
    """As people write them: `{cpu: 500m, memory: 1Gi}`; without what is zero."""
    pairs = ((dimension, getattr(amount, dimension)) for dimension in DIMENSIONS)
    return {dimension.partition("_")[0]: format_quantity(number, dimension) for dimension, number in pairs if number}


def _labels(labels: Any) -> str:
    return ",".join(f"{label.key}={label.value}" if label.value else label.key for label in labels)


def node_state(node: objects_pb2.Node) -> str:
    marks = [enum(node.state, objects_pb2.NodeState)]
    marks += ["draining"] if node.draining else ["cordoned"] if node.cordoned else []
    marks += ["unfit"] if node.unfit else []
    marks += ["destroyed"] if node.destroyed else []
    return ",".join(marks)


def _region_state(region: objects_pb2.Region) -> str:
    marks = [enum(region.state, objects_pb2.RegionState)]
    marks += ["draining"] if region.draining else ["cordoned"] if region.cordoned else []
    marks += [] if region.connected else ["unreachable"]
    return ",".join(marks)


def _exit(view: regional_pb2.SlotView) -> str:
    """How the replica ended, or its last run here."""
    end = view.slot.exit if view.slot.HasField("exit") else view.attempt.exit
    return f"{end.reason} ({end.code})" if end.reason else ""


def _in_force(policy: objects_pb2.SchedulerPolicy) -> str:
    regions = [f"on trial in {region}" for region in policy.status.canary_regions]
    return ", ".join(["yes"] * policy.status.in_force + regions)


WORKLOADS: View[objects_pb2.Workload] = View(
    kind="Workload",
    name=lambda w: w.metadata.name,
    columns={
        "NAME": lambda w: w.metadata.name,
        "READY": _ready,
        "STATE": workload_state,
        "AGE": lambda w: age(w.metadata.created_ms),
    },
    more={
        "TENANT": lambda w: w.metadata.tenant,
        "BOUND": lambda w: str(w.status.counts.bound),
        "SERVING": lambda w: str(w.status.counts.serving),
        "REGIONS": lambda w: ",".join(part.region for part in w.status.regions),
        "PRIORITY": lambda w: enum(w.spec.priority, objects_pb2.Priority),
        "GENERATION": lambda w: str(w.metadata.generation),
        "LABELS": lambda w: _labels(w.metadata.labels),
    },
)
WORKLOADS_OF_ALL: View[objects_pb2.Workload] = View(
    kind=WORKLOADS.kind,
    name=WORKLOADS.name,
    columns={"TENANT": WORKLOADS.more["TENANT"], **WORKLOADS.columns},
    more={header: cell for header, cell in WORKLOADS.more.items() if header != "TENANT"},
)
NODES: View[objects_pb2.Node] = View(
    kind="Node",
    name=lambda n: n.metadata.name,
    columns={
        "NAME": lambda n: n.metadata.name,
        "STATE": node_state,
        "CPU": lambda n: _share(n.used.cpu_milli, n.capacity.cpu_milli, "cpu_milli"),
        "MEMORY": lambda n: _share(n.used.memory_mib, n.capacity.memory_mib, "memory_mib"),
        "SLOTS": lambda n: str(n.slots),
        "AGE": lambda n: age(n.metadata.created_ms),
    },
    more={
        "GPU": lambda n: _share(n.used.gpu_milli, n.capacity.gpu_milli, "gpu_milli") if n.gpus else "",
        "GPUS": lambda n: ",".join(map(_gpu, n.gpus)),
        "IMAGES": lambda n: str(n.images_held),
        "REGION": lambda n: n.region,
        "POOL": lambda n: n.pool,
        "HEARTBEAT": lambda n: span(n.heartbeat_age_ms),
        "ADDRESS": lambda n: n.address,
        "TAINTS": lambda n: ",".join(map(format_taint, n.taints)),
        "LABELS": lambda n: _labels(n.metadata.labels),
        "UNFIT": lambda n: n.unfit,
        "DRAIN": lambda n: f"{n.drain.reason}: {n.drain.progress}" if n.draining else "",
    },
)
SLOTS: View[regional_pb2.SlotView] = View(
    kind="Slot",
    name=lambda s: slot_text(s.slot.id),
    columns={
        "NAME": lambda s: slot_text(s.slot.id),
        "STATE": lambda s: enum(s.slot.state, objects_pb2.SlotState),
        "REGION": lambda s: s.region,
        "NODE": lambda s: s.slot.node,
        "PHASE": lambda s: enum(s.attempt.phase, agent_pb2.AttemptPhase),
        "READY": lambda s: "yes" if s.attempt.ready else "no",
        "RESTARTS": lambda s: str(s.attempt.restarts),
    },
    more={
        "ATTEMPT": lambda s: f"{s.slot.attempt.term}.{s.slot.attempt.n}" if s.slot.HasField("attempt") else "",
        "GENERATION": lambda s: str(s.slot.generation),
        "USES": lambda s: str(vector(s.slot.vector)),
        "GPUS": lambda s: ",".join(map(str, s.slot.gpus)),
        "EXIT": _exit,
        "MESSAGE": lambda s: s.attempt.message or s.slot.exit.message or s.attempt.exit.message,
    },
)
SLOTS_OF_ALL: View[regional_pb2.SlotView] = View(
    kind=SLOTS.kind,
    name=SLOTS.name,
    columns={"TENANT": lambda s: s.slot.id.tenant, **SLOTS.columns},
    more=SLOTS.more,
)
TENANTS: View[objects_pb2.Tenant] = View(
    kind="Tenant",
    name=lambda t: t.metadata.name,
    columns={
        "NAME": lambda t: t.metadata.name,
        "QUOTA": lambda t: str(vector(t.spec.quota)),
        "USED": lambda t: str(vector(t.status.used)),
        "STATE": lambda t: "converging" if t.status.converging else "in effect",
    },
    more={
        "GRANTED": lambda t: str(vector(t.status.granted)),
        "BURST": lambda t: str(vector(t.status.burst.limit)),
        "BURST USED": lambda t: str(vector(t.status.burst.used)),
        "EFFECTIVE": lambda t: str(vector(t.status.effective)),
        "WEIGHT": lambda t: str(t.spec.weight or 1),
        "PROTECTED": lambda t: " · ".join(f"{part.region} {vector(part.amount)}" for part in t.spec.protected),
        "MODE": lambda t: enum(t.spec.mode, objects_pb2.QuotaMode) or "available",
    },
)
REGIONS: View[objects_pb2.Region] = View(
    kind="Region",
    name=lambda r: r.metadata.name,
    columns={
        "NAME": lambda r: r.metadata.name,
        "STATE": _region_state,
        "NODES": lambda r: f"{r.summary.nodes_ready}/{r.summary.nodes_total}",
        "CPU": lambda r: _share(r.summary.used.cpu_milli, r.summary.capacity.cpu_milli, "cpu_milli"),
        "MEMORY": lambda r: _share(r.summary.used.memory_mib, r.summary.capacity.memory_mib, "memory_mib"),
        "BOUND": lambda r: str(r.summary.slots_bound),
        "WAITING": lambda r: str(r.summary.slots_waiting),
    },
    more={
        "CONNECTED": lambda r: "yes" if r.connected else "no",
        "LABELS": lambda r: _labels(r.metadata.labels),
        "EPOCH": lambda r: str(r.epoch),
        "TERM": lambda r: str(r.summary.term),
        "EVIDENCE": lambda r: r.evidence,
    },
)
POLICIES: View[objects_pb2.SchedulerPolicy] = View(
    kind="SchedulerPolicy",
    name=lambda p: str(p.metadata.generation),
    columns={
        "REVISION": lambda p: str(p.metadata.generation),
        "NAME": lambda p: p.metadata.name,
        "IN FORCE": _in_force,
        "DEFAULT": lambda p: p.spec.default_strategy,
        "STRATEGIES": lambda p: str(len(p.spec.strategies)),
        "AGE": lambda p: age(p.metadata.created_ms),
    },
    more={
        "NAMES": lambda p: ",".join(one.name for one in p.spec.strategies),
        "LABELS": lambda p: _labels(p.metadata.labels),
    },
)
USER_TOKENS: View[objects_pb2.UserToken] = View(
    kind="UserToken",
    name=lambda t: t.id,
    columns={
        "ID": lambda t: t.id,
        "NAME": lambda t: t.name,
        "ROLE": lambda t: enum(t.role, objects_pb2.Role),
        "TENANT": lambda t: t.tenant,
        "EXPIRES": lambda t: scalars.format_instant(t.expires_ms),
    },
    more={},
)
JOIN_TOKENS: View[objects_pb2.JoinToken] = View(
    kind="JoinToken",
    name=lambda t: t.id,
    columns={
        "ID": lambda t: t.id,
        "REGION": lambda t: t.region,
        "POOL": lambda t: t.pool,
        "NODE": lambda t: t.node,
        "STATE": lambda t: "revoked" if t.revoked_ms else "used" if t.used_ms else "open",
        "EXPIRES": lambda t: scalars.format_instant(t.expires_ms),
    },
    more={"USED BY": lambda t: t.used_by.partition(" ")[0], "LABELS": lambda t: _labels(t.labels)},
)
OF_ALL_TENANTS: dict[str, View[Any]] = {view.kind: view for view in (WORKLOADS_OF_ALL, SLOTS_OF_ALL)}
BY_KIND: dict[str, View[Any]] = {
    view.kind: view for view in (WORKLOADS, NODES, SLOTS, TENANTS, REGIONS, POLICIES, JOIN_TOKENS, USER_TOKENS)
}
