"""A core with a disk that answers at once, and short words for what a region says."""

from dataclasses import dataclass, field
from typing import TypeVar

from agent.config import Timing
from agent.core import commands, events
from agent.core.fencing import Saved
from agent.core.lease import LeaseTerms
from agent.core.machine import Machine
from agent.core.runs import Exit, Found, Rank, RunName
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.slots import AttemptId, SlotName

SLOT = SlotName("acme", "web", "main", 0)
OTHER = SlotName("acme", "web", "main", 1)
Kind = TypeVar("Kind")

ACCEPTED, STARTING = agent_pb2.ATTEMPT_PHASE_ACCEPTED, agent_pb2.ATTEMPT_PHASE_STARTING
RUNNING, BACKOFF = agent_pb2.ATTEMPT_PHASE_RUNNING, agent_pb2.ATTEMPT_PHASE_BACKOFF
STOPPING, CLOSED = agent_pb2.ATTEMPT_PHASE_STOPPING, agent_pb2.ATTEMPT_PHASE_CLOSED
KEEP, BOUNDED = objects_pb2.RUN_CLASS_KEEP, objects_pb2.RUN_CLASS_BOUNDED
EXCLUSIVE = objects_pb2.RUN_CLASS_EXCLUSIVE


def run(n: int = 1, slot: SlotName = SLOT, life: int = 1) -> RunName:
    return RunName(slot, Rank(life, AttemptId(1, n)))


def token(n: int, term: int = 1, life: int = 1, epoch: int = 1) -> objects_pb2.Token:
    return objects_pb2.Token(store_life=life, epoch=epoch, term=term, attempt=objects_pb2.Attempt(term=1, n=n))


def assign(
    n: int = 1,
    slot: SlotName = SLOT,
    *,
    term: int = 1,
    life: int = 1,
    run_class: objects_pb2.RunClass.ValueType = KEEP,
    job: bool = False,
    task: objects_pb2.Task | None = None,
) -> agent_pb2.Assign:
    return agent_pb2.Assign(
        token=token(n, term, life),
        slot=slot.to_proto(),
        generation=n,
        task=task or objects_pb2.Task(command=["x"]),
        run_class=run_class,
        bounded_s=2,
        type=objects_pb2.WORKLOAD_TYPE_JOB if job else objects_pb2.WORKLOAD_TYPE_SERVICE,
    )


@dataclass
class World:
    """`post` returns the commands; checkpoints are answered at once while `disk` is true."""

    disk: bool = True
    now_ms: int = 100_000
    machine: Machine = field(default_factory=lambda: Machine(agent_pb2.Hello(node="n1"), Timing()))
    saved: Saved = field(default_factory=Saved)
    writing: commands.WriteCheckpoint | None = None
    session: int = 0

    def boot(
        self, saved: Saved | None = None, found: tuple[Found, ...] = (), terms: LeaseTerms | None = None
    ) -> "World":
        self.post(events.Booted(saved, 7, found, terms))
        return self

    def post(self, event: events.Event) -> list[commands.Command]:
        done = self.machine.handle(event, self.now_ms)
        for command in list(done):
            if isinstance(command, commands.WriteCheckpoint):
                self.writing = command
        if self.disk and self.writing:
            done += self.written()
        return done

    def written(self) -> list[commands.Command]:
        assert self.writing is not None
        write, self.writing = self.writing, None
        self.saved = write.saved
        return self.post(events.CheckpointWritten(write.version))

    def connect(self, *, term: int = 1, life: int = 1) -> list[commands.Command]:
        """A new stream in place of the last; its candidate leads."""
        done = self.open()
        welcome = agent_pb2.Welcome(store_life=life, epoch=1, term=term, heartbeat_ms=1000, fence_after_ms=4000)
        return done + self.say(welcome=welcome)

    def open(self, *, beside: bool = False) -> list[commands.Command]:
        """A new stream, in place of the last or beside it."""
        done = [] if beside else self.post(events.Disconnected(self.session))
        self.session += 1
        return done + self.post(events.Connected(self.session))

    def sync(self, *assigns: agent_pb2.Assign, term: int = 1) -> list[commands.Command]:
        return self.say(sync=agent_pb2.Sync(term=term, assignments=assigns))

    def say(self, **body: object) -> list[commands.Command]:
        return self.post(events.RegionSaid(self.session, agent_pb2.RegionMessage(**body)))  # type: ignore[arg-type]

    def stop(self, n: int, slot: SlotName = SLOT) -> list[commands.Command]:
        return self.say(stop=agent_pb2.Stop(token=token(n), slot=slot.to_proto(), grace_ms=500, reason="scaled down"))

    def running(self, *assigns: agent_pb2.Assign) -> "World":
        """Connected, synced, and all of these started."""
        done = self.connect() + self.sync(*assigns)
        done += self.acknowledge(done)
        for command in of(done, commands.StartReplica):
            self.post(events.DriverStarted(command.run))
        self.report()
        return self

    def acknowledge(self, done: list[commands.Command]) -> list[commands.Command]:
        beats = [c.message.heartbeat.seq for c in of(done, commands.SendUp) if c.message.HasField("heartbeat")]
        return self.say(ack=agent_pb2.HeartbeatAck(seq=beats[-1], term=1)) if beats else []

    def exited(self, code: int, which: RunName | None = None) -> list[commands.Command]:
        reason = "Completed" if code == 0 else "Failed"
        return self.post(events.DriverExited(which or run(), Exit(code, reason, "", self.now_ms)))

    def stopped(self, which: RunName | None = None) -> list[commands.Command]:
        return self.post(events.DriverStopped(which or run(), Exit(143, "Failed", "", self.now_ms)))

    def wait(self, ms: int) -> list[commands.Command]:
        """Time passes; the core is woken at each of its deadlines."""
        end_ms, done = self.now_ms + ms, []
        while (due := self.machine.next_deadline()) is not None and due <= end_ms:
            self.now_ms = max(due, self.now_ms)
            done += self.post(events.Woke())
        self.now_ms = end_ms
        return done

    def wait_for_report(self, ms: int) -> list[agent_pb2.AttemptStatus]:
        """What the region is told meanwhile."""
        return statuses(self.wait(ms))

    def report(self) -> list[agent_pb2.AttemptStatus]:
        """What the region is told within the batching time."""
        return self.wait_for_report(Timing().report_ms)


def of(done: list[commands.Command], kind: type[Kind]) -> list[Kind]:
    return [command for command in done if isinstance(command, kind)]


def statuses(done: list[commands.Command]) -> list[agent_pb2.AttemptStatus]:
    sent = [command.message for command in of(done, commands.SendUp)]
    return [status for message in sent for status in [*message.hello.inventory, *message.status.attempts]]


def starts(done: list[commands.Command]) -> list[int]:
    return [command.run.rank.attempt.n for command in of(done, commands.StartReplica)]


def phases(found: list[agent_pb2.AttemptStatus]) -> dict[int, int]:
    return {status.attempt.n: status.phase for status in found}
