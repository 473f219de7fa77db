"""Jobs in the simulator: those that users draw, and what must be true of each at every revision.

Checked from the stores' history alone, by code that shares nothing with the programs: a task is bound for the first
time only when what it depends on has ended as often as it must, with Completed; a replica that has completed is not
bound again while its task does the same; no status counts more successes than there were, none is taken back; over all
regions no more of a task are bound at once than its parallelism says.
"""

from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from atoll.model.slots import SECOND_COPY
from atoll.store.store import Change
from simulation import notices, rules, schedules
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

JOB = objects_pb2.WORKLOAD_TYPE_JOB
BOUND, DONE = objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_DONE
SUCCEEDED = objects_pb2.TASK_PHASE_SUCCEEDED
MOST_REPLICAS = 4
SHORT_MS, JOB_MS, LONG_MS = 2_000, 12_000, 60_000  # how long a replica runs at most
FATAL = 2  # the exit code that is not tried again
GRAPHS: tuple[dict[str, tuple[str, ...]], ...] = (
    {"main": ()},
    {"main": (), "b": ("main",)},
    {"main": (), "b": ("main",), "c": ("b",)},
    {"main": (), "b": ("main",), "c": ("main",), "d": ("b", "c")},
)
Ended = set[tuple[str, int]]  # region and number of a replica; its two copies are one


def draw(world: "World", tenant: str, name: str) -> objects_pb2.Workload:
    """What a user wants of a job."""
    rng, regions, features = world.kernel.random, world.regions, world.shape.features
    spec = objects_pb2.WorkloadSpec(
        type=JOB, priority=rng.choice([objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_HIGH])
    )
    request = Vector(cpu_milli=rng.choice([100, 500, 1000]), memory_mib=rng.choice([64, 512])).to_proto()
    for task_name, upstream in rng.choice(GRAPHS).items():
        task = spec.tasks.add(name=task_name, replicas=rng.randint(1, MOST_REPLICAS), command=["run"])
        task.resources.requests.CopyFrom(request)
        task.depends_on.extend(upstream)
        task.termination_grace_s = 1
        task.parallelism = rng.choice([0, 0, 1, 2])
        task.completions = rng.choice([0, 0, 0, 1])
        task.retries.limit = rng.randint(0, 4)
        task.retries.backoff_ms, task.retries.backoff_max_ms = 200, 2_000
        task.retries.fatal_codes.append(FATAL)
        if rng.random() < 0.4:
            task.speculation.percent, task.speculation.most = 110, rng.choice([1, 2])
    spec.estimate_ms = rng.choice([0, 500])  # for second copies
    spec.on_failure = rng.choice([objects_pb2.ON_FAILURE_STOP, objects_pb2.ON_FAILURE_CONTINUE])
    spec.active_deadline_s = rng.choice([0, 0, 0, 60])
    spec.time_to_live_s = rng.choice([0, 0, 30])
    spec.not_before_ms = world.kernel.now_ms + 10_000 if rng.random() < 0.2 else 0
    spec.run_class = rng.choice([objects_pb2.RUN_CLASS_KEEP, objects_pb2.RUN_CLASS_EXCLUSIVE])
    spec.regions.extend(rng.sample(regions, rng.randint(0, len(regions))))
    spec.spread.strategy = rng.choice([objects_pb2.SPREAD_STRATEGY_PREFERRED, objects_pb2.SPREAD_STRATEGY_EVEN])
    for task in spec.tasks:
        rules.draw(world, task)
    if features.long_jobs:
        spec.estimate_ms = rng.choice([0, LONG_MS, LONG_MS])
        if rng.random() < 0.4:
            spec.tasks[0].gang, spec.tasks[0].parallelism = True, 0
            spec.spread.strategy = objects_pb2.SPREAD_STRATEGY_PREFERRED
    if features.notices:
        spec.notify.add(url=notices.URL)
    if features.schedules and rng.random() < 0.4:
        schedules.draw(rng, spec)
    return objects_pb2.Workload(metadata=objects_pb2.Metadata(tenant=tenant, name=name), spec=spec)


def longest_ms(world: "World") -> int:
    """Runs of a schedule end before the next one is due: else nothing would ever come to rest."""
    features = world.shape.features
    if features.schedules:
        return SHORT_MS
    return LONG_MS if features.long_jobs else JOB_MS


def exit_code(rng: Random) -> int:
    return rng.choice([0, 0, 0, 0, 0, 0, 0, 1, 1, FATAL])


class JobChecks:
    def __init__(self, world: "World") -> None:
        self._world = world
        self._specs: dict[str, dict[int, objects_pb2.WorkloadSpec]] = {}  # by uid and generation
        self._successes: dict[tuple[str, str], Ended] = {}  # by uid and task
        self._begun: set[tuple[str, str]] = set()
        self._bound: dict[tuple[str, str], dict[tuple[str, int], int]] = {}  # by uid and task: slot → generation
        self.ended = 0

    def accepted(self, workload: objects_pb2.Workload) -> None:
        if workload.spec.type == JOB:
            metadata = workload.metadata
            self._specs.setdefault(metadata.uid, {})[metadata.generation] = workload.spec

    # ---- at every revision of a slot

    def slot(self, region: str, change: Change, slot: objects_pb2.Slot) -> None:
        """`slot`: as it is, or was when it is gone."""
        if slot.uid not in self._specs:
            return
        bound = self._bound.setdefault((slot.uid, slot.id.task), {})
        if change.item is None or slot.state != BOUND:
            bound.pop((region, slot.id.index), None)
            if change.item is not None and slot.state == DONE and slot.exit.reason == "Completed":
                self.ended += 1
                one = (region, slot.id.index % SECOND_COPY)
                self._successes.setdefault((slot.uid, slot.id.task), set()).add(one)
            return
        bound[region, slot.id.index] = slot.generation
        self._not_again(change, slot)
        if (slot.uid, slot.id.task) not in self._begun:
            self._in_order(slot)
            self._begun.add((slot.uid, slot.id.task))
        self._within_parallelism(slot, bound)

    def _not_again(self, change: Change, slot: objects_pb2.Slot) -> None:
        before = objects_pb2.Slot.FromString(change.previous.value if change.previous else b"")
        if before.state != DONE or before.exit.reason != "Completed" or before.uid != slot.uid:
            return
        generations = [g for g in self._specs[slot.uid] if before.generation <= g <= slot.generation]
        tasks = [self._task(slot.uid, slot.id.task, g) for g in generations]
        if all(task and _work(task) == _work(tasks[0] or task) for task in tasks):
            raise Violated(f"jobs: {_named(slot)} has completed, and is bound again")

    def _in_order(self, slot: objects_pb2.Slot) -> None:
        """Every task that it depends on has succeeded, by the spec of some generation up to its own."""
        task = self._task(slot.uid, slot.id.task, slot.generation)
        for name in task.depends_on if task else ():
            done = len(self._successes.get((slot.uid, name), ()))
            upstream = [self._task(slot.uid, name, g) for g in self._specs[slot.uid] if g <= slot.generation]
            if not any(up and done >= (up.completions or up.replicas) for up in upstream):
                raise Violated(f"jobs: {_named(slot)} starts after {done} successes of {name}")

    def _within_parallelism(self, slot: objects_pb2.Slot, bound: Mapping[tuple[str, int], int]) -> None:
        """Over all regions. Legal: what was bound when a parallelism was larger runs on, and a region that has not
        heard of a smaller one keeps to its part of the larger."""
        since = min(bound.values())
        tasks = [self._task(slot.uid, slot.id.task, g) for g in self._specs[slot.uid] if g >= since]
        at_most = [task.parallelism for task in tasks if task]
        if all(at_most) and len(bound) > max(at_most, default=0):
            where = ", ".join(f"{region}/{index}" for region, index in sorted(bound))
            raise Violated(f"jobs: {len(bound)} of {_named(slot)} run at once ({where}), at most {max(at_most)} may")

    # ---- at every revision of a status

    def status(self, change: Change) -> None:
        before, after = (
            objects_pb2.WorkloadStatus.FromString(item.value if item else b"").job
            for item in (change.previous, change.item)
        )
        path = change.key.decode().split("/")[3:]
        workload = self._world.promises.workloads.get((path[0], path[1]))
        if workload is None or change.item is None:
            return
        known = {task.task: task for task in before.tasks}
        for task in after.tasks:
            done = len(self._successes.get((workload.metadata.uid, task.task), ()))
            spec = self._task(workload.metadata.uid, task.task, after.generation)
            if spec is None:
                continue
            if task.succeeded > done:
                raise Violated(f"jobs: {path}/{task.task} has {task.succeeded} successes by its status, {done} in fact")
            if task.phase == SUCCEEDED and done < (spec.completions or spec.replicas):
                raise Violated(f"jobs: {path}/{task.task} is called a success after {done} completions")
            was = known.get(task.task)
            if was and was.phase == SUCCEEDED != task.phase and was.digest == task.digest:
                raise Violated(f"jobs: the success of {path}/{task.task} is taken back")

    def _task(self, uid: str, name: str, generation: int) -> objects_pb2.Task | None:
        spec = self._specs[uid].get(generation)
        return next((task for task in spec.tasks if task.name == name), None) if spec else None


def _work(task: objects_pb2.Task) -> bytes:
    """What a replica does, whoever decides when, how often and how many at once."""
    bare = objects_pb2.Task()
    bare.CopyFrom(task)
    for rule in ("replicas", "parallelism", "completions", "retries", "depends_on", "speculation"):
        bare.ClearField(rule)
    return bare.SerializeToString(deterministic=True)


def _named(slot: objects_pb2.Slot) -> str:
    return f"{slot.id.tenant}/{slot.id.workload}/{slot.id.task}/{slot.id.index}"


def missing(workload: objects_pb2.Workload, status: objects_pb2.JobStatus, waiting: bool) -> str:
    """What a job still lacks in the end. `waiting`: some replica that was told finds no room."""
    over = status.phase in (objects_pb2.JOB_PHASE_SUCCEEDED, objects_pb2.JOB_PHASE_FAILED)
    if over or waiting:
        return ""
    return f"I11: job {workload.metadata.name} has not ended, and nothing of it waits for room"
