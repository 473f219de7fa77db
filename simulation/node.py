"""One node in the simulator: a disk, the runs on it, and an agent process with the production core.

Decides nothing about replicas. Runs outlive their agent, as real processes do; a reboot ends them. The disk holds the
last checkpoint that was written whole, and the guard's last word.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from agent.config import Timing
from agent.core import commands, events
from agent.core.fencing import Saved
from agent.core.lease import LeaseTerms
from agent.core.machine import Machine
from agent.core.runs import Exit, Found, RunName
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.slots import SlotName
from simulation import jobs, rules
from simulation.network import End, Stream

if TYPE_CHECKING:
    from simulation.world import World

REDIAL_MS = 400
TIMING = Timing()
FINISHED_RUNS = 20  # kept on the disk
CERTIFICATE_MS = 86_400_000
GUARD_PERIOD_MS = 200  # how late the guard process looks, at most


@dataclass(slots=True)
class Run:
    """A process group: alive until `exit` is set. `known`: this agent has heard that it started."""

    started_ms: int
    args: tuple[str, ...] = ()  # which template it is
    exit: Exit | None = None
    stopping: bool = False
    known: bool = False


class Node(End):
    def __init__(self, world: "World", region: str, number: int, capacity: objects_pb2.Resources, rate: float) -> None:
        super().__init__(world.kernel, f"{region}-n{number}", rate)
        self.world = world
        self.region = region
        self.capacity = capacity
        self.labels = rules.labels(world)  # as it claims
        self.gpus = rules.devices(world)
        self.capacity.gpu_milli = rules.WHOLE_MILLI * len(self.gpus)
        self.runs: dict[RunName, Run] = {}
        self.alive_in: dict[SlotName, list[RunName]] = {}
        self.isolated = False
        self.scrapped = False
        self.certificate_expires_ms = 0  # of the first one: before those of any removal
        self.machine: Machine | None = None
        self.session = 0
        self._incarnation = 1
        self._disk: Saved | None = None
        self._writing: Saved | None = None
        self._guard_terms: LeaseTerms | None = None
        self._guarded: dict[RunName, int] = {}
        self._guard_wakes: set[int] = set()
        self._wake_scheduled_ms: int | None = None
        self._wake_name = b"wake " + self.label

    # ---- life

    def start(self) -> None:
        super().start()
        self.session = 0
        self._wake_scheduled_ms = None
        hello = agent_pb2.Hello(node=self.name, capacity=self.capacity, labels=self.labels, gpus=self.gpus)
        self.machine = Machine(hello, TIMING)
        found = tuple(Found(name, run.exit, run.started_ms) for name, run in self.runs.items())
        for run in self.runs.values():
            run.known = True
        self._post(events.Booted(self._disk, self._incarnation, found, self._guard_terms))
        self._dial()

    def kill(self) -> None:
        """A checkpoint under way is whole on the disk, or not there at all."""
        super().kill()
        if self._writing and self.kernel.chance(0.5):
            self._disk = self._writing
        self._writing = None
        self.machine = None
        self.world.network.cut(self.session)

    def reboot(self) -> None:
        """Everything on it ends at once."""
        self.kill()
        self._incarnation += 1
        self.runs.clear()
        self.alive_in.clear()
        self._guarded.clear()
        self._guard_wakes.clear()
        self._guard_terms = None

    def scrap(self) -> None:
        """The machine is gone for good, with its disk."""
        self.reboot()
        self.scrapped = True
        self._disk = None

    def join(self) -> None:
        """A machine of that name joins with a new certificate."""
        self.scrapped = False
        self.certificate_expires_ms = self.kernel.now_ms + 2 * CERTIFICATE_MS
        self.start()

    # ---- its session

    def _dial(self) -> None:
        leaders = self.world.leading(self.world.candidates_of[self.region])  # one may be deposed and not know it yet
        session = 0 if self.isolated else self.world.network.dial(self, leaders)
        if not session:
            self.after(self.kernel.between(REDIAL_MS // 2, REDIAL_MS), b"dial " + self.label, self._dial)
            return
        self.session = session
        self._post(events.Connected(session))

    def from_above(self, stream: Stream, data: bytes) -> None:
        if stream.number == self.session:
            self._post(events.RegionSaid(self.session, agent_pb2.RegionMessage.FromString(data)))

    def lost_above(self, stream: Stream) -> None:
        if stream.number != self.session:
            return
        self.session = 0
        self._post(events.Disconnected(stream.number))
        self.after(self.kernel.between(REDIAL_MS // 2, REDIAL_MS), b"dial " + self.label, self._dial)

    # ---- the core

    def _post(self, event: events.Event) -> None:
        assert self.machine is not None
        now_ms = self.clock_ms()
        for command in self.machine.handle(event, now_ms):
            self._execute(command)
        deadline = self.machine.next_deadline()
        if deadline is None or (self._wake_scheduled_ms is not None and self._wake_scheduled_ms <= deadline):
            return
        self._wake_scheduled_ms = deadline
        self.after(self.due_in(deadline, now_ms), self._wake_name, lambda: self._wake(deadline))

    def _wake(self, scheduled_ms: int) -> None:
        if self._wake_scheduled_ms == scheduled_ms:
            self._wake_scheduled_ms = None
            self._post(events.Woke())

    def _execute(self, command: commands.Command) -> None:
        match command:
            case commands.SendUp(session=session, message=message):
                self.world.network.up(session, message)
            case commands.WriteCheckpoint(version=version, saved=saved):
                self._writing = saved
                slow = self.kernel.chance(self.world.faults.slow_disk)
                self.after(self.kernel.between(1, 1000 if slow else 5), b"checkpoint", lambda: self._written(version))
            case commands.StartReplica(run=run, assign=assign):
                self._start_run(run, assign)
            case commands.StopReplica(run=run, grace_ms=grace_ms):
                self._stop_run(run, grace_ms)
            case commands.ProbeReplica(probe_id=probe_id, run=run):
                answer = events.ProbeAnswered(probe_id, run in self.runs and self.runs[run].exit is None)
                self.after(self.kernel.between(1, 20), b"probe", lambda: self._post(answer))
            case commands.Guard():
                self._arm_guard(command)
            case commands.Reconnect(session=session):
                self.world.network.cut(session)

    def _written(self, version: int) -> None:
        self._disk, self._writing = self._writing, None
        self._post(events.CheckpointWritten(version))

    # ---- the guard, a process of its own: it acts though the agent is paused or dead

    def _arm_guard(self, guard: commands.Guard) -> None:
        self._guard_terms = guard.terms
        self._guarded = {deadline.run: deadline.deadline_ms for deadline in guard.deadlines}
        boot = self._incarnation
        for deadline in sorted({deadline.deadline_ms for deadline in guard.deadlines} - self._guard_wakes):
            self._guard_wakes.add(deadline)
            delay_ms = self.due_in(deadline, self.clock_ms()) + self.kernel.between(0, GUARD_PERIOD_MS)
            self.kernel.after(delay_ms, b"guard", partial(self._guard_acts, boot, deadline))

    def _guard_acts(self, boot: int, wake_ms: int) -> None:
        if boot != self._incarnation:
            return
        self._guard_wakes.discard(wake_ms)
        for run, deadline_ms in self._guarded.items():
            if self.clock_ms() >= deadline_ms:
                self._end_run(boot, run, stopped=False)

    # ---- runs

    def _start_run(self, name: RunName, assign: agent_pb2.Assign) -> None:
        """The run exists from now on; the news of it needs some time, and the agent."""
        if self.kernel.chance(self.world.faults.start_failure):
            failed = events.DriverStartFailed(name, "no such program")
            self.after(self.kernel.between(5, 50), b"start failed", lambda: self._post(failed))
            return
        self._forget_finished()
        self.runs[name] = Run(self.clock_ms(), tuple(assign.task.args))
        self.world.checkers.started(self, name)
        self.alive_in.setdefault(name.slot, []).append(name)
        self.after(self.kernel.between(5, 50), b"started", lambda: self._tell_start(name))
        if assign.type == objects_pb2.WORKLOAD_TYPE_JOB:
            boot = self._incarnation
            self.kernel.after(self.world.run_ms(assign), b"job ends", lambda: self._job_ends(boot, name))

    def _tell_start(self, name: RunName) -> None:
        run = self.runs[name]
        run.known = True
        self._post(events.DriverStarted(name))
        if run.exit is not None:
            self._post(events.DriverExited(name, run.exit))

    def _forget_finished(self) -> None:
        finished = [name for name, run in self.runs.items() if run.exit is not None and run.known]
        for name in finished[:-FINISHED_RUNS]:
            del self.runs[name]

    def _stop_run(self, name: RunName, grace_ms: int) -> None:
        run = self.runs.get(name)
        if run is None or run.exit is not None or run.stopping:
            return
        run.stopping = True
        boot = self._incarnation
        # The driver's kill goes on even if the agent dies meanwhile; only the news of it needs the agent.
        self.kernel.after(self.kernel.between(1, max(1, grace_ms)), b"stopped", lambda: self._end_run(boot, name, True))

    def _job_ends(self, boot: int, name: RunName) -> None:
        code = 0 if self.world.healed else jobs.exit_code(self.kernel.random)
        self._end_run(boot, name, stopped=False, code=code)

    def replica_exits(self, name: RunName) -> None:
        self._end_run(self._incarnation, name, stopped=False)

    def _end_run(self, boot: int, name: RunName, stopped: bool, code: int = 1) -> None:
        run = self.runs.get(name)
        if boot != self._incarnation or run is None or run.exit is not None:
            return
        by_itself = Exit(code, "Failed" if code else "Completed", at_ms=self.clock_ms())
        run.exit = Exit(143, "Stopped") if stopped else by_itself
        self.alive_in[name.slot].remove(name)
        if not self.alive_in[name.slot]:
            del self.alive_in[name.slot]
        if run.known:
            event = events.DriverStopped(name, run.exit) if stopped else events.DriverExited(name, run.exit)
            self.does(self.life, lambda: self._post(event))

    def has_on_disk(self, name: RunName) -> bool:
        """Whether the agent would still know this attempt after a crash now."""
        records = self._disk.records if self._disk else ()
        return any(record.slot == name.slot and record.highest == name.rank for record in records)

    def alive_runs(self) -> list[RunName]:
        return [name for _, names in sorted(self.alive_in.items()) for name in names]
