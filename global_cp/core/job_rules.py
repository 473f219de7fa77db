"""What may be said of a job: every mistake with its path.

Decides whether its tasks can ever all run (names in dependsOn that exist, no cycle, completions that can be reached)
and whether its times leave room for its longest chain of tasks. What becomes of it later is decided in jobs.py.
"""

from collections.abc import Iterator, Mapping

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model.cron import CronError, Zones, parse, utc_only
from atoll.model.dag import cycle
from atoll.model.names import mistake_in_name

MOST_TRIES = 1_000
MOST_CODES = 64
LONGEST_BACKOFF_MS = 24 * 3_600_000
LONGEST_SCHEDULE_NAME = 50
MOST_KEPT = 100
LEAST_PERCENT, MOST_PERCENT, MOST_COPIES = 110, 10_000, 1_000
LONGEST_JOB_S = 366 * 86_400
LATEST_MS = 253_402_300_799_999  # the last millisecond of year 9999

Mistakes = Iterator[Mistake]

_OF_JOBS = {
    "deadline_ms": "deadline",
    "not_before_ms": "notBefore",
    "not_after_ms": "notAfter",
    "active_deadline_s": "activeDeadline",
    "on_failure": "onFailure",
    "time_to_live_s": "timeToLive",
    "schedule": "schedule",
}
_OF_ITS_TASKS = {
    "depends_on": "dependsOn",
    "parallelism": "parallelism",
    "completions": "completions",
    "retries": "retries",
    "speculation": "speculation",
}


def mistakes_in_job(workload: objects_pb2.Workload, zones: Zones = utc_only) -> Mistakes:
    """For services too: they have none of it."""
    spec = workload.spec
    if spec.type != objects_pb2.WORKLOAD_TYPE_JOB:
        yield from _no_job(spec)
        return
    yield from _times(spec)
    for index, task in enumerate(spec.tasks):
        yield from _task(task, f"spec.tasks[{index}]")
    yield from _dependencies(spec)
    if spec.HasField("schedule"):
        yield from _schedule(workload, zones)


def times(spec: objects_pb2.WorkloadSpec) -> tuple[int, ...]:
    """What `missed` goes by, but for now."""
    return spec.deadline_ms, spec.estimate_ms, spec.not_before_ms, spec.not_after_ms


def missed(spec: objects_pb2.WorkloadSpec, now_ms: int) -> list[Mistake]:
    """Times that have passed, or that not even replicas which start at once and never wait could meet."""
    found = []
    begin_ms, least_ms = max(now_ms, spec.not_before_ms), longest_chain_ms(spec)
    for field, name in (("deadline_ms", "deadline"), ("not_after_ms", "notAfter")):
        end_ms = getattr(spec, field)
        if not end_ms or end_ms - begin_ms > least_ms:
            continue
        if end_ms <= now_ms:
            found.append(Mistake(f"spec.{name}", f"has passed {_span(now_ms - end_ms)} ago"))
        elif end_ms > begin_ms:
            left = f"{_span(end_ms - begin_ms)} are left and the estimate is {_span(least_ms)}"
            found.append(Mistake(f"spec.{name}", f"cannot be met: {left}"))
    return found


def _span(milliseconds: int) -> str:
    """For people: in the largest unit of which there are two."""
    for name, unit_ms in (("days", 86_400_000), ("h", 3_600_000), ("min", 60_000)):
        if milliseconds >= 2 * unit_ms:
            count = milliseconds / unit_ms
            return f"{count:.3g} {name}" if count < 100 else f"{count:,.0f} {name}"
    return f"{milliseconds / 1000:.0f} s"


def longest_chain_ms(spec: objects_pb2.WorkloadSpec) -> int:
    """How long the job takes at least, by the user's estimate of one replica: its tasks one after the other as they
    depend on each other, each in as many waves as its parallelism makes of it."""
    tasks = {task.name: task for task in spec.tasks}
    known: dict[str, int] = {}

    def end_of(name: str, above: frozenset[str]) -> int:
        if name not in known:
            task = tasks[name]
            most = max(
                (end_of(up, above | {name}) for up in task.depends_on if up in tasks and up not in above), default=0
            )
            wanted = task.completions or task.replicas
            known[name] = most + -(-wanted // (task.parallelism or max(1, wanted))) * spec.estimate_ms
        return known[name]

    return max((end_of(name, frozenset({name})) for name in tasks), default=0)


def _no_job(spec: objects_pb2.WorkloadSpec) -> Mistakes:
    said = {field.name for field, _ in spec.ListFields()}
    for field, name in _OF_JOBS.items():
        if field in said:
            yield Mistake(f"spec.{name}", "only a job has one: a service does not end")
    for index, task in enumerate(spec.tasks):
        said = {field.name for field, _ in task.ListFields()}
        for field, name in _OF_ITS_TASKS.items():
            if field in said:
                yield Mistake(f"spec.tasks[{index}].{name}", "only tasks of a job have it")


def _times(spec: objects_pb2.WorkloadSpec) -> Mistakes:
    for field in ("deadline_ms", "not_before_ms", "not_after_ms"):
        if not 0 <= getattr(spec, field) <= LATEST_MS:
            yield Mistake(f"spec.{_OF_JOBS[field]}", "is no time before the year 10000")
    if spec.not_after_ms and spec.not_after_ms <= spec.not_before_ms:
        yield Mistake("spec.notAfter", "is not after notBefore")
    if spec.deadline_ms and spec.not_before_ms >= spec.deadline_ms:
        yield Mistake("spec.deadline", "is not after notBefore")
    for field in ("active_deadline_s", "time_to_live_s"):
        if not 0 <= getattr(spec, field) <= LONGEST_JOB_S:
            yield Mistake(f"spec.{_OF_JOBS[field]}", f"{getattr(spec, field)}s is not allowed: 0s to {LONGEST_JOB_S}s")
    least_s = longest_chain_ms(spec) / 1000
    if spec.active_deadline_s and least_s > spec.active_deadline_s > 0:
        yield Mistake("spec.activeDeadline", f"cannot be met: the estimate of the whole job is {least_s:.0f} s")


def _task(task: objects_pb2.Task, path: str) -> Mistakes:
    for name in ("parallelism", "completions"):
        if getattr(task, name) < 0:
            yield Mistake(f"{path}.{name}", f"{getattr(task, name)} is not allowed: 0 or more")
    if task.completions > task.replicas:
        yield Mistake(f"{path}.completions", f"{task.completions} cannot be reached with {task.replicas} replicas")
    if task.HasField("speculation"):
        yield from _speculation(task, f"{path}.speculation")
    if not task.HasField("retries"):
        return
    retries, path = task.retries, f"{path}.retries"
    if not 0 <= retries.limit <= MOST_TRIES:
        yield Mistake(f"{path}.limit", f"{retries.limit} is not allowed: 0 to {MOST_TRIES}")
    if not 10 <= retries.backoff_ms <= LONGEST_BACKOFF_MS:
        yield Mistake(f"{path}.backoff", f"{retries.backoff_ms}ms is not allowed: 10ms to {LONGEST_BACKOFF_MS}ms")
    if not retries.backoff_ms <= retries.backoff_max_ms <= LONGEST_BACKOFF_MS:
        yield Mistake(f"{path}.backoffMax", f"is shorter than backoff, or longer than {LONGEST_BACKOFF_MS}ms")
    for name, codes in (("fatalCodes", retries.fatal_codes), ("ignoredCodes", retries.ignored_codes)):
        if len(codes) > MOST_CODES:
            yield Mistake(f"{path}.{name}", f"has {len(codes)} entries; at most {MOST_CODES} are allowed")
        for index, code in enumerate(codes):
            if not 1 <= code <= 255:
                yield Mistake(f"{path}.{name}[{index}]", f"{code} is no exit code of a failure: 1 to 255")
    for index, code in enumerate(retries.ignored_codes):
        if code in retries.fatal_codes:
            yield Mistake(f"{path}.ignoredCodes[{index}]", f"{code} is among fatalCodes too")


def _schedule(workload: objects_pb2.Workload, zones: Zones) -> Mistakes:
    spec, schedule, path = workload.spec, workload.spec.schedule, "spec.schedule"
    if len(workload.metadata.name) > LONGEST_SCHEDULE_NAME:
        yield Mistake(
            "metadata.name", f"of a schedule has at most {LONGEST_SCHEDULE_NAME} characters, for its runs' names"
        )
    try:
        parse(schedule.cron)
    except CronError as error:
        yield Mistake(f"{path}.cron", str(error))
    if zones(schedule.time_zone, 0) is None:
        yield Mistake(
            f"{path}.timeZone", f"{schedule.time_zone[:40]!r} is no time zone, write for example Europe/Berlin"
        )
    if not 0 <= schedule.starting_deadline_s <= LONGEST_JOB_S:
        text = f"{schedule.starting_deadline_s}s is not allowed: 0s to {LONGEST_JOB_S}s"
        yield Mistake(f"{path}.startingDeadline", text)
    for name, kept in (("keepSucceeded", schedule.keep_succeeded), ("keepFailed", schedule.keep_failed)):
        if not 0 <= kept <= MOST_KEPT:
            yield Mistake(f"{path}.{name}", f"{kept} is not allowed: 0 to {MOST_KEPT}")
    for field in ("deadline_ms", "not_before_ms", "not_after_ms"):
        if getattr(spec, field):
            yield Mistake(
                f"spec.{_OF_JOBS[field]}", "is one point in time, and a schedule has many; use activeDeadline"
            )


def _speculation(task: objects_pb2.Task, path: str) -> Mistakes:
    if not LEAST_PERCENT <= task.speculation.percent <= MOST_PERCENT:
        most = f"{LEAST_PERCENT} to {MOST_PERCENT}"
        yield Mistake(f"{path}.percent", f"{task.speculation.percent} is not allowed: {most}")
    if not 1 <= task.speculation.most <= MOST_COPIES:
        yield Mistake(f"{path}.most", f"{task.speculation.most} is not allowed: 1 to {MOST_COPIES}")
    if task.gang:
        yield Mistake(path, "a replica of a gang has no second copy")


def _dependencies(spec: objects_pb2.WorkloadSpec) -> Mistakes:
    names = [task.name for task in spec.tasks]
    graph: Mapping[str, list[str]] = {task.name: list(task.depends_on) for task in spec.tasks}
    for index, task in enumerate(spec.tasks):
        for at, upstream in enumerate(task.depends_on):
            path = f"spec.tasks[{index}].dependsOn[{at}]"
            if mistake := mistake_in_name(upstream):
                yield Mistake(path, mistake)
            elif upstream == task.name:
                yield Mistake(path, f"{upstream!r} depends on itself")
            elif upstream not in names:
                yield Mistake(path, f"there is no task {upstream!r}; there are: {', '.join(names)[:200]}")
            elif upstream in task.depends_on[:at]:
                yield Mistake(path, f"{upstream!r} is there twice")
    if found := cycle(graph):
        at = names.index(found[0])
        yield Mistake(f"spec.tasks[{at}].dependsOn", f"goes in a circle: {' → '.join([*found, found[0]])}")
