"""Records with their bookkeeping: one entry a slot, task, gang, workload, node and zombie.

An entry holds the published message as committed, its mod_revision, and what only this leader knows (a transaction in
flight, a wish to stop, what an agent reported). Decides nothing; state.py keeps indices and sums true to the entries.
"""

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model import strategies
from atoll.model.accounts import BURST, HARD, Account, ByAccount, charged_to, may_burst
from atoll.model.resources import Vector
from atoll.model.slots import SECOND_COPY, AttemptId, SlotName, attempt_id
from regional.core import tally
from regional.core.colocation import ALONE, Around, Counted
from regional.core.events import NodeHello
from regional.core.filters import Request, request_of
from regional.core.queue import SchedulingClass
from regional.core.tally import Tally

if TYPE_CHECKING:
    from regional.core.transactions import Binding

RESERVED = objects_pb2.SLOT_STATE_RESERVED
BOUND = objects_pb2.SLOT_STATE_BOUND
WAITING = objects_pb2.SLOT_STATE_WAITING
DONE = objects_pb2.SLOT_STATE_DONE
CLOSED = agent_pb2.ATTEMPT_PHASE_CLOSED
COMPLETED, STOPPED, NODE_LOST = "Completed", "Stopped", "NodeLost"  # reasons of an exit
NEVER = objects_pb2.RESTART_MODE_NEVER
NOTHING_ASKED = Request(Vector())


@dataclass(slots=True, eq=False)
class SlotEntry:
    """One slot that has a record."""

    key: bytes
    task: "TaskEntry"
    index: int
    record: objects_pb2.Slot
    mod_revision: int
    vector: Vector
    busy: bool = False  # a transaction on it is in flight
    closing: str = ""  # why its attempt is asked to stop
    grace_s: int = 0  # that it gets then, being preempted; 0 = that of its task
    status: agent_pb2.AttemptStatus | None = None  # of the bound attempt, as last reported
    marks: int = 0  # what it adds to its task's tally
    # derived, see `derive`
    bound: bool = False
    reserved: bool = False
    wanted: bool = False
    outdated: bool = False  # see `TaskEntry.outdates`
    exit_reason: str = ""  # of the last attempt; of a bound slot nobody asks

    def derive(self) -> None:
        """To be called whenever the record or the share has changed: these are asked for all the time."""
        record, task = self.record, self.task
        state = record.state
        self.bound, self.reserved = state == BOUND, state == RESERVED
        self.exit_reason = "" if self.bound else record.exit.reason
        self.wanted = self.index in task.wanted
        self.outdated = task.outdates(record)

    @property
    def name(self) -> SlotName:
        return SlotName(self.task.owner.tenant, self.task.owner.name, self.task.name, self.index)

    @property
    def attempt(self) -> AttemptId:
        return attempt_id(self.record.attempt)

    @property
    def placed(self) -> bool:
        """Charged to a node."""
        return self.bound or self.reserved

    @property
    def account(self) -> Account:
        """That it is charged to; a record without one is of the time when there was but one."""
        return BURST if self.record.account == BURST else HARD

    @property
    def charge(self) -> ByAccount:
        return charged_to(self.record.account, self.vector)

    @property
    def successor_account(self) -> Account:
        """That is asked to pay for what takes its place: burst no more, if the task is raised meanwhile."""
        return self.account if self.task.may_burst else HARD

    @property
    def held(self) -> "tuple[TaskEntry, Vector, bool, Account]":
        """What it counts as while it is placed: slots with the same are alike to all sums but those of their nodes."""
        return self.task, self.vector, self.reserved, self.account

    @property
    def is_job(self) -> bool:
        return self.task.owner.is_job

    @property
    def ended(self) -> bool:
        """It came to its end by itself, for good."""
        return self.record.state == DONE and not self.waits

    @property
    def ran(self) -> bool:
        """It ran, and waits to go on elsewhere or as another template: before what has not run. A job's try that failed
        is as any other."""
        if self.record.state != WAITING or not self.exit_reason:
            return False
        return not self.is_job or self.exit_reason in (STOPPED, NODE_LOST)

    @property
    def resumed(self) -> bool:
        """Its job was resumed since it was bound: what it failed with counts no more."""
        return self.record.generation < self.task.owner.resumed

    @property
    def waits(self) -> bool:
        """Whether it is to be bound when it is wanted: it waits, or it ended for another template, by our wish, while
        it was not wanted, or in vain before its job was resumed."""
        if self.record.state == DONE:
            reason = self.exit_reason
            if reason == COMPLETED:
                return self.outdated or not self.task.completes
            return self.outdated or reason in (STOPPED, NODE_LOST) or self.resumed
        return self.record.state == WAITING


@dataclass(slots=True, eq=False)
class TaskEntry:
    """One task of a workload; `spec` is None when the share names it no more."""

    owner: "WorkloadEntry"
    name: str
    slots: bytes  # what the keys of its slots begin with
    spec: objects_pb2.Task | None = None
    request: Request = NOTHING_ASKED
    decreasing: bool = False  # its strategy places the larger first
    template_generation: int = 0
    work_generation: int = 0  # that last changed what its replicas do; never above the template's
    # of the spec, see `admit`
    replicas: int = 0
    restarts: "objects_pb2.RestartMode.ValueType" = NEVER
    completes: bool = True  # an end with 0 is the end of a wanted replica
    retries: objects_pb2.RetryPolicy | None = None
    parallel: int | None = None  # so many run at once at most; None = all
    speculation: objects_pb2.Speculation | None = None
    asked_copies: set[int] = field(default_factory=set)  # second copies that this leader asked for, by index
    took_ms: deque[int] = field(default_factory=lambda: deque(maxlen=100))  # the last replicas that completed
    stopped: bool = False  # of a job: nothing of it starts any more, and only what has ended is kept
    rolling: bool = False  # outdated replicas wait for their turn to stop
    gang: bool = False  # of the spec: its replicas are members of the workload's gang
    may_burst: bool = False  # the burst account may pay for it
    entries: dict[int, SlotEntry] = field(default_factory=dict)
    wanted: Collection[int] = range(0)  # the indices of the replicas that this region runs
    surges: dict[int, int] = field(default_factory=dict)  # wanted beyond the count → whose place they take
    in_flight: set[int] = field(default_factory=set)  # indices a BIND is under way for
    copies: dict[int, int] = field(default_factory=dict)  # bound, or about to be, by row of the node table
    counted: tuple[Counted, ...] = ()  # where they count beside; kept by neighbours.py, as is
    around: Around = ALONE  # what surrounds them
    cls: SchedulingClass | None = None
    tally: Tally = field(default_factory=Tally)
    ailing: dict[int, SlotEntry] = field(default_factory=dict)  # placed, and not well: see ailing.py

    def __post_init__(self) -> None:
        self.around = Around(self.copies)

    def admit(self, spec: objects_pb2.Task | None, template: objects_pb2.TaskTemplate) -> None:
        """As the share now says, which was admitted before."""
        self.spec, self.template_generation = spec, template.generation
        self.work_generation = template.work_generation or template.generation
        self.replicas, self.restarts = (spec.replicas, spec.restart.mode) if spec else (0, NEVER)
        self.completes = self.owner.is_job or self.restarts in (objects_pb2.RESTART_MODE_ON_FAILURE, NEVER)
        self.gang = bool(spec and spec.gang)
        self.may_burst = may_burst(self.owner.share.spec.priority, self.gang)
        if spec:
            self._choose_by(spec, self.owner.share)
        self.speculation = spec.speculation if spec and spec.HasField("speculation") else None
        self.retries = spec.retries if spec and spec.HasField("retries") else None
        share = self.owner.share
        self.parallel = next((each.replicas for each in share.parallel if each.task == self.name), None)
        self.stopped = self.name in share.stopped

    def _choose_by(self, spec: objects_pb2.Task, share: objects_pb2.Share) -> None:
        """The strategy, as the policy of the share has it."""
        name = spec.strategy or share.default_strategy or strategies.DEFAULT
        strategy = next((one for one in share.strategies if one.name == name), objects_pb2.Strategy(name=name))
        self.request = request_of(spec, strategy)
        self.decreasing = strategy.decreasing or name in strategies.DECREASING

    def outdates(self, record: objects_pb2.Slot) -> bool:
        """Whether a slot was made from another template, or for a workload of the same name that was deleted. What has
        ended stays so while the work is the same."""
        generation = self.work_generation if record.state == DONE else self.template_generation
        return record.generation < generation or record.uid != self.owner.uid

    def redoes(self, record: objects_pb2.Slot) -> bool:
        """Whether what it did is to be done again, were it to end well."""
        return record.generation < self.work_generation or record.uid != self.owner.uid

    def ran(self, index: int) -> bool:
        """Whether it waits to go on where it left off, or to take the place of what runs."""
        entry = self.entries.get(index)
        return index in self.surges or (entry is not None and entry.ran)

    @property
    def at_once(self) -> int:
        """How many run, or are about to."""
        return sum(self.copies.values())

    @property
    def surplus(self) -> int:
        """How many run, or are about to, beyond this region's part: by an earlier share."""
        return 0 if self.parallel is None else max(0, self.at_once - self.parallel)

    def slot_key(self, index: int) -> bytes:
        return b"%b%d" % (self.slots, index)

    def move_copies(self, row: int, by: int) -> None:
        count = self.copies.get(row, 0) + by
        if count:
            self.copies[row] = count
        else:
            del self.copies[row]
        for one in self.counted:
            one.move(row, by)


@dataclass(slots=True, eq=False)
class GangEntry:
    """The gang of a workload: the replicas of its tasks that say `gang`. What it does next: gangs.py."""

    owner: "WorkloadEntry"
    key: bytes
    record: objects_pb2.Gang | None = None  # while it is committed
    mod_revision: int = 0
    cls: SchedulingClass | None = None  # as which it stands in the queue: one item
    due: bool = False  # its turn has come
    planned: "list[Binding]" = field(default_factory=list)  # placed and charged, to be reserved
    decisions: list[objects_pb2.Decision] = field(default_factory=list)  # about what is planned or reserved
    flying: int = 0  # transactions on it that are under way
    giving_up: str = ""  # why its reservations are swept
    given_up: int = 0  # in a row

    @property
    def tasks(self) -> "list[TaskEntry]":
        return [task for _, task in sorted(self.owner.tasks.items()) if task.gang]

    @property
    def reserved(self) -> "list[SlotEntry]":
        return [e for e in self.owner.entries() if e.reserved and e.record.reservation.gang]

    @property
    def deadline_ms(self) -> int:
        """Of its reservations; 0: it has none."""
        return min((e.record.reservation.deadline_ms for e in self.reserved), default=0)

    @property
    def committed(self) -> bool:
        """Its members count as bound."""
        return self.record is not None and self.record.uid == self.owner.uid


@dataclass(slots=True, eq=False)
class WorkloadEntry:
    """One share as admitted. `next_share` is newer and not committed yet."""

    tenant: str
    name: str
    key: bytes
    share: objects_pb2.Share = field(default_factory=objects_pb2.Share)
    mod_revision: int = 0
    tasks: dict[str, TaskEntry] = field(default_factory=dict)
    gang: GangEntry | None = None
    next_share: objects_pb2.Share | None = None
    busy: bool = False
    doubted: bool = False  # its slots' range was not as known: they are compared one by one
    report: bytes = b""  # as last sent up
    asked_ms: int = -1  # nothing is told of it before a transaction that was sent later has applied
    ailments: set[str] = field(default_factory=set)  # codes that were announced since all of it was well
    # of the share, see `admit`
    uid: str = ""
    generation: int = 0
    is_job: bool = False
    resumed: int = 0  # the generation at which its job was last resumed
    place: tuple[str, str] = ("", "")  # among the workloads

    def __post_init__(self) -> None:
        self.place = (self.tenant, self.name)
        self.admit(self.share, self.mod_revision)

    def admit(self, share: objects_pb2.Share, mod_revision: int) -> None:
        """The share as now stored; what of it is asked for all the time is kept apart."""
        self.share, self.mod_revision = share, mod_revision
        self.uid, self.generation = share.metadata.uid, share.metadata.generation
        self.is_job = share.spec.type == objects_pb2.WORKLOAD_TYPE_JOB
        self.resumed = share.spec.resumed

    def entries(self) -> Iterator[SlotEntry]:
        for task in self.tasks.values():
            yield from task.entries.values()


@dataclass(slots=True, eq=False)
class ZombieEntry:
    key: bytes
    record: objects_pb2.Zombie
    mod_revision: int
    busy: bool = False


@dataclass(slots=True, eq=False)
class NodeEntry:
    """One node. Times and liveness are columns of `Liveness`; capacity and use of the node table, at `row`."""

    name: str
    key: bytes
    row: int
    record: objects_pb2.Node = field(default_factory=objects_pb2.Node)
    mod_revision: int = 0
    session: int = 0
    welcomed: bool = False  # this session has had its Welcome and Sync
    hello: NodeHello | None = None  # of a session that waits for its Welcome
    next_record: objects_pb2.Node | None = None  # to be written
    busy: bool = False
    drained: bool = False  # and said so
    failed_starts: list[str] = field(default_factory=list)  # in a row, by workload
    rests: int = 0  # in a row
    misses: int = 0  # plans refused because of its record, since it last rested
    slots: dict[bytes, SlotEntry] = field(default_factory=dict)  # bound to it
    burst: dict[bytes, SlotEntry] = field(default_factory=dict)  # of these, charged to burst accounts
    reserved: dict[bytes, SlotEntry] = field(default_factory=dict)
    zombies: dict[bytes, ZombieEntry] = field(default_factory=dict)


def marks_of(entry: SlotEntry) -> int:
    """What one slot adds to its task's tally."""
    status, marks, bound = entry.status, 0, entry.bound
    if entry.index >= SECOND_COPY and (bound or entry.exit_reason != COMPLETED):
        return 0  # it counts only when it is the one that completes
    if bound and status and not entry.closing and status.phase == agent_pb2.ATTEMPT_PHASE_RUNNING:
        marks = tally.UP if status.healthy or entry.is_job else 0
    if not entry.wanted or entry.outdated or entry.index in entry.task.surges:
        return marks
    if bound:
        marks |= tally.BOUND
        if status:
            marks |= tally.STARTED if status.started_ms > 0 else 0
            marks |= tally.READY if status.ready else 0
            marks |= tally.SERVING if status.serving else 0
    elif entry.record.state == DONE and not entry.waits:
        marks |= tally.SUCCEEDED if entry.exit_reason == COMPLETED else tally.FAILED
    return marks
