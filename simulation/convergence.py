"""What must be true in the end, once faults have stopped.

Of a region, also while the global plane is away: every share it has admitted runs within its slices, as often as
asked and at its present template; nothing else runs; no zombie is left; sums in memory equal the records. Of the whole:
shares are what the accepted workloads ask for, the deleted ones are gone, statuses say what runs, quota that nobody
needs has come back, and nobody waits for an answer. Each check says what is still missing, or nothing.
"""

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector, total, vector
from atoll.model.slots import SlotName, slot_name
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from atoll.store.store import prefix_end
from global_cp.core.records import at_once
from global_cp.core.shares import planned
from global_cp.core.spread import meets
from regional.config import CoreSettings
from regional.core.machine import Machine
from simulation import jobs, rules, schedules
from simulation.quotas import Quotas, may_burst
from simulation.recovery import Losses
from simulation.rules import Ground

if TYPE_CHECKING:
    from simulation.node import Node
    from simulation.world import World

JOB = objects_pb2.WORKLOAD_TYPE_JOB
HARD, BURST = objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST
BOUND, DONE = objects_pb2.SLOT_STATE_BOUND, objects_pb2.SLOT_STATE_DONE
NO_EXECUTE = objects_pb2.TAINT_EFFECT_NO_EXECUTE
FEW_GPUS_MILLI = 6_000  # of so few none is left free as headroom
ROLLING_DOWN_PERCENT = CoreSettings().rolling_down_percent
M = TypeVar("M", bound=Message)
Workload = tuple[str, str]


def converged(world: "World") -> str:
    return regions_converged(world) or _GlobalView(world).missing() or world.policies.missing()


def regions_converged(world: "World") -> str:
    """Of every region by itself; for this the global plane is not needed."""
    return next((missing for region in world.regions if (missing := RegionView(world, region).missing())), "")


def _all(state: MemoryState, prefix: bytes, kind: type[M]) -> list[M]:
    """The documents under `prefix`, in order of key."""
    return [kind.FromString(item.value) for item in state.range(prefix, prefix_end(prefix)).items]


def _count(share: objects_pb2.Share, task: str) -> int:
    return sum(each.replicas for each in share.spec.tasks if each.name == task)


def _times(request: Vector, room: Vector) -> int:
    """How many fit into the room, which may be less than none."""
    return max(0, min(have // asked for asked, have in zip(request.amounts(), room.amounts(), strict=True) if asked))


class RegionView:
    def __init__(self, world: "World", region: str) -> None:
        self._headroom_percent = world.shape.headroom_percent
        root, state = keys.region_root(region), world.state_of[region]
        self.region = region
        self.nodes: list[Node] = world.nodes_of[region]
        self.machines = [c.core for c in world.candidates_of[region]]
        self.shares = _all(state, root + b"workload/", objects_pb2.Share)
        self.slots = {slot_name(slot.id): slot for slot in _all(state, root + b"slot/", objects_pb2.Slot)}
        self.slices = {slice_.tenant: slice_ for slice_ in _all(state, root + b"slice/", objects_pb2.RegionSlice)}
        self.zombies = _all(state, root + b"zombie/", objects_pb2.Zombie)
        self.records = {node.metadata.name: node for node in _all(state, root + b"node/", objects_pb2.Node)}
        self.running = Counter(run.slot for node in self.nodes for run in node.alive_runs())

    def missing(self) -> str:
        for share in self.shares:
            if share.removed:
                return f"{self._named(share)} is removed and not closed"
            look = self._task if share.spec.type != JOB else self._task_of_a_job
            for task in share.spec.tasks:
                if missing := look(share, task):
                    return missing
        for slot in sorted(self.running):
            record = self.slots.get(slot)
            if record is None or record.state != BOUND:
                return f"I7: {slot} runs in {self.region} without a binding"
        if self.zombies:
            return f"{len(self.zombies)} zombies are left in {self.region}, first of {self.zombies[0].slot}"
        return self._duties() or self._sums()

    def _duties(self) -> str:
        """Nothing is left on nodes that drain, nor on those with a taint that it does not tolerate."""
        task_of = self._ground().task_of
        for name, of in self.slots.items():
            record = self.records.get(of.node) if of.state == BOUND else None
            task = task_of((name.tenant, name.workload), name.task) or objects_pb2.Task()
            if record and (record.draining or rules.untolerated(record, task, (NO_EXECUTE,))):
                return f"{name} is still on {of.node}, which it had to leave"
        return ""

    def _named(self, share: objects_pb2.Share) -> str:
        return f"{share.metadata.tenant}/{share.metadata.name} in {self.region}"

    def _task(self, share: objects_pb2.Share, task: objects_pb2.Task) -> str:
        """Legal: a slot that no node or quota has room for waits; and an update waits for ever while as many replicas
        as it may take down are down already, because they find no room."""
        tenant, name = share.metadata.tenant, share.metadata.name
        of = (tenant, name, task.name)
        bound = [slot for slot, record in sorted(self.slots.items()) if slot[:3] == of and record.state == BOUND]
        down, outdated = task.replicas - len(bound), ""
        if down < 0:
            return f"{name}/{task.name} has {len(bound)} bound in {self.region}, {task.replicas} are wanted"
        together = down if task.gang and not bound else 1  # of a gang all wait for room at once
        if down and self._room(share, task, together):
            return f"{down} of {name}/{task.name} are not bound in {self.region}, and there is room"
        for slot in bound:
            if self.running[slot] != 1:
                return f"{slot} is bound in {self.region} and runs {self.running[slot]} times"
            if self.slots[slot].uid != share.metadata.uid or self._args(slot) != tuple(task.args):
                outdated = f"{slot} runs {self._args(slot)} in {self.region}, its template is {tuple(task.args)}"
        return outdated if down < max(1, task.replicas * ROLLING_DOWN_PERCENT // 100) else ""

    def _task_of_a_job(self, share: objects_pb2.Share, task: objects_pb2.Task) -> str:
        """It has ended, or waits for room; what runs is about to end."""
        name = f"{share.metadata.name}/{task.name} in {self.region}"
        bound, left = self._left(share, task)
        if bound:
            return f"{bound} of job {name} run"
        part = min((part.replicas for part in share.parallel if part.task == task.name), default=left)
        together = left if task.gang else 1
        if min(left, part) and self._room(share, task, together):
            return f"{left} of job {name} are not bound, and there is room"
        return ""

    def _left(self, share: objects_pb2.Share, task: objects_pb2.Task) -> tuple[int, int]:
        """How many replicas of a job's task are bound, and how many neither that nor ended; none of a task that is
        over. What ended for another template, or failed before its job was resumed, is to be done again."""
        of = (share.metadata.tenant, share.metadata.name, task.name)
        slots = [record for slot, record in self.slots.items() if slot[:3] == of]
        bound = sum(record.state == BOUND for record in slots)
        work = next((each.work_generation for each in share.templates if each.task == task.name), 0)
        ended = 0
        for record in slots:
            mine = record.state == DONE and record.uid == share.metadata.uid and record.generation >= work
            failed = record.exit.reason not in ("Completed", "Stopped", "NodeLost")
            completed = record.exit.reason == "Completed"
            ended += mine and (completed or (failed and record.generation >= share.spec.resumed))
        return bound, 0 if task.name in share.stopped else max(0, task.replicas - bound - ended)

    def waiting(self, tenant: str, workload: str) -> bool:
        """Some replica of the job that this region was told to run waits."""
        own = [s for s in self.shares if (s.metadata.tenant, s.metadata.name) == (tenant, workload) and not s.removed]
        return any(self._left(share, task)[1] for share in own for task in share.spec.tasks)

    def needed(self, tenant: str) -> Vector:
        """By the tenant's shares: of replicas of jobs that have ended nothing."""
        found = Vector()
        for share in self.shares:
            if share.metadata.tenant == tenant and not share.removed:
                for task in share.spec.tasks:
                    ended = task.replicas - sum(self._left(share, task)) if share.spec.type == JOB else 0
                    found += vector(task.resources.requests) * at_once(share, task, ended)
        return found

    def bursting(self, tenant: str) -> list[Vector]:
        """What each replica asks for that waits, of work that burst may pay for."""
        found: list[Vector] = []
        for share in self.shares:
            tasks = [] if share.removed or share.metadata.tenant != tenant else share.spec.tasks
            for task in tasks:
                if may_burst(share.spec, task):
                    found += [vector(task.resources.requests)] * self._unbound(share, task)
        return found

    def _unbound(self, share: objects_pb2.Share, task: objects_pb2.Task) -> int:
        bound, left = self._left(share, task)
        if share.spec.type != JOB:
            return max(0, task.replicas - bound)
        return min([left, *(part.replicas - bound for part in share.parallel if part.task == task.name)])

    def waits(self, workload: objects_pb2.Workload, task: objects_pb2.Task, told: int) -> bool:
        """Whether fewer of the task than `told` run here."""
        of = (workload.metadata.tenant, workload.metadata.name, task.name)
        return sum(self.running[slot] for slot in self.running if slot[:3] == of) < told

    def is_current(self, slot: SlotName, workload: objects_pb2.Workload) -> bool:
        """Bound for the workload, and at its present template: statuses count no other."""
        record, tasks = self.slots[slot], {task.name: task for task in workload.spec.tasks}
        mine = record.state == BOUND and record.uid == workload.metadata.uid
        return mine and self._args(slot) == tuple(tasks[slot.task].args)

    def _args(self, slot: SlotName) -> tuple[str, ...]:
        """The template that runs in the slot."""
        return next(node.runs[run].args for node in self.nodes for run in node.alive_in.get(slot, ()))

    def used(self, tenant: str, account: int = HARD) -> Vector:
        bound = [(n, s) for n, s in self.slots.items() if s.state == BOUND and s.account == account]
        return total([vector(slot.vector) for name, slot in bound if name.tenant == tenant])

    def _room(self, share: objects_pb2.Share, task: objects_pb2.Task, count: int) -> bool:
        """The nodes that may take the task and the tenant's slice could hold so many more of it. Above its target
        nothing new is bound, though A may still be more. Not told of several at once that have rules among them."""
        of, request = (share.metadata.tenant, share.metadata.name), vector(task.resources.requests)
        slice_ = self.slices.get(of[0], objects_pb2.RegionSlice())
        payers = [account for account in (HARD, BURST) if account == HARD or may_burst(share.spec, task)]
        targets = [(a, vector(p.limit if slice_.frozen else p.target)) for p in slice_.limits if (a := p.account)]
        if not any((self.used(of[0], a) + request * count).fits(t) for a, t in targets if a in payers):
            return False
        if not self._headroom(request * count):
            return False
        if not self._beside_protected(of[0], request * count):
            return False
        kept = rules.kept([each for each in self.machines if isinstance(each, Machine)], share)
        open_ = [name for name, record in self.records.items() if name not in kept and not rules.refusal(record, task)]
        if count > 1 and (rules.is_ruled(task) or self._kept_away(of)):
            return False
        ground = self._ground()
        open_ = [name for name in open_ if rules.allows(ground, name, of, task)]
        return sum(self._times(request, task, name) for name in open_) >= count

    def _times(self, request: Vector, task: objects_pb2.Task, node: str) -> int:
        """How many more of the task fit on the node; their GPUs are those it may have, whole or one in part."""
        bound = [slot for slot in self.slots.values() if slot.state == BOUND and slot.node == node]
        room = vector(self.records[node].capacity) - total([vector(slot.vector) for slot in bound])
        fit = _times(request, room)
        if not request.gpu_milli:
            return fit
        left = rules.left_on_devices(self.records[node], bound, task)
        whole = request.gpu_milli >= rules.WHOLE_MILLI
        free = sum(milli == rules.WHOLE_MILLI if whole else milli // request.gpu_milli for milli in left)
        return min(fit, free // rules.devices_needed(request.gpu_milli) if whole else free)

    def _ground(self) -> Ground:
        tasks = {
            ((share.metadata.tenant, share.metadata.name), task.name): task
            for share in self.shares
            for task in share.spec.tasks
        }
        bound = [(name, slot.node) for name, slot in self.slots.items() if slot.state == BOUND]
        replicas = [rules.Replica((name.tenant, name.workload), name.task, node) for name, node in bound]
        return Ground(self.records, replicas, lambda of, task: tasks.get((of, task)))

    def _kept_away(self, of: Workload) -> bool:
        """Whether another workload of its tenant has a rule about it."""
        others = [share for share in self.shares if share.metadata.tenant == of[0]]
        tasks = [task for share in others for task in share.spec.tasks]
        return any(rule.workload == of[1] for task in tasks for rule in task.avoid_colocating)

    def _headroom(self, request: Vector) -> bool:
        """New work leaves a part of the region free. Work that has run may use it; that is not asked here."""
        free = 100 - self._headroom_percent
        open_ = {name: record for name, record in self.records.items() if not record.cordoned}
        capacity = total([vector(record.capacity) for record in open_.values()])
        used = total([vector(s.vector) for s in self.slots.values() if s.state == BOUND and s.node in open_])
        of_gpus = capacity.gpu_milli > FEW_GPUS_MILLI
        asked = request if of_gpus else request._replace(gpu_milli=0)
        return all(u + r <= c * free // 100 for u, r, c in zip(used, asked, capacity, strict=True) if r)

    def _beside_protected(self, tenant: str, request: Vector) -> bool:
        """Others leave it so much of what is free on the nodes that take work."""
        open_ = [name for name, record in self.records.items() if not record.cordoned]
        spare = total([vector(self.records[name].capacity) for name in open_])
        spare -= total(
            [vector(slot.vector) for slot in self.slots.values() if slot.state == BOUND and slot.node in open_]
        )
        for other, slice_ in self.slices.items():
            if other != tenant:
                spare -= (vector(slice_.protected) - self.used(other)).at_least(Vector())
        return all(left >= asked for left, asked in zip(spare, request, strict=True) if asked)

    def _sums(self) -> str:
        """The leaders' sums agree with their records, and limits have come down to targets or to what is in use."""
        for machine in self.machines:
            if isinstance(machine, Machine) and machine.state:
                machine.state.check()
        for tenant, slice_ in self.slices.items():
            for limit in slice_.limits:
                if not vector(limit.limit).fits(vector(limit.target).at_least(self.used(tenant, limit.account))):
                    return f"{tenant} keeps {vector(limit.limit)} of {vector(limit.target)} in {self.region}"
        return ""


class _GlobalView:
    def __init__(self, world: "World") -> None:
        state = world.global_state
        self.world = world
        self.regions = [RegionView(world, region) for region in world.regions]
        self.workloads = world.promises.workloads
        self.tenants = world.promises.tenants
        self.places = {region.metadata.name: region for region in _all(state, b"/g/region/", objects_pb2.Region)}
        self.shares = _all(state, b"/g/share/", objects_pb2.Share)
        self.slices = _all(state, b"/g/slice/", objects_pb2.Slice)
        self.budgets = {budget.tenant: budget for budget in _all(state, b"/g/budget/", objects_pb2.Budget)}

    def missing(self) -> str:
        if waiting := self.world.users.unanswered() or self.world.operators.unanswered():
            return f"I11: {waiting[0]} has no answer"
        for path, workload in sorted(self.workloads.items()):
            if missing := self._workload(path, workload):
                return missing
        missing = schedules.missing(self.world, self.workloads) or self.world.receiver.missing()
        return missing or self._tokens() or self._admitted() or self._quotas() or self._losses()

    def _workload(self, path: Workload, workload: objects_pb2.Workload) -> str:
        if workload.metadata.deleted_ms:
            return f"workload {path} is deleted and not gone"
        shares = [s for s in self.shares if (s.metadata.tenant, s.metadata.name) == path]
        for task in workload.spec.tasks:
            if missing := self._spread(workload, task, shares):
                return missing
        item = self.world.global_state.get(keys.status(*path))
        status = objects_pb2.WorkloadStatus.FromString(item.value if item else b"")
        if not shares:
            return ""  # no region takes any: nothing is observed
        if status.observed_generation != workload.metadata.generation:
            return f"the status of {path} is of generation {status.observed_generation}"
        if workload.spec.type == JOB:
            waiting = any(view.waiting(*path) for view in self.regions) or self._nowhere(workload)
            if missing := jobs.missing(workload, status.job, waiting):
                return missing
        own = [(view, slot) for view in self.regions for slot in view.slots if view.is_current(slot, workload)]
        counts = status.counts
        if (counts.desired, counts.bound) != (sum(t.replicas for t in workload.spec.tasks), len(own)):
            return f"the status of {path} says {counts.bound} of {counts.desired} are bound, {len(own)} are"
        serving = sum(view.running[slot] for view, slot in own)
        return "" if counts.serving == serving else f"{serving} of {path} run, its status says {counts.serving} serve"

    def _spread(self, workload: objects_pb2.Workload, task: objects_pb2.Task, shares: list[objects_pb2.Share]) -> str:
        """Only regions that meet the residency run any. The plan adds up: to less only where a region that the task
        needs takes none. A move that still goes on waits for room for one of its replicas."""
        name, spread = workload.metadata.name, workload.spec.spread
        told = {share.region: _count(share, task.name) for share in shares}
        strays = [
            region for region, count in told.items() if count and not meets(spread.residency, self.places[region])
        ]
        if strays:
            return f"{name} runs in {strays[0]}, against its residency"
        plan = sum(planned(share, task.name) for share in shares)
        over = any(task.name in share.stopped for share in shares)
        opened = workload.spec.type != JOB or (plan > 0 and not over)  # a task of a job may wait for others, or be over
        if plan > task.replicas or (plan < task.replicas and self._all_take(workload) and opened):
            return f"I11: workload {name} asks for {task.replicas} replicas, its regions for {plan}"
        moving = any(share.targets for share in shares)
        if moving and not any(view.waits(workload, task, told.get(view.region, 0)) for view in self.regions):
            return f"the move of {name} to {[list(share.targets) for share in shares]} has stopped half-way"
        return ""

    def _nowhere(self, workload: objects_pb2.Workload) -> bool:
        """Some replica of an open task was told to no region."""
        return not self._all_take(workload)

    def _all_take(self, workload: objects_pb2.Workload) -> bool:
        """Each fixed region, or one of the others, takes work of this workload."""
        spec = workload.spec
        fixed = [count.region for count in spec.spread.fixed]
        takes = [
            meets(spec.spread.residency, region) and not region.cordoned
            for name, region in sorted(self.places.items())
            if name in (spec.regions or fixed or self.places)
        ]
        return all(takes) if fixed else any(takes)

    def _tokens(self) -> str:
        """Each region's leader takes the tokens there are, and no others."""
        there = self.world.promises.tokens.keys()
        for leader in self.world.leading(self.world.candidates):
            if leader.tokens != there:
                return f"{leader.name} takes the tokens {sorted(leader.tokens)}, there are {sorted(there)}"
        return ""

    def _admitted(self) -> str:
        """Every region has admitted exactly the shares there are, each of a workload there is."""
        for view in self.regions:
            there = {(s.metadata.uid, s.metadata.generation) for s in view.shares}
            wanted = {(s.metadata.uid, s.metadata.generation) for s in self.shares if s.region == view.region}
            if there != wanted:
                return f"{view.region} has admitted {sorted(there)} of {sorted(wanted)}"
        uids = {workload.metadata.uid for workload in self.workloads.values()}
        lost = [s for s in self.shares if s.metadata.uid not in uids]
        return f"I7: {lost[0].metadata.name} has shares and no workload" if lost else ""

    def _quotas(self) -> str:
        quotas = Quotas(self.tenants, self.workloads, self.budgets, self.slices, self.regions)
        return quotas.missing()

    def _losses(self) -> str:
        if not self.world.shape.features.recovery:
            return ""  # nobody asks
        nodes = {view.region: list(view.records.values()) for view in self.regions}
        state = self.world.global_state
        return Losses(self.workloads, self.tenants, self.places, self.shares, nodes, state).missing()
