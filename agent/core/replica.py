"""One attempt on this node: its phase, its restarts, and what follows the end of a run.

Phases: ACCEPTED → STARTING → RUNNING → (BACKOFF → STARTING …) and, once closing, STOPPING until nothing of it is alive.
A job that ends with 0 is completed. Else the restart policy decides: again here after a pause that doubles, or closed
with the exit when the policy or `local_limit` says no.
"""

from dataclasses import dataclass

from agent.config import Timing
from agent.core.health import Health
from agent.core.runs import Exit, RunName
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.pauses import doubled_ms

LOCAL_LIMIT = 3
BACKOFF_MS = 1_000
BACKOFF_MAX_MS = 60_000
MIN_READY_MS = 1_000

ACCEPTED = agent_pb2.ATTEMPT_PHASE_ACCEPTED
STARTING = agent_pb2.ATTEMPT_PHASE_STARTING
RUNNING = agent_pb2.ATTEMPT_PHASE_RUNNING
BACKOFF = agent_pb2.ATTEMPT_PHASE_BACKOFF
STOPPING = agent_pb2.ATTEMPT_PHASE_STOPPING
CLOSED = agent_pb2.ATTEMPT_PHASE_CLOSED


@dataclass(slots=True)
class Replica:
    """`assign` is None for a run found without a record: nobody has said yet what it is."""

    run: RunName
    assign: agent_pb2.Assign | None
    phase: agent_pb2.AttemptPhase.ValueType = ACCEPTED
    closing: str = ""  # why it must never run again; empty = it may
    grace_ms: int = 0
    stopping: bool = False  # a StopReplica is under way
    exit: Exit | None = None
    restarts: int = 0
    streak: int = 0  # restarts since it last ran stably
    started_ms: int = 0
    ready_ms: int = 0
    ready_since_ms: int = 0  # without a break; 0 = it is not ready
    healthy: bool = False  # ready for its minimum time
    next_start_ms: int = 0
    health: Health | None = None
    delayed: str = ""  # what the answer to its start waits for
    unhealthy: str = ""  # why its liveness ended the run

    @property
    def alive(self) -> bool:
        """Something of it may exist on the node."""
        return self.phase in (STARTING, RUNNING, STOPPING)

    def started(self, now_ms: int) -> None:
        self.phase = RUNNING
        self.started_ms = now_ms
        self.unhealthy = ""
        self.watch(now_ms)

    def watch(self, now_ms: int) -> None:
        """Begins to probe, as soon as it is known what to probe."""
        if self.assign is not None:
            self.health = Health(self.assign.task, now_ms)
            self.note_readiness(now_ms)

    def note_readiness(self, now_ms: int) -> None:
        """To be called when a probe has answered, and at `next_deadline`."""
        if self.health is None or not self.health.ready:
            self.ready_since_ms, self.healthy = 0, False
            return
        self.ready_ms = self.ready_ms or now_ms
        since_ms = now_ms if self.health.probes_readiness else self.started_ms
        self.ready_since_ms = self.ready_since_ms or since_ms
        self.healthy = now_ms >= self._healthy_at_ms()

    def _healthy_at_ms(self) -> int:
        least_ms = self.assign.task.min_ready_ms if self.assign else 0
        return self.ready_since_ms + (least_ms or MIN_READY_MS)

    def ended(self, exit: Exit, now_ms: int, timing: Timing) -> Exit | None:
        """The run is over. Its last Exit when it must be closed; None = it starts again at `next_start_ms`."""
        self.exit = exit
        self.health = None
        self.stopping = False
        self.ready_ms = self.ready_since_ms = 0
        self.healthy = False
        if self.closing:
            return Exit(exit.code, exit.reason if exit.reason == "Completed" else "Stopped", self.closing, now_ms)
        if now_ms - self.started_ms >= timing.stable_ms and self.phase == RUNNING:
            self.streak = 0
        if self.assign is None or not self._again(exit):
            return exit
        policy = self.assign.task.restart
        self.phase = BACKOFF
        self.streak += 1
        self.restarts += 1
        first_ms, longest_ms = policy.backoff_ms or BACKOFF_MS, policy.backoff_max_ms or BACKOFF_MAX_MS
        self.next_start_ms = now_ms + doubled_ms(first_ms, longest_ms, self.streak, f"{self.run} {self.restarts}")
        return None

    def _again(self, exit: Exit) -> bool:
        assert self.assign is not None
        policy = self.assign.task.restart
        job = self.assign.type == objects_pb2.WORKLOAD_TYPE_JOB
        if exit.reason == "Completed" and (job or policy.mode == objects_pb2.RESTART_MODE_ON_FAILURE):
            return False
        if policy.mode == objects_pb2.RESTART_MODE_NEVER:
            return False
        return self.streak < (policy.local_limit or LOCAL_LIMIT)

    def status(self) -> agent_pb2.AttemptStatus:
        health = self.health if self.phase == RUNNING else None
        delayed = self.delayed if self.phase == STARTING else ""
        return agent_pb2.AttemptStatus(
            slot=self.run.slot.to_proto(),
            attempt=self.run.rank.attempt.to_proto(),
            generation=self.assign.generation if self.assign else 0,
            phase=STOPPING if self.closing and self.alive else self.phase,
            ready=bool(health and health.ready),
            serving=bool(health and health.serving and self._stands(health)),
            healthy=self.healthy,
            restarts=self.restarts,
            exit=self.exit.to_proto() if self.exit else None,
            started_ms=self.started_ms,
            ready_ms=self.ready_ms,
            message=self.closing or delayed or self.unhealthy or (health.message if health else ""),
        )

    def _stands(self, health: Health) -> bool:
        """A service that nothing asks has to run for its minimum time: its command may end at once."""
        job = self.assign is not None and self.assign.type == objects_pb2.WORKLOAD_TYPE_JOB
        return job or self.healthy or not health.unasked

    def next_deadline(self) -> int | None:
        if self.phase == BACKOFF:
            return self.next_start_ms
        if self.phase == RUNNING and self.health is not None and not self.stopping:
            ripe_ms = self._healthy_at_ms() if self.ready_since_ms and not self.healthy else None
            return min((d for d in (self.health.next_deadline(), ripe_ms) if d is not None), default=None)
        return None
