"""Users' changes of the policy: a revision is made, put in force, put on trial, rolled back.

Decides which revision is in force where; what that makes of shares is decided in policies.py. A promotion that would
leave a workload without the strategy that it names is refused. A rollback never is: it is the way out, so such tasks
are placed by the default strategy, and the answer names their workloads.
"""

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import AtollError, Conflict, Invalid, Mistake, NotFound
from atoll.model import explain
from atoll.store import keys
from global_cp.core import policies, transactions
from global_cp.core.decided import CREATED, UNCHANGED, UPDATED, Decided, World, record_of
from global_cp.core.policy_rules import complete_policy, mistakes_in_policy
from global_cp.core.records import Records

STRATEGY_IN_USE, NOTHING_BEFORE = "E3020", "E3021"
MOST_REVISIONS = 1_000  # then the oldest that is not needed for a rollback goes
MOST_EARLIER = 20
_SHOWN = 5


def apply(world: World, request: global_pb2.ApplyPolicyRequest, by: str, now_ms: int) -> Decided | AtollError:
    records = world.records
    if mistakes := mistakes_in_policy(request.policy):
        return Invalid(f"policy {request.policy.metadata.name[:63]!r} is not valid", mistakes=tuple(mistakes))
    wanted = complete_policy(request.policy)
    numbers = policies.numbers_of(records)
    newest = records.policies.get(str(numbers[-1])) if numbers else None
    if newest is not None and _same(newest, wanted):
        answer = global_pb2.ApplyPolicyResponse(policy=newest, outcome=UNCHANGED)
        answer.policy.metadata.revision = records.mod(keys.policy(numbers[-1]))
        return Decided(transactions.policy(records, None, (), _kept(request, answer, now_ms)), answer)
    wanted.metadata.generation = 1 + (numbers[-1] if numbers else policies.BUILT_IN)
    wanted.metadata.created_ms = now_ms
    answer = global_pb2.ApplyPolicyResponse(policy=wanted, outcome=CREATED)
    gone = _outlived(records, numbers)
    event = _event("PolicyCreated", wanted.metadata.generation, wanted.metadata.name, by, now_ms)
    return Decided(transactions.policy(records, wanted, gone, _kept(request, answer, now_ms)), answer, event)


def promote(world: World, request: global_pb2.PromotePolicyRequest, by: str, now_ms: int) -> Decided | AtollError:
    records, number = world.records, request.policy_revision
    if error := _missing(records, number):
        return error
    if unknown := [name for name in request.regions if records.regions.get(name) is None]:
        mistakes = tuple(Mistake("regions", f"there is no region {name[:63]!r}") for name in unknown)
        return Invalid("the canary is not valid", mistakes=mistakes)
    before, after = policies.in_force(records), objects_pb2.PolicyInForce()
    after.CopyFrom(before)
    if request.regions:
        after.canary_revision = number
        after.canary_regions[:] = sorted(set(request.regions))
    else:
        _put_in_force(after, number, [*before.earlier, before.policy_revision])
    if lacking := _lacking(records, before, after):
        return _in_use(number, lacking)
    kind = "PolicyCanary" if request.regions else "PolicyPromoted"
    event = _event(kind, number, _said(before, after), by, now_ms)
    return _decided(world, request, before, after, [], event)


def roll_back(world: World, request: global_pb2.RollBackPolicyRequest, by: str, now_ms: int) -> Decided | AtollError:
    records = world.records
    before, after = policies.in_force(records), objects_pb2.PolicyInForce()
    after.CopyFrom(before)
    earlier = list(before.earlier)
    if request.HasField("policy_revision"):
        number = request.policy_revision
        if error := _missing(records, number):
            return error
        _put_in_force(after, number, earlier[: earlier.index(number)] if number in earlier else earlier)
    elif before.canary_regions:
        after.canary_revision = 0
        del after.canary_regions[:]
    elif earlier:
        _put_in_force(after, earlier[-1], earlier[:-1])
    else:
        return Conflict("no other policy was in force before", hint="atoll policy list", code=NOTHING_BEFORE)
    event = _event("PolicyRolledBack", after.policy_revision, _said(before, after), by, now_ms)
    return _decided(world, request, before, after, _lacking(records, before, after), event)


def _put_in_force(force: objects_pb2.PolicyInForce, number: int, earlier: list[int]) -> None:
    """Everywhere: a canary ends. What is in force already is not put before itself."""
    if force.policy_revision != number:
        force.earlier[:] = earlier[-MOST_EARLIER:]
    force.policy_revision = number
    force.canary_revision = 0
    del force.canary_regions[:]


def _decided(
    world: World,
    request: global_pb2.PromotePolicyRequest | global_pb2.RollBackPolicyRequest,
    before: objects_pb2.PolicyInForce,
    after: objects_pb2.PolicyInForce,
    lacking: list[str],
    event: objects_pb2.Event,
) -> Decided:
    outcome = UNCHANGED if after == before else UPDATED
    answer = global_pb2.ChangePolicyResponse(in_force=after, outcome=outcome, without_strategy=lacking)
    kept = record_of(request, request.request_id, answer, event.at_ms)
    numbers = (after.policy_revision, *([after.canary_revision] if after.canary_regions else ()))
    written, told = (None, None) if outcome == UNCHANGED else (after, event)
    return Decided(transactions.policy_in_force(world.records, written, numbers, kept), answer, told)


def _event(kind: str, number: int, what: str, by: str, now_ms: int) -> objects_pb2.Event:
    who = f", by {by}" if by else ""
    return objects_pb2.Event(at_ms=now_ms, type=kind, object=f"policy/{number}", message=what + who)


def _said(before: objects_pb2.PolicyInForce, after: objects_pb2.PolicyInForce) -> str:
    """For people."""
    return f"{_in_words(after)}; before: {_in_words(before)}"


def _in_words(force: objects_pb2.PolicyInForce) -> str:
    if not force.canary_regions:
        return f"{force.policy_revision} everywhere"
    return f"{force.canary_revision} on trial in {', '.join(force.canary_regions)}, else {force.policy_revision}"


def _lacking(records: Records, before: objects_pb2.PolicyInForce, after: objects_pb2.PolicyInForce) -> list[str]:
    """Workloads that would lose a strategy that they name."""
    found = []
    for path, workload in records.workloads.items():
        if workload.metadata.deleted_ms:
            continue
        lost = {name for _, name, _ in policies.unknown_strategies(records, after, workload.spec)}
        if lost - {name for _, name, _ in policies.unknown_strategies(records, before, workload.spec)}:
            found.append("/".join(path))
    return found


def _in_use(number: int, lacking: list[str]) -> AtollError:
    more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    named = ", ".join(lacking[:_SHOWN]) + more
    return Conflict(
        f"policy {number} lacks strategies that {explain.counted(len(lacking), 'workload')} name: {named}",
        hint="give the policy these strategies, or the workloads others",
        code=STRATEGY_IN_USE,
    )


def _missing(records: Records, number: int) -> AtollError | None:
    if number == policies.BUILT_IN or records.policies.get(str(number)) is not None:
        return None
    return NotFound(f"there is no policy revision {number}", hint="atoll policy list")


def _outlived(records: Records, numbers: list[int]) -> list[int]:
    force = policies.in_force(records)
    needed = {force.policy_revision, force.canary_revision, *force.earlier}
    return [n for n in numbers if n not in needed][:1] if len(numbers) >= MOST_REVISIONS else []


def _kept(
    request: global_pb2.ApplyPolicyRequest, answer: global_pb2.ApplyPolicyResponse, now_ms: int
) -> objects_pb2.RequestRecord:
    return record_of(request, request.request_id, answer, now_ms)


def _same(before: objects_pb2.SchedulerPolicy, wanted: objects_pb2.SchedulerPolicy) -> bool:
    old, new = before.metadata, wanted.metadata
    said = (old.name, list(old.labels), list(old.annotations)) == (new.name, list(new.labels), list(new.annotations))
    return said and before.spec == wanted.spec
