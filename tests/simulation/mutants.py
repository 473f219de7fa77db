"""The museum of seeded bugs: naive versions of the protocols, each as a small patch of a core or of the lane.

Each is a tempting shortcut. test_museum.py shows that the simulator notices every one of them, and by which rule.
`faults` only makes a bug meet its circumstances sooner.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pytest import MonkeyPatch

from agent.core.fencing import Ledger
from agent.core.lease import Lease
from agent.core.replica import Replica
from agent.core.runs import LOWEST, RunName, rank_of
from agent.core.slots import Slots
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.lane import Authority, Committed, Lane, Rejected, Settled, _Phase
from atoll.model.resources import Vector, total
from atoll.model.slots import fencing_token, slot_name
from atoll.store.store import Applied, Outcome, Refused, Txn, Unknown, mod_is
from regional.core import closing, ledger, liveness, machine, node_life, releasing, slices, takeover, transactions
from regional.core.commands import SendToNode
from regional.core.ledger import TenantAccount
from regional.core.state import State
from regional.core.transactions import Bind

Patch = Callable[[MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    name: str
    patch: Patch
    rules: tuple[str, ...]  # one of these is in the failure
    faults: Mapping[str, float] = field(default_factory=dict)


MUTANTS: list[Mutant] = []


def mutant(*rules: str, **faults: float) -> Callable[[Patch], Patch]:
    def register(patch: Patch) -> Patch:
        MUTANTS.append(Mutant(patch.__name__, patch, rules, faults))
        return patch

    return register


# ---- the lane


def _forget_the_lane(self: Lane, outcome: Refused) -> Rejected:
    """Goes on from whatever the lane shows, as if it had been refused."""
    read = dict(zip((op.key for op in self._txn.failure), outcome.reads, strict=True))  # type: ignore[union-attr]
    found = read[self._key]
    self._phase = _Phase.FREE
    self._mod_revision = found.mod_revision if found else 0
    return Rejected("stale", tuple((c.key, read[c.key]) for c in self._compared if c.key != self._key))


@mutant("I3", "I5", "I1", unknown_after=0.1)
def unknown_is_retried(patch: MonkeyPatch) -> None:
    patch.setattr(Lane, "_seal", lambda self: self._txn)
    patch.setattr(Lane, "_compare_failed", _forget_the_lane)


@mutant("I3", "I5", "I1", unknown_late=0.1)
def unknown_is_settled_by_reading(patch: MonkeyPatch) -> None:
    """The lane is read, not sealed: what has not applied yet may still do so."""
    settle = Lane.settle

    def by_reading(self: Lane, outcome: Outcome) -> Settled | Txn:
        if isinstance(outcome, Applied) and self._txn.compares == () and outcome.reads:
            (lane,) = outcome.reads
            self._phase = _Phase.FREE
            if lane is None or lane.mod_revision == self._mod_revision:
                return Rejected("sealed")
            self._mod_revision = lane.mod_revision
            return Committed(lane.mod_revision)
        return settle(self, outcome)

    def read_lane(self: Lane) -> Txn:
        from atoll.store.store import Get

        self._txn = Txn(success=(Get(self._key),))
        return self._txn

    patch.setattr(Lane, "settle", by_reading)
    patch.setattr(Lane, "_seal", read_lane)
    patch.setattr(Lane, "_compare_failed", _forget_the_lane)


@mutant("I3", "I5", "I1", unknown_after=0.1)
def unknown_counts_as_refused(patch: MonkeyPatch) -> None:
    settle = Lane.settle

    def refused(self: Lane, outcome: Outcome) -> Settled | Txn:
        if isinstance(outcome, Unknown):
            self._phase = _Phase.FREE
            return Rejected("sealed")
        return settle(self, outcome)

    patch.setattr(Lane, "settle", refused)
    patch.setattr(Lane, "_compare_failed", _forget_the_lane)


@mutant("I5", leader_pause_every_ms=5_000, leader_crash_every_ms=0)
def no_guard_of_the_term(patch: MonkeyPatch) -> None:
    def guards(self: Authority) -> tuple[Any, ...]:
        life = mod_is(self.root + b"store_life", self.store_life_revision)
        return (life, life)

    patch.setattr(Authority, "guards", guards)


# ---- the region


@mutant("I7", message_delay_ms=1, slow_store=0.2)
def dispatch_before_commit(patch: MonkeyPatch) -> None:
    bind = transactions.bind
    fill = machine.Machine._fill_lanes

    def fill_and_tell(self: machine.Machine, state: State, turn: Any) -> None:
        known = set(state.in_flight)
        fill(self, state, turn)
        for plan_id, operation in state.in_flight.items():
            if plan_id in known or not isinstance(operation, Bind):
                continue
            for b in operation.bindings:
                node = state.nodes[b.record.node]
                assign = agent_pb2.Assign(
                    token=state.token(b.record.attempt),
                    slot=b.record.id,
                    generation=b.record.generation,
                    task=b.task.spec,
                    type=b.task.owner.share.spec.type,
                )
                if node.welcomed:
                    turn.do(SendToNode(node.session, agent_pb2.RegionMessage(assign=assign)))

    assert bind
    patch.setattr(machine.Machine, "_fill_lanes", fill_and_tell)


@mutant("I3", "I6", stale_share=0.8)
def slices_without_order(patch: MonkeyPatch) -> None:
    for module in (ledger, slices):
        patch.setattr(module, "is_newer", lambda stamp, record: True)
    patch.setattr(slices, "_supersedes", lambda stamp, other: True)


@mutant("I3")
def limit_falls_below_what_is_in_use(patch: MonkeyPatch) -> None:
    patch.setattr(TenantAccount, "_applied", _lowered_at_once(TenantAccount._applied))


def _lowered_at_once(applied: Callable[..., Any]) -> Callable[..., Any]:
    def lower(self: TenantAccount, stamp: Any) -> objects_pb2.RegionSlice:
        record = applied(self, stamp)
        for limit in record.limits:
            limit.limit.CopyFrom(limit.target)
        return record

    return lower


@mutant("I3", slow_store=0.3, unknown_before=0.1)
def release_is_credited_before_its_commit(patch: MonkeyPatch) -> None:
    release = transactions.release
    pending: list[tuple[TenantAccount, Vector]] = []

    def early(root: bytes, lane: int, released: Any, credits: Any) -> Any:
        credits = tuple(credits)
        pending.extend(credits)
        return release(root, lane, released, credits)

    def in_use(self: TenantAccount) -> Vector:
        return total([self.bound, self.charging, *(c for account, c in pending if account is self)]).at_least(Vector())

    def settled(then: Callable[..., None]) -> Callable[..., None]:
        def settle(state: State, operation: Any, *rest: Any) -> None:
            for tenant, credit in operation.credits:
                if (state.account(tenant), credit) in pending:
                    pending.remove((state.account(tenant), credit))
            then(state, operation, *rest)

        return settle

    on_commit, on_reject = machine._SETTLED[transactions.Release]
    patch.setitem(machine._SETTLED, transactions.Release, (settled(on_commit), settled(on_reject)))
    patch.setattr(transactions, "release", early)
    patch.setattr(TenantAccount, "in_use", in_use)


@mutant("I3", slow_store=0.3)
def charge_counts_only_when_committed(patch: MonkeyPatch) -> None:
    patch.setattr(TenantAccount, "in_use", lambda self: self.bound)


@mutant("I3")
def one_counter_for_all_lanes(patch: MonkeyPatch) -> None:
    """The sum of the tenant is written on whichever lane is free."""

    def lane_sum(self: TenantAccount, lane: int, charge: Vector) -> objects_pb2.LaneUse:
        amount = (total(tuple(self.lane_use.values())) + charge).to_proto()
        return objects_pb2.LaneUse(charges=[objects_pb2.AccountCharge(account=ledger.HARD, charged=amount)])

    patch.setattr(TenantAccount, "lane_sum", lane_sum)


@mutant("I1", node_isolation_every_ms=8_000)
def replace_without_a_zombie(patch: MonkeyPatch) -> None:
    patch.setattr(releasing, "_zombie", lambda state, entry: None)


@mutant("I2", node_isolation_every_ms=8_000)
def exclusive_work_is_replaced_like_any_other(patch: MonkeyPatch) -> None:
    patch.setattr(releasing, "moves_without_proof", lambda entry: True)


@mutant("I2", node_isolation_every_ms=8_000)
def fence_is_waited_for_too_shortly(patch: MonkeyPatch) -> None:
    """Counts the silence after which a node is lost, not T_s."""
    patch.setattr(liveness, "surely_stopped_ms", lambda settings, fence_after_ms: 0)


@mutant("I2", leader_crash_every_ms=4_000, node_isolation_every_ms=8_000)
def takeover_grants_no_grace(patch: MonkeyPatch) -> None:
    """Counts from a moment long before, when nobody knows what the former leader acknowledged."""
    read_node = takeover._read_node

    def read(state: State, item: Any, now_ms: int) -> None:
        read_node(state, item, now_ms)
        state.liveness.acknowledged_ms[: len(state.nodes)] = 0
        state.liveness.heard_ms[: len(state.nodes)] = 0
        state.liveness.grace_from_ms = 0

    patch.setattr(takeover, "_read_node", read)


@mutant("I2", store_cut_every_ms=8_000, session_break_every_ms=0, leader_crash_every_ms=0)
def acknowledges_without_proof_of_its_term(patch: MonkeyPatch) -> None:
    """T_l is not looked at: a leader cut off from the store goes on acknowledging."""
    heartbeat = node_life.heartbeat

    def acknowledge(state: State, event: Any, turn: Any) -> None:
        proved_ms, state.applied_sent_ms = state.applied_sent_ms, turn.now_ms
        heartbeat(state, event, turn)
        state.applied_sent_ms = proved_ms

    patch.setattr(node_life, "heartbeat", acknowledge)


@mutant("I1")
def attempts_are_numbered_anew(patch: MonkeyPatch) -> None:
    attempt = objects_pb2.Attempt
    patch.setattr(State, "next_attempt", lambda self: attempt(term=self.authority.term, n=1))


@mutant("I1", "I2", "I7", "one attempt", message_delay_ms=200)
def stopping_counts_as_stopped(patch: MonkeyPatch) -> None:
    reported = closing.attempt_reported

    def hasty(state: State, node: Any, status: agent_pb2.AttemptStatus, turn: Any) -> None:
        if status.phase == agent_pb2.ATTEMPT_PHASE_STOPPING:
            status.phase = agent_pb2.ATTEMPT_PHASE_CLOSED
        reported(state, node, status, turn)

    patch.setattr(closing, "attempt_reported", hasty)


@mutant("I7", "runs", node_isolation_every_ms=8_000)
def unlisted_work_runs_on(patch: MonkeyPatch) -> None:
    """Neither does the agent stop what Sync does not list, nor the region what is reported without a binding."""
    sync = Slots.sync

    def only_assign(self: Slots, message: agent_pb2.Sync, store_life: int, told: Any, now_ms: int) -> None:
        sync(self, message, store_life + 1, told, now_ms)

    patch.setattr(Slots, "sync", only_assign)
    patch.setattr(closing, "send_stop", lambda state, node, slot, attempt, grace_ms, reason, turn: None)


# ---- the agent


@mutant("I7", "I2", "one attempt", session_break_every_ms=1_500, message_delay_ms=200)
def closed_attempts_run_again(patch: MonkeyPatch) -> None:
    def assign(self: Slots, assign: agent_pb2.Assign, now_ms: int) -> None:
        token, slot = fencing_token(assign.token), slot_name(assign.slot)
        rank, runs = rank_of(token), self._runs(slot)
        self.touch(slot)
        record = self._ledger.record(slot)
        if rank != record.highest or rank <= record.closed:
            self._ledger._put(replace(record, highest=rank, closed=LOWEST, assign=assign))
        if rank not in runs:
            runs[rank] = Replica(RunName(slot, rank), assign)

    patch.setattr(Slots, "assign", assign)


@mutant("I7", "I2", "one attempt", agent_crash_every_ms=1_000, slow_disk=0.9)
def nothing_waits_for_the_checkpoint(patch: MonkeyPatch) -> None:
    patch.setattr(Ledger, "is_durable", lambda self, slot: True)


@mutant("I2", "one attempt", "I7")
def a_newer_attempt_does_not_wait_for_the_older(patch: MonkeyPatch) -> None:
    may_start = Slots._may_start

    def at_once(self: Slots, replica: Replica) -> bool:
        runs, slot = self._replicas, replica.run.slot
        self._replicas = {**runs, slot: {replica.run.rank: replica}}
        answer = may_start(self, replica)
        self._replicas = runs
        return answer

    patch.setattr(Slots, "_may_start", at_once)


@mutant("I2", "one attempt", "I7", session_break_every_ms=2_000)
def certifies_what_is_still_alive(patch: MonkeyPatch) -> None:
    patch.setattr(Replica, "alive", property(lambda self: False))


@mutant("I2", session_stall_every_ms=1_500, node_isolation_every_ms=10_000)
def lease_counts_from_the_answer(patch: MonkeyPatch) -> None:
    """T_a from the receipt of the acknowledgement, not from the sending of the heartbeat."""
    acknowledged = Lease.acknowledged

    def later(self: Lease, seq: int, now_ms: int, *, extends: bool) -> bool:
        if seq in self._pending:
            self._pending[seq] = now_ms
        return acknowledged(self, seq, now_ms, extends=extends)

    patch.setattr(Lease, "acknowledged", later)


@mutant("I2", node_isolation_every_ms=8_000)
def exclusive_work_has_no_deadline(patch: MonkeyPatch) -> None:
    patch.setattr(Lease, "deadline_ms", lambda self, assign: None)
