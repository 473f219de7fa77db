"""The complete form of what users send: every default written out, every set in one order.

Decides no more than that. The stored spec is complete, so a later change of a default changes nothing that runs, and
two spellings of the same spec are equal. Only the strategy is left to the policy: it touches nothing that runs either.
"""

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import BURST_PERCENT
from atoll.model.resources import DIMENSIONS

TERMINATION_GRACE_S = 10
PROBE_INTERVAL_MS, PROBE_TIMEOUT_MS, PROBE_FAILURES, PROBE_SUCCESSES = 2_000, 1_000, 3, 1
RETRIES, RETRY_MS, RETRY_MAX_MS = 5, 1_000, 300_000
SLOW_PERCENT = 200
KEEP_SUCCEEDED, KEEP_FAILED = 3, 1
LOCAL_RESTARTS, BACKOFF_MS, BACKOFF_MAX_MS = 3, 1_000, 60_000


def complete_workload(workload: objects_pb2.Workload) -> objects_pb2.Workload:
    """A new document with what users may say and nothing else: metadata of the server and status are dropped. Where no
    strategy is named none is written: it is that of the policy in force."""
    said = workload.metadata
    result = objects_pb2.Workload(
        metadata=objects_pb2.Metadata(
            name=said.name,
            tenant=said.tenant,
            labels=sorted(said.labels, key=_key),
            annotations=sorted(said.annotations, key=_key),
        ),
        spec=workload.spec,
    )
    spec = result.spec
    spec.type = spec.type or objects_pb2.WORKLOAD_TYPE_SERVICE
    spec.priority = spec.priority or objects_pb2.PRIORITY_DEFAULT
    spec.run_class = spec.run_class or objects_pb2.RUN_CLASS_KEEP
    spec.on_quota = spec.on_quota or objects_pb2.ON_QUOTA_QUEUE
    spec.resumed = 0
    if spec.type == objects_pb2.WORKLOAD_TYPE_JOB:
        spec.on_failure = spec.on_failure or objects_pb2.ON_FAILURE_STOP
    if spec.HasField("schedule"):
        _complete_schedule(spec.schedule)
    if len(spec.tasks) == 1:
        spec.tasks[0].name = spec.tasks[0].name or "main"
    _complete_spread(spec)
    for task in spec.tasks:
        _complete_task(task, spec.type)
    return result


def complete_tenant(tenant: objects_pb2.Tenant) -> objects_pb2.Tenant:
    said = tenant.metadata
    result = objects_pb2.Tenant(
        metadata=objects_pb2.Metadata(
            name=said.name,
            labels=sorted(said.labels, key=_key),
            annotations=sorted(said.annotations, key=_key),
        ),
        spec=tenant.spec,
    )
    result.spec.weight = result.spec.weight or 1
    result.spec.burst_percent = result.spec.burst_percent if result.spec.HasField("burst_percent") else BURST_PERCENT
    result.spec.protected.sort(key=lambda part: part.region)
    result.spec.mode = result.spec.mode or objects_pb2.QUOTA_MODE_AVAILABLE
    return result


def _complete_spread(spec: objects_pb2.WorkloadSpec) -> None:
    """Fixed counts say how many replicas there are, where the tasks do not."""
    spread = spec.spread
    fixed = objects_pb2.SPREAD_STRATEGY_FIXED if spread.fixed else objects_pb2.SPREAD_STRATEGY_PREFERRED
    spread.strategy = spread.strategy or fixed
    for task in spec.tasks if spread.fixed else ():
        task.replicas = task.replicas or sum(count.replicas for count in spread.fixed)


def _complete_task(task: objects_pb2.Task, workload_type: "objects_pb2.WorkloadType.ValueType") -> None:
    by_image = objects_pb2.DRIVER_DOCKER if task.image else objects_pb2.DRIVER_PROCESS
    task.driver = task.driver or by_image
    for rule in task.topology_spread:
        rule.max_skew = rule.max_skew or 1
    for near in (*task.colocate_with, *task.avoid_colocating):
        near.within = near.within or "node"
    task.termination_grace_s = task.termination_grace_s or TERMINATION_GRACE_S
    requests, limits = task.resources.requests, task.resources.limits
    for dimension in DIMENSIONS:
        setattr(limits, dimension, getattr(limits, dimension) or getattr(requests, dimension))
    for port in task.ports:
        port.name = port.name or str(port.number)
    task.env.sort(key=_key)
    task.node_selector.sort(key=_key)
    for name in ("liveness", "readiness"):
        if task.HasField(name):
            _complete_probe(getattr(task, name))
    restart = task.restart
    job = workload_type == objects_pb2.WORKLOAD_TYPE_JOB
    if job:
        task.replicas = task.replicas or task.completions
        _complete_retries(task)
    restart.mode = restart.mode or (objects_pb2.RESTART_MODE_ON_FAILURE if job else objects_pb2.RESTART_MODE_ALWAYS)
    restart.local_limit = restart.local_limit or LOCAL_RESTARTS
    restart.backoff_ms = restart.backoff_ms or BACKOFF_MS
    restart.backoff_max_ms = restart.backoff_max_ms or max(BACKOFF_MAX_MS, restart.backoff_ms)


def _complete_schedule(schedule: objects_pb2.Schedule) -> None:
    schedule.time_zone = schedule.time_zone or "UTC"
    schedule.concurrency = schedule.concurrency or objects_pb2.CONCURRENCY_ALLOW
    schedule.keep_succeeded = schedule.keep_succeeded if schedule.HasField("keep_succeeded") else KEEP_SUCCEEDED
    schedule.keep_failed = schedule.keep_failed if schedule.HasField("keep_failed") else KEEP_FAILED


def _complete_retries(task: objects_pb2.Task) -> None:
    """Who counts tries counts runs: none is started again on its node unless `restart` says so. Never to be restarted
    means never to be tried again, unless `retries` says otherwise."""
    restart, said = task.restart, task.HasField("retries")
    if said:
        restart.mode = restart.mode or objects_pb2.RESTART_MODE_NEVER
    retries = task.retries
    if not said:
        retries.limit = 0 if restart.mode == objects_pb2.RESTART_MODE_NEVER else RETRIES
    retries.backoff_ms = retries.backoff_ms or RETRY_MS
    retries.backoff_max_ms = retries.backoff_max_ms or max(RETRY_MAX_MS, retries.backoff_ms)
    if task.HasField("speculation"):
        task.speculation.percent = task.speculation.percent or SLOW_PERCENT
        task.speculation.most = task.speculation.most or 1
    for codes in (retries.fatal_codes, retries.ignored_codes):
        codes[:] = sorted(set(codes))


def _complete_probe(probe: objects_pb2.Probe) -> None:
    probe.interval_ms = probe.interval_ms or PROBE_INTERVAL_MS
    probe.timeout_ms = probe.timeout_ms or PROBE_TIMEOUT_MS
    probe.failure_threshold = probe.failure_threshold or PROBE_FAILURES
    probe.success_threshold = probe.success_threshold or PROBE_SUCCESSES
    if probe.WhichOneof("check") == "http":
        probe.http.path = probe.http.path or "/"


def _key(label: objects_pb2.Label) -> str:
    return label.key
