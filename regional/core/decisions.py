"""The record of each decision: what was looked at, what was chosen, and what came of it. It explains and binds nothing.

Put together a class at a time, published once its result is known, indexed and written by the journal outside the core.
"""

from collections.abc import Iterable

from atoll.api.v1 import objects_pb2
from regional.core.commands import Journal
from regional.core.ledger import TenantAccount
from regional.core.queue import SchedulingClass
from regional.core.state import State, Turn

_PLACED = ("Bound", "Reserved")


def begin(state: State, cls: SchedulingClass, turn: Turn) -> objects_pb2.Decision:
    """About some replicas of a class, that are parked unless it goes on."""
    state.last_decision += 1
    share = state.workloads[cls.tenant, cls.workload].share
    return objects_pb2.Decision(
        id=f"{state.authority.term}-{state.last_decision}",
        slot=objects_pb2.SlotId(tenant=cls.tenant, workload=cls.workload, task=cls.task),
        generation=share.metadata.generation,
        queued_ms=cls.queued_ms,
        decided_ms=turn.now_ms,
        policy_revision=share.policy_revision,
        cache_revision=state.revision,
        result="Parked",
        next_owner="queue",
    )


def quota_of(account: TenantAccount) -> str:
    in_use, limit = account.in_use(), account.limit
    burst = f"; of burst {in_use.burst} of {limit.burst}" if in_use.burst or limit.burst else ""
    return f"{in_use.hard} in use of {limit.hard}{burst}{account.frozen}"


def add_places(decision: objects_pb2.Decision, records: Iterable[objects_pb2.Slot]) -> None:
    """The records to be of what was placed, in the order of their attempts, which follow each other."""
    records = tuple(records)
    if not decision.placed:
        first = records[0]
        decision.slot.index, decision.node, decision.next_owner = first.id.index, first.node, "agent"
        decision.attempt.CopyFrom(first.attempt)
    decision.placed.extend([record.id.index for record in records])
    decision.placed_on.extend([record.node for record in records])


def publish(decision: objects_pb2.Decision, result: str, turn: Turn) -> None:
    """Only here is it complete."""
    decision.result = result
    if result not in _PLACED:
        decision.next_owner = "queue"
    turn.do(Journal(decision))
