"""What runs in each slot of this node, and the next step towards what is wanted.

Decides starts, stops, restarts and closings from three inputs: the ledger (what may never run), the lease (how long
fenceable work may run) and what drivers and probes say.

Invariants:
- at most one attempt of a slot is alive: a newer one waits until every older one is confirmed dead;
- a start waits until its record is durable, until one Sync was obeyed since the agent's own start, and, for fenceable
  work, for a lease that holds;
- an attempt is certified closed only when nothing of it is alive.

Every change marks its slot as touched; `settle` then takes the steps that have become possible, slot by slot.
"""

from agent.config import Timing
from agent.core.commands import Command, Guard, GuardDeadline, ProbeReplica, StartReplica, StopReplica
from agent.core.fencing import Certificate, Ledger
from agent.core.health import Health, Kind
from agent.core.lease import Lease
from agent.core.replica import ACCEPTED, BACKOFF, RUNNING, STARTING, Replica
from agent.core.runs import LOWEST, Exit, Found, Rank, RunName, rank_of
from atoll.api.v1 import agent_pb2
from atoll.model import assigns
from atoll.model.slots import SlotName, fencing_token, slot_name


class Slots:
    def __init__(self, ledger: Ledger, lease: Lease, timing: Timing) -> None:
        self._ledger = ledger
        self._lease = lease
        self._timing = timing
        self._replicas: dict[SlotName, dict[Rank, Replica]] = {}
        self._synced = False
        self._touched: dict[SlotName, None] = {}
        self._deadlines: dict[SlotName, int] = {}
        self._probes: dict[int, tuple[Replica, Health, Kind]] = {}
        self._probe_id = 0
        self._guarded = Guard(lease.terms, ())
        self._lease_has_moved = False
        self.asked_again: list[tuple[SlotName, Rank]] = []  # certificates to repeat; drained by the machine

    # ------------------------------------------------------------------ what was found at the start

    def adopt(self, found: tuple[Found, ...], now_ms: int) -> None:
        """Takes over the runs of an earlier agent process; what is closed or superseded among them is stopped."""
        for item in sorted(found, key=lambda f: f.run):
            slot, rank = item.run.slot, item.run.rank
            record = self._ledger.record(slot)
            refused = rank <= record.closed or rank < record.highest
            if refused and item.exit is not None:
                continue  # kept for its output only
            assign = record.assign if rank == record.highest else None
            replica = Replica(item.run, assign, phase=RUNNING, started_ms=item.started_ms)
            replica.closing = "closed before the agent started" if refused else ""
            self._runs(slot)[rank] = replica
            replica.watch(now_ms)
            if item.exit is not None:
                self.ended(item.run, item.exit, now_ms)
        for slot in self._ledger.slots():
            record = self._ledger.record(slot)
            if record.assign is not None and record.highest not in self._runs(slot):
                self._runs(slot)[record.highest] = Replica(RunName(slot, record.highest), record.assign)
            self.touch(slot)

    # ------------------------------------------------------------------ what the region says

    def assign(self, assign: agent_pb2.Assign, now_ms: int) -> None:
        for one in assigns.each(assign):
            self._assign(one, now_ms)

    def _assign(self, assign: agent_pb2.Assign, now_ms: int) -> None:
        """Of one replica."""
        token, slot = fencing_token(assign.token), slot_name(assign.slot)
        if not self._ledger.obeys_token(token):
            return
        rank, record, runs = rank_of(token), self._ledger.record(slot), self._runs(slot)
        self.touch(slot)
        if rank <= record.closed or rank < record.highest:
            self._certify_again(slot, rank, assign.generation, Exit(-1, "Unknown", "closed here before", now_ms))
            return
        if rank > record.highest:
            self._ledger.want(assign, slot, rank)
            older = max((r for r in runs if r < rank), default=LOWEST)
            self._close(slot, older, f"superseded by attempt {rank.attempt}")
        replica = runs.get(rank)
        if replica is None:
            runs[rank] = Replica(RunName(slot, rank), assign)
        elif replica.assign is None:
            replica.assign = assign
            replica.watch(now_ms)

    def stop(self, stop: agent_pb2.Stop, now_ms: int) -> None:
        """Closes this attempt and every older one, seen or not: the region gets a certificate in any case."""
        token, slot = fencing_token(stop.token), slot_name(stop.slot)
        if not self._ledger.obeys_token(token):
            return
        rank = rank_of(token)
        self._close(slot, rank, stop.reason or "stopped by the region", stop.grace_ms)
        self._certify_again(slot, rank, 0, Exit(-1, "Stopped", "never started here", now_ms))

    def settled(self, settled: agent_pb2.Settled) -> None:
        """The end of exactly these attempts is committed: their certificates have done their work."""
        for item in settled.attempts:
            token, slot = fencing_token(item.token), slot_name(item.slot)
            if self._ledger.obeys_token(token):
                self._ledger.acknowledge(slot, frozenset({rank_of(token)}))
                self.touch(slot)

    def sync(self, sync: agent_pb2.Sync, store_life: int, told: dict[SlotName, frozenset[Rank]], now_ms: int) -> None:
        """Makes the node what the region lists. `told`: the certificates it had before it made the list."""
        listed = {slot_name(a.slot): rank_of(fencing_token(a.token)) for a in sync.assignments}
        for stop in sync.stops:
            self.stop(stop, now_ms)
        for assign in sync.assignments:
            self.assign(assign, now_ms)
        for slot in sorted({*self._replicas, *told}):
            kept = listed.get(slot)
            for replica in list(self._runs(slot).values()):
                # A restored store may have forgotten work of its earlier life: that is reported, never stopped.
                if replica.run.rank != kept and replica.run.rank.store_life >= store_life:
                    self._close(slot, replica.run.rank, "not assigned to this node")
            self._ledger.acknowledge(slot, told.get(slot, frozenset()) - {kept})
            self.touch(slot)
        self._synced = True
        for slot in self._replicas:
            self.touch(slot)

    # ------------------------------------------------------------------ what drivers and probes say

    def delayed(self, run: RunName, reason: str) -> None:
        if replica := self._find(run):
            replica.delayed = reason
            self.touch(run.slot)

    def started(self, run: RunName, now_ms: int) -> None:
        if replica := self._find(run):
            replica.started(now_ms)
            self.touch(run.slot)

    def start_failed(self, run: RunName, reason: str, now_ms: int) -> None:
        self.ended(run, Exit(-1, "StartFailed", reason, now_ms), now_ms)

    def stopped(self, run: RunName, exit: Exit, now_ms: int) -> None:
        """It ended because it was asked to: an exit with 0 is manners then, and no completion."""
        reason = "Stopped" if exit.reason == "Completed" else exit.reason
        self.ended(run, Exit(exit.code, reason, exit.message, exit.at_ms), now_ms)

    def ended(self, run: RunName, exit: Exit, now_ms: int) -> None:
        """Nothing of the run is alive."""
        replica = self._find(run)
        if replica is None:
            return
        if replica.stopping and not replica.closing:
            exit = Exit(exit.code, "Failed", replica.unhealthy, now_ms)  # stopped by its liveness probe
        last = replica.ended(exit, now_ms, self._timing)
        if last is not None:
            self._forget(replica, last)
        self.touch(run.slot)

    def probed(self, probe_id: int, ok: bool | None, message: str, now_ms: int) -> None:
        replica, health, kind = self._probes.pop(probe_id, (None, None, None))
        if replica is None or health is None or kind is None or replica.health is not health:
            return
        failure = health.answered(kind, ok, message, now_ms)
        replica.note_readiness(now_ms)
        if failure:
            replica.unhealthy = failure
        self.touch(replica.run.slot)

    # ------------------------------------------------------------------ steps

    def touch(self, slot: SlotName) -> None:
        self._touched[slot] = None

    def wake(self, now_ms: int) -> None:
        for slot, deadline_ms in self._deadlines.items():
            if deadline_ms <= now_ms:
                self.touch(slot)

    def lease_moved(self) -> None:
        """Later deadlines for what is guarded, and a chance for what waits for a lease."""
        self._lease_has_moved = True
        for deadline in self._guarded.deadlines:
            self._set_deadline(deadline.run.slot)
        for slot, runs in self._replicas.items():
            if any(r.phase == ACCEPTED for r in runs.values()):
                self.touch(slot)

    def settle(self, now_ms: int) -> tuple[list[Command], list[SlotName]]:
        """The steps that have become possible, and the slots whose status may have changed."""
        if not self._touched and not self._lease_has_moved:
            return [], []
        commands: list[Command] = []
        touched = list(self._touched)
        self._touched.clear()
        for slot in touched:
            runs = self._runs(slot)
            for replica in list(runs.values()):
                commands += self._step(replica, now_ms)
            self._set_deadline(slot)
            if not runs:
                self._replicas.pop(slot, None)
        guard = self._guard(touched)
        return ([guard, *commands] if guard else commands), touched

    def next_deadline(self) -> int | None:
        return min(self._deadlines.values(), default=None)

    def replicas(self, slot: SlotName) -> list[Replica]:
        return list(self._replicas.get(slot, {}).values())

    def slots(self) -> list[SlotName]:
        return list(self._replicas)

    def _step(self, replica: Replica, now_ms: int) -> list[Command]:
        until_ms = self._lease.deadline_ms(replica.assign)
        late = until_ms is not None and now_ms >= until_ms
        if late and replica.alive and not replica.closing:
            reason = "fenced: no heartbeat was acknowledged in time"
            self._close(replica.run.slot, replica.run.rank, reason, self._timing.fence_grace_ms)
        if replica.phase == BACKOFF and now_ms >= replica.next_start_ms:
            replica.phase = ACCEPTED
        if replica.phase == ACCEPTED and not late and self._may_start(replica):
            replica.phase, replica.delayed = STARTING, ""
            assert replica.assign is not None
            return [StartReplica(replica.run, replica.assign)]
        if replica.phase != RUNNING or replica.stopping:
            return []
        if replica.closing or replica.unhealthy:
            replica.stopping = True
            return [StopReplica(replica.run, replica.grace_ms or self._grace_ms(replica))]
        return self._probe(replica, now_ms)

    def _may_start(self, replica: Replica) -> bool:
        slot = replica.run.slot
        alone = not any(r.alive for r in self._runs(slot).values())
        return self._synced and alone and self._ledger.is_durable(slot)

    def _probe(self, replica: Replica, now_ms: int) -> list[Command]:
        if replica.health is None:
            return []
        replica.note_readiness(now_ms)
        commands: list[Command] = []
        for kind, probe, timeout_ms in replica.health.due(now_ms):
            self._probe_id += 1
            self._probes[self._probe_id] = (replica, replica.health, kind)
            commands.append(ProbeReplica(self._probe_id, replica.run, probe, timeout_ms))
        return commands

    def _close(self, slot: SlotName, rank: Rank, reason: str, grace_ms: int = 0) -> None:
        """Attempts ≤ `rank` must never run again; each is certified as soon as nothing of it is alive."""
        self._ledger.close(slot, rank)
        self.touch(slot)
        for replica in [r for r in self._runs(slot).values() if r.run.rank <= rank and not r.closing]:
            replica.closing, replica.grace_ms = reason, grace_ms
            if not replica.alive:
                self._forget(replica, replica.exit or Exit(-1, "Stopped", reason))

    def _forget(self, replica: Replica, exit: Exit) -> None:
        slot, rank = replica.run.slot, replica.run.rank
        del self._replicas[slot][rank]
        self._certify(slot, rank, replica.assign.generation if replica.assign else 0, exit, replica.restarts)

    def _certify(self, slot: SlotName, rank: Rank, generation: int, exit: Exit, restarts: int = 0) -> None:
        self._ledger.certify(slot, Certificate(rank, generation, exit, restarts))
        self.touch(slot)

    def _certify_again(self, slot: SlotName, rank: Rank, generation: int, exit: Exit) -> None:
        """The region does not know that this attempt is closed. One still alive is certified when it has died."""
        if rank not in self._runs(slot):
            self._certify(slot, rank, generation, exit)
            self.asked_again.append((slot, rank))

    def _guard(self, touched: list[SlotName]) -> Guard | None:
        """A new truth for the guard process, when there is one."""
        guarded = self._guarded.deadlines
        fresh = dict.fromkeys((*touched, *(d.run.slot for d in guarded)) if self._lease_has_moved else touched)
        self._lease_has_moved = False
        deadlines = [d for d in guarded if d.run.slot not in fresh]
        for slot in fresh:
            for replica in self._replicas.get(slot, {}).values():
                until_ms = self._lease.deadline_ms(replica.assign) if replica.alive else None
                if until_ms is not None:
                    deadlines.append(GuardDeadline(replica.run, until_ms + self._timing.guard_margin_ms))
        if not deadlines and not guarded:
            return None
        guard = Guard(self._lease.terms, tuple(sorted(deadlines, key=lambda d: d.run)))
        if guard.deadlines == guarded:
            return None
        self._guarded = guard
        return guard

    def _set_deadline(self, slot: SlotName) -> None:
        deadlines = [self._deadline(replica) for replica in self._replicas.get(slot, {}).values()]
        self._deadlines.pop(slot, None)
        if known := [deadline for deadline in deadlines if deadline is not None]:
            self._deadlines[slot] = min(known)

    def _deadline(self, replica: Replica) -> int | None:
        own = replica.next_deadline()
        until_ms = self._lease.deadline_ms(replica.assign) if replica.alive and not replica.closing else None
        return min([d for d in (own, until_ms) if d is not None], default=None)

    def _grace_ms(self, replica: Replica) -> int:
        task_s = replica.assign.task.termination_grace_s if replica.assign else 0
        return task_s * 1000 or self._timing.grace_ms

    def _find(self, run: RunName) -> Replica | None:
        return self._replicas.get(run.slot, {}).get(run.rank)

    def _runs(self, slot: SlotName) -> dict[Rank, Replica]:
        return self._replicas.setdefault(slot, {})
