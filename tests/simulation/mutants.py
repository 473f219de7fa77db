"""The museum of seeded bugs: naive versions of the protocols, each as a small patch of a core or of the lane.

Each is a tempting shortcut. test_museum.py shows that the simulator notices every one of them, and by which rule.
`events` and `faults` only make a bug meet its circumstances sooner. Livelock is a way to fail, too: "not converged".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from agent.core.fencing import Ledger
from agent.core.lease import Lease
from agent.core.replica import Replica
from agent.core.runs import LOWEST, RunName, rank_of
from agent.core.slots import Slots
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.lane import Authority, Committed, Lane, Plan, Rejected, Settled, _Phase
from atoll.model.accounts import NONE, ByAccount, summed
from atoll.model.slots import fencing_token, slot_name
from atoll.store.store import Applied, Get, Outcome, Refused, Txn, Unknown, mod_is
from regional.core import closing, ledger, liveness, machine, node_life, releasing, slices, takeover, transactions
from regional.core.commands import SendToNode
from regional.core.ledger import TenantAccount
from regional.core.state import State, Turn
from regional.core.transactions import Bind
from simulation.features import NO_FEATURES

HARD = objects_pb2.ACCOUNT_HARD
Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    name: str
    patch: Patch
    rules: tuple[str, ...]  # one of these is in the failure
    events: int
    given: Mapping[str, Any]  # what `run` is told beside the seed


MUTANTS: list[Mutant] = []


def mutant(*rules: str, events: int = 4_000, **given: Any) -> Callable[[Patch], Patch]:
    """`given`: faults, and how the world is shaped; regions=0, jobs=None or features=None is as the seed draws."""

    def register(patch: Patch) -> Patch:
        shape = {"regions": 1, "features": NO_FEATURES, **given}
        MUTANTS.append(Mutant(patch.__name__, patch, rules, events, shape))
        return patch

    return register


# ---- the lane


def _forget_the_lane(self: Lane, outcome: Refused) -> Rejected:
    """Goes on from whatever the lane shows, as if it had been refused."""
    read = dict(zip((op.key for op in self._txn.failure), outcome.reads, strict=True))
    found = read[self._key]
    self._phase = _Phase.FREE
    self._mod_revision = found.mod_revision if found else 0
    return Rejected("stale")


@mutant("I3", "I5", "I1", "not converged", unknown_after=0.1)
def unknown_is_retried(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lane, "_seal", lambda self: self._txn)
    patch.setattr(Lane, "_compare_failed", _forget_the_lane)


@mutant("I3", "I5", "I1", unknown_late=0.1)
def unknown_is_settled_by_reading(patch: pytest.MonkeyPatch) -> None:
    """No lane to compare: the lane key is read to learn what became of it. What has not applied yet may still do so."""
    begin, settle = Lane.begin, Lane.settle

    def without_lane(self: Lane, plan: Plan) -> Txn:
        txn = begin(self, plan)
        self._txn = txn._replace(compares=tuple(c for c in txn.compares if c.key != self._key))
        return self._txn

    def read_lane(self: Lane) -> Txn:
        self._txn = Txn(success=(Get(self._key),))
        return self._txn

    def by_reading(self: Lane, outcome: Outcome) -> Settled | Txn:
        if not isinstance(outcome, Applied) or self._txn.compares:
            return settle(self, outcome)
        (lane,) = outcome.reads
        self._phase = _Phase.FREE
        if lane is None or lane.mod_revision == self._mod_revision:
            return Rejected("sealed")
        self._mod_revision = lane.mod_revision
        return Committed(lane.mod_revision)

    patch.setattr(Lane, "begin", without_lane)
    patch.setattr(Lane, "_seal", read_lane)
    patch.setattr(Lane, "settle", by_reading)
    patch.setattr(Lane, "_compare_failed", _forget_the_lane)


@mutant("I3", "I5", "I1", "not converged", unknown_after=0.1)
def unknown_counts_as_refused(patch: pytest.MonkeyPatch) -> None:
    settle = Lane.settle

    def refused(self: Lane, outcome: Outcome) -> Settled | Txn:
        if isinstance(outcome, Unknown):
            self._phase = _Phase.FREE
            return Rejected("sealed")
        return settle(self, outcome)

    patch.setattr(Lane, "settle", refused)
    patch.setattr(Lane, "_compare_failed", _forget_the_lane)


@mutant("I5", leader_pause_every_ms=5_000, leader_crash_every_ms=0)
def no_guard_of_the_term(patch: pytest.MonkeyPatch) -> None:
    def guards(self: Authority) -> tuple[Any, ...]:
        life = mod_is(self.root + b"store_life", self.store_life_revision)
        return (life, life)

    patch.setattr(Authority, "guards", guards)


# ---- the region


@mutant("I7", message_delay_ms=1, slow_store=0.2)
def dispatch_before_commit(patch: pytest.MonkeyPatch) -> None:
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

    patch.setattr(machine.Machine, "_fill_lanes", fill_and_tell)


@mutant("I3", "I6", stale_share=0.8)
def slices_without_order(patch: pytest.MonkeyPatch) -> None:
    for module in (ledger, slices):
        patch.setattr(module, "is_newer", lambda stamp, record: stamp.slice.seq != record.seq)
    patch.setattr(slices, "_supersedes", lambda stamp, other: True)


@mutant("I3")
def limit_falls_below_what_is_in_use(patch: pytest.MonkeyPatch) -> None:
    applied = TenantAccount._applied

    def at_once(self: TenantAccount, stamp: Any) -> objects_pb2.RegionSlice:
        record = applied(self, stamp)
        for limit in record.limits:
            limit.limit.CopyFrom(limit.target)
        return record

    patch.setattr(TenantAccount, "_applied", at_once)


@mutant("I3", slow_store=0.3, unknown_before=0.1)
def release_is_credited_before_its_commit(patch: pytest.MonkeyPatch) -> None:
    release = transactions.release
    pending: list[tuple[TenantAccount, ByAccount]] = []

    def early(root: bytes, lane: int, released: Any, credits: Any) -> Any:
        credits = tuple(credits)
        pending.extend(credits)
        return release(root, lane, released, credits)

    def in_use(self: TenantAccount) -> ByAccount:
        early = summed(credit for account, credit in pending if account is self)
        return (self.bound + self.charging + early).at_least(NONE)

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
def charge_counts_only_when_committed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TenantAccount, "in_use", lambda self: self.bound)


@mutant("I3")
def one_counter_for_all_lanes(patch: pytest.MonkeyPatch) -> None:
    """The sum of the tenant is written on whichever lane is free."""

    def lane_sum(self: TenantAccount, lane: int, charge: ByAccount) -> objects_pb2.LaneUse:
        amount = (summed(self.lane_use.values()) + charge).hard.to_proto()
        return objects_pb2.LaneUse(
            charges=[objects_pb2.AccountCharge(account=objects_pb2.ACCOUNT_HARD, charged=amount)]
        )

    patch.setattr(TenantAccount, "lane_sum", lane_sum)


@mutant("I1", node_isolation_every_ms=8_000)
def replace_without_a_zombie(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(releasing, "_zombie", lambda state, entry: None)


@mutant("I2", "I7", session_break_every_ms=2_000)
def a_broken_session_is_proof(patch: pytest.MonkeyPatch) -> None:
    ended = node_life.session_ended

    def release_all(state: State, event: Any) -> None:
        node = state.sessions.get(event.session)
        ended(state, event)
        for entry in node.slots.values() if node else ():
            if not entry.busy and not releasing.moves_without_proof(entry):
                state.releases[entry.key] = entry

    patch.setattr(node_life, "session_ended", release_all)


@mutant("I2", node_isolation_every_ms=8_000)
def a_missed_heartbeat_is_proof(patch: pytest.MonkeyPatch) -> None:
    """Neither the five heartbeats of a lost node nor T_s are waited for."""
    longer_than = liveness.Liveness.longer_than
    patch.setattr(liveness.Liveness, "longer_than", lambda self, heartbeats, now_ms: longer_than(self, 1, now_ms))
    patch.setattr(liveness, "surely_stopped_ms", lambda settings, fence_after_ms: 0)


@mutant("I2", leader_crash_every_ms=4_000, node_isolation_every_ms=8_000)
def takeover_grants_no_grace(patch: pytest.MonkeyPatch) -> None:
    """Counts from a moment long before, when nobody knows what the former leader acknowledged."""
    complete = takeover.Takeover.complete

    def completed(self: takeover.Takeover, revision: int, turn: Turn) -> State:
        state = complete(self, revision, turn)
        state.liveness.acknowledged_ms[: len(state.nodes)] = 0
        state.liveness.heard_ms[: len(state.nodes)] = 0
        state.liveness.grace_from_ms = 0
        return state

    patch.setattr(takeover.Takeover, "complete", completed)


@mutant(
    "I2",
    "I7",
    events=8_000,
    store_cut_every_ms=30_000,
    session_break_every_ms=10_000,
    session_stall_every_ms=0,
    leader_crash_every_ms=0,
    leader_pause_every_ms=0,
    agent_crash_every_ms=0,
    agent_pause_every_ms=0,
    node_isolation_every_ms=0,
    node_reboot_every_ms=0,
)
def acknowledges_without_proof_of_its_term(patch: pytest.MonkeyPatch) -> None:
    """T_l is not looked at: a leader cut off from the store goes on acknowledging."""
    heartbeat = node_life.heartbeat

    def acknowledge(state: State, event: Any, turn: Any) -> None:
        proved_ms, state.applied_sent_ms = state.applied_sent_ms, turn.now_ms
        heartbeat(state, event, turn)
        state.applied_sent_ms = proved_ms

    patch.setattr(node_life, "heartbeat", acknowledge)


@mutant("I1")
def attempts_are_numbered_anew(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(State, "next_attempt", lambda self: 1)


@mutant("I1", "I2", "I7", "one attempt", message_delay_ms=200)
def stopping_counts_as_stopped(patch: pytest.MonkeyPatch) -> None:
    reported = closing.attempt_reported

    def hasty(state: State, node: Any, status: agent_pb2.AttemptStatus, turn: Any) -> bool:
        if status.phase == agent_pb2.ATTEMPT_PHASE_STOPPING:
            status.phase = agent_pb2.ATTEMPT_PHASE_CLOSED
        return reported(state, node, status, turn)

    patch.setattr(closing, "attempt_reported", hasty)


@mutant("I7", "runs", "converged", node_isolation_every_ms=8_000)
def unlisted_work_runs_on(patch: pytest.MonkeyPatch) -> None:
    """Neither does the agent stop what Sync does not list, nor the region what is reported without a binding."""
    sync = Slots.sync

    def only_assign(self: Slots, message: agent_pb2.Sync, store_life: int, told: Any, now_ms: int) -> None:
        sync(self, agent_pb2.Sync(assignments=message.assignments), store_life + 1, told, now_ms)

    patch.setattr(Slots, "sync", only_assign)
    patch.setattr(closing, "send_stop", lambda state, node, stop, turn: None)


# ---- the agent


@mutant("I7", "I2", "one attempt", session_break_every_ms=1_500, message_delay_ms=200)
def closed_attempts_run_again(patch: pytest.MonkeyPatch) -> None:
    def assign(self: Slots, assign: agent_pb2.Assign, now_ms: int) -> None:
        token, slot = fencing_token(assign.token), slot_name(assign.slot)
        rank, runs = rank_of(token), self._runs(slot)
        self.touch(slot)
        record = self._ledger.record(slot)
        if rank != record.highest or rank <= record.closed:
            self._ledger._put(replace(record, highest=rank, closed=LOWEST, assign=assign))
        if rank not in runs:
            runs[rank] = Replica(RunName(slot, rank), assign)

    patch.setattr(Slots, "_assign", assign)


@mutant("checkpoint")
def nothing_waits_for_the_checkpoint(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "is_durable", lambda self, slot: True)


@mutant("one attempt", node_isolation_every_ms=3_000, message_delay_ms=200)
def a_newer_attempt_does_not_wait_for_the_older(patch: pytest.MonkeyPatch) -> None:
    may_start = Slots._may_start

    def at_once(self: Slots, replica: Replica) -> bool:
        runs, slot = self._replicas, replica.run.slot
        self._replicas = {**runs, slot: {replica.run.rank: replica}}
        answer = may_start(self, replica)
        self._replicas = runs
        return answer

    patch.setattr(Slots, "_may_start", at_once)


@mutant("I2", "one attempt", "I7", session_break_every_ms=2_000)
def certifies_what_is_still_alive(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Replica, "alive", property(lambda self: False))


@mutant(
    "I2",
    events=8_000,
    message_delay_ms=1_000,
    node_freeze_every_ms=5_000,
    session_break_every_ms=0,
    session_stall_every_ms=0,
    agent_crash_every_ms=0,
    agent_pause_every_ms=0,
    node_reboot_every_ms=0,
    node_isolation_every_ms=0,
    leader_crash_every_ms=0,
    leader_pause_every_ms=0,
    store_cut_every_ms=0,
    global_absence_every_ms=0,
    replica_exit_every_ms=0,
    start_failure=0.0,
)
def lease_counts_from_the_answer(patch: pytest.MonkeyPatch) -> None:
    """T_a from the receipt of the acknowledgement, not from the sending of the heartbeat. Harm needs an answer that is
    read more than T_s - T_a late, about 5 s, and then silence: an agent that stood still while its link failed."""
    acknowledged = Lease.acknowledged

    def later(self: Lease, seq: int, now_ms: int, *, extends: bool) -> bool:
        if seq in self._pending:
            self._pending[seq] = now_ms
        return acknowledged(self, seq, now_ms, extends=extends)

    patch.setattr(Lease, "acknowledged", later)


@mutant("I2", node_isolation_every_ms=8_000)
def exclusive_work_has_no_deadline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Lease, "deadline_ms", lambda self, assign: None)
