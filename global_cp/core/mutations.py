"""What each user's change does to the records: one pure decision per method.

Decides on complete, validated documents and returns the transaction with its answer, or the error that says why not.
An expected "no" is a value here. The answer's revisions are filled in when the transaction is committed
(`with_revision`), so the stored answer of a request is the same for every asker.
"""

from collections.abc import Sequence

from google.protobuf.message import Message

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import AtollError, Conflict, Invalid, Mistake, NotFound
from atoll.model import explain
from atoll.model.accounts import limits
from atoll.model.names import mistake_in_name
from atoll.store import keys
from global_cp.core import (
    intake,
    jobs,
    notices,
    policies,
    policy_changes,
    recovery,
    region_updates,
    transactions,
    user_tokens,
)
from global_cp.core.admission import MOST_REPLICAS, mistakes_in_tenant, mistakes_in_workload
from global_cp.core.decided import CREATED, UNCHANGED, UPDATED, Decided, World, record_of
from global_cp.core.defaults import complete_tenant, complete_workload
from global_cp.core.events import MutationAsked
from global_cp.core.generations import carry_on, moved, no_workload, same_wish, stale
from global_cp.core.job_rules import missed, times
from global_cp.core.notify_rules import mistakes_in_notify
from global_cp.core.protection_rules import mistakes_in_protection
from global_cp.core.purse import purse

REQUEST_REUSED, IN_USE = "E3003", "E3005"


def tenant_of(request: Message) -> str:
    """Whose request ids this one is among."""
    match request:
        case global_pb2.ApplyWorkloadRequest():
            return request.workload.metadata.tenant
        case global_pb2.ScaleWorkloadRequest() | global_pb2.DeleteWorkloadRequest() | global_pb2.ResumeJobRequest():
            return request.tenant
        case global_pb2.ApplyTenantRequest():
            return request.tenant.metadata.name
        case global_pb2.DeleteTenantRequest():
            return request.name
        case global_pb2.CreateUserTokenRequest():
            return request.tenant or transactions.CLUSTER
        case global_pb2.UpdateRegionRequest() | global_pb2.RevokeUserTokenRequest():
            return transactions.CLUSTER
        case global_pb2.ApplyPolicyRequest() | global_pb2.PromotePolicyRequest() | global_pb2.RollBackPolicyRequest():
            return transactions.CLUSTER
    raise TypeError(f"{type(request).__name__} is no mutation")


def decide(world: World, asked: MutationAsked, uid: str, now_ms: int) -> Decided | AtollError:
    """`uid`: for the object, should it be new."""
    request = asked.request
    match request:
        case global_pb2.ApplyWorkloadRequest():
            return _apply_workload(world, request, uid, now_ms)
        case global_pb2.ScaleWorkloadRequest():
            return _scale_workload(world, request, now_ms)
        case global_pb2.DeleteWorkloadRequest():
            return _delete_workload(world, request, now_ms)
        case global_pb2.ResumeJobRequest():
            return _resume_job(world, request, now_ms)
        case global_pb2.ApplyTenantRequest():
            return _apply_tenant(world, request, uid, now_ms)
        case global_pb2.DeleteTenantRequest():
            return _delete_tenant(world, request, now_ms)
        case global_pb2.CreateUserTokenRequest() if asked.token is not None:
            return _create_token(world, request, asked.token, now_ms)
        case global_pb2.RevokeUserTokenRequest():
            return _revoke_token(world, request, now_ms)
        case global_pb2.UpdateRegionRequest():
            return _update_region(world, request, now_ms)
        case global_pb2.ApplyPolicyRequest():
            return policy_changes.apply(world, request, asked.by, now_ms)
        case global_pb2.PromotePolicyRequest():
            return policy_changes.promote(world, request, asked.by, now_ms)
        case global_pb2.RollBackPolicyRequest():
            return policy_changes.roll_back(world, request, asked.by, now_ms)
    raise TypeError(f"{type(request).__name__} is no mutation")


def stored_answer(record: objects_pb2.RequestRecord) -> Message:
    """The answer that was given to a recorded request, without its revisions."""
    return _ANSWERS[record.method].FromString(record.result)


def with_revision(answer: Message, revision: int) -> Message:
    """The answer of a request that was committed at `revision`."""
    filled = type(answer)()
    filled.CopyFrom(answer)
    if isinstance(filled, global_pb2.ApplyWorkloadResponse):
        filled.workload.metadata.revision = filled.workload.metadata.revision or revision
    if isinstance(filled, global_pb2.UpdateRegionResponse):
        filled.region.metadata.revision = filled.region.metadata.revision or revision
    if isinstance(filled, global_pb2.ApplyTenantResponse):
        filled.tenant.metadata.revision = filled.tenant.metadata.revision or revision
    if isinstance(filled, global_pb2.ApplyPolicyResponse):
        filled.policy.metadata.revision = filled.policy.metadata.revision or revision
    if not isinstance(filled, global_pb2.CreateUserTokenResponse):
        filled.revision = revision  # type: ignore[attr-defined]  # every other answer has one
    return filled


_ANSWERS: dict[str, type[Message]] = {
    "ApplyWorkloadRequest": global_pb2.ApplyWorkloadResponse,
    "ScaleWorkloadRequest": global_pb2.ApplyWorkloadResponse,
    "DeleteWorkloadRequest": global_pb2.DeleteWorkloadResponse,
    "ResumeJobRequest": global_pb2.ApplyWorkloadResponse,
    "ApplyTenantRequest": global_pb2.ApplyTenantResponse,
    "DeleteTenantRequest": global_pb2.DeleteTenantResponse,
    "CreateUserTokenRequest": global_pb2.CreateUserTokenResponse,
    "RevokeUserTokenRequest": global_pb2.RevokeUserTokenResponse,
    "UpdateRegionRequest": global_pb2.UpdateRegionResponse,
    "ApplyPolicyRequest": global_pb2.ApplyPolicyResponse,
    "PromotePolicyRequest": global_pb2.ChangePolicyResponse,
    "RollBackPolicyRequest": global_pb2.ChangePolicyResponse,
}


# ---- workloads


def _apply_workload(
    world: World, request: global_pb2.ApplyWorkloadRequest, uid: str, now_ms: int
) -> Decided | AtollError:
    wanted = complete_workload(request.workload)
    metadata = wanted.metadata
    before = world.records.workloads.get(metadata.tenant, metadata.name)
    if before is not None:
        status = world.records.statuses.get(metadata.tenant, metadata.name)
        goes_on = jobs.corrected(before, status, wanted.spec)
        wanted.spec.resumed = before.metadata.generation + 1 if goes_on else before.spec.resumed
    regions = {region.metadata.name: region for region in world.records.regions}
    old = before.spec if before is not None else None
    mistakes = mistakes_in_workload(wanted, regions, world.summaries, world.zones, old)
    mistakes += [
        *_tenant_mistakes(world, metadata.tenant, "metadata.tenant"),
        *_strategy_mistakes(world, wanted.spec, old),
        *mistakes_in_notify(wanted.spec, world.webhooks),
    ]
    if old is None or times(old) != times(wanted.spec):  # what was feasible may be applied again
        mistakes += missed(wanted.spec, now_ms)
    verdict = world.recovery.verdict(wanted)
    if recovery.refused(wanted.spec, old, verdict):
        mistakes.append(Mistake("spec.recovery", str(verdict)))
    if before is not None and before.spec.type != wanted.spec.type:
        mistakes.append(Mistake("spec.type", "cannot be changed; delete the workload and create it anew"))
    if mistakes:
        return Invalid(f"workload {metadata.name[:63]!r} is not valid", mistakes=tuple(mistakes))
    if error := stale(before, request.if_generation):
        return error
    if before is not None and same_wish(before, wanted):
        return _answered(world, request, request.request_id, before, UNCHANGED, now_ms)
    if error := intake.refused(world.records, world.summaries, world.busy_retry_ms, wanted, before):
        return error
    carry_on(wanted.metadata, before, changed=before is None or before.spec != wanted.spec, uid=uid, now_ms=now_ms)
    outcome = UPDATED if before else CREATED
    return _answered(world, request, request.request_id, wanted, outcome, now_ms, recovery.warnings(verdict))


def _scale_workload(world: World, request: global_pb2.ScaleWorkloadRequest, now_ms: int) -> Decided | AtollError:
    before = world.records.workloads.get(request.tenant, request.name)
    if before is None:
        return no_workload(request.tenant, request.name)
    if error := stale(before, request.if_generation):
        return error
    wanted = objects_pb2.Workload()
    wanted.CopyFrom(before)
    names = [task.name for task in wanted.spec.tasks]
    name = request.task or (names[0] if len(names) == 1 else "")
    if name not in names:
        return Invalid("no such task", mistakes=(Mistake("task", f"must be one of: {', '.join(names)}"),))
    if not 0 <= request.replicas <= MOST_REPLICAS:
        mistake = Mistake("replicas", f"{request.replicas} is not allowed: 0 to {MOST_REPLICAS}")
        return Invalid("the number of replicas is not valid", mistakes=(mistake,))
    if wanted.spec.spread.fixed and request.replicas != wanted.spec.tasks[names.index(name)].replicas:
        mistake = Mistake("replicas", "follow from spec.spread.fixed; apply the workload with other counts there")
        return Invalid("a workload with fixed counts cannot be scaled", mistakes=(mistake,))
    wanted.spec.tasks[names.index(name)].replicas = request.replicas
    if wanted == before:
        return _answered(world, request, request.request_id, before, UNCHANGED, now_ms)
    verdict = world.recovery.verdict(wanted)
    if recovery.refused(wanted.spec, before.spec, verdict):
        return Invalid("so many could not do without a region", mistakes=(Mistake("replicas", str(verdict)),))
    if error := intake.refused(world.records, world.summaries, world.busy_retry_ms, wanted, before):
        return error
    wanted.metadata.generation += 1
    return _answered(world, request, request.request_id, wanted, UPDATED, now_ms, recovery.warnings(verdict))


def _delete_workload(world: World, request: global_pb2.DeleteWorkloadRequest, now_ms: int) -> Decided | AtollError:
    before = world.records.workloads.get(request.tenant, request.name)
    if before is None:
        return no_workload(request.tenant, request.name)
    if request.if_generation and request.if_generation != before.metadata.generation:
        return moved(before.metadata, request.if_generation)
    wanted = objects_pb2.Workload()
    wanted.CopyFrom(before)
    wanted.metadata.deleted_ms = before.metadata.deleted_ms or now_ms
    record = record_of(request, request.request_id, answer := global_pb2.DeleteWorkloadResponse(), now_ms)
    told = notices.of_deletion(before, world.records.statuses.get(request.tenant, request.name), now_ms)
    return Decided(transactions.delete(world.records, wanted, record, told), answer)


def _resume_job(world: World, request: global_pb2.ResumeJobRequest, now_ms: int) -> Decided | AtollError:
    before = world.records.workloads.get(request.tenant, request.name)
    if before is None:
        return no_workload(request.tenant, request.name)
    if error := stale(before, request.if_generation):
        return error
    after = jobs.resumed(before, world.records.statuses.get(request.tenant, request.name))
    if isinstance(after, Conflict):
        return after
    if error := intake.refused(world.records, world.summaries, world.busy_retry_ms, after, before):
        return error
    return _answered(world, request, request.request_id, after, UPDATED, now_ms)


def _answered(
    world: World,
    request: Message,
    request_id: str,
    workload: objects_pb2.Workload,
    outcome: str,
    now_ms: int,
    warnings: Sequence[str] = (),
) -> Decided:
    metadata = workload.metadata
    answer = global_pb2.ApplyWorkloadResponse(workload=workload, outcome=outcome, warnings=warnings)
    if outcome == UNCHANGED:
        answer.workload.metadata.revision = world.records.mod(keys.workload(metadata.tenant, metadata.name))
    record = record_of(request, request_id, answer, now_ms)
    written = None if outcome == UNCHANGED else workload
    return Decided(transactions.admit(world.records, written, metadata.tenant, record), answer)


def _tenant_mistakes(world: World, tenant: str, path: str) -> list[Mistake]:
    if mistake := mistake_in_name(tenant):
        return [Mistake(path, mistake)]
    document = world.records.tenants.get(tenant)
    if document is None or document.metadata.deleted_ms:
        return [Mistake(path, f"there is no tenant {tenant!r}")]
    return []


def _strategy_mistakes(
    world: World, spec: objects_pb2.WorkloadSpec, before: objects_pb2.WorkloadSpec | None
) -> list[Mistake]:
    """What a rollback took from a workload is no reason to refuse a change of it."""
    found: dict[int, Mistake] = {}
    force = policies.in_force(world.records)
    lost = {name for _, name, _ in policies.unknown_strategies(world.records, force, before)} if before else set()
    for index, name, number in policies.unknown_strategies(world.records, force, spec):
        if name in lost:
            continue
        known = ", ".join(sorted(policies.of(world.records, number).known))
        text = f"{name[:40]!r} is not a strategy of policy {number}; known are: {known}"
        found.setdefault(index, Mistake(f"spec.tasks[{index}].strategy", text))
    return list(found.values())


# ---- regions, tenants and tokens


def _update_region(world: World, request: global_pb2.UpdateRegionRequest, now_ms: int) -> Decided | AtollError:
    before = world.records.regions.get(request.name)
    if before is None:
        return NotFound(f"there is no region {request.name[:63]!r}")
    if request.if_generation and request.if_generation != before.metadata.generation:
        return moved(before.metadata, request.if_generation)
    after = region_updates.updated(before, request)
    if isinstance(after, Invalid):
        return after
    unchanged = after is before
    answer = global_pb2.UpdateRegionResponse(region=after, outcome=UNCHANGED if unchanged else UPDATED)
    if unchanged:
        answer.region.metadata.revision = world.records.mod(keys.region(request.name))
    record = record_of(request, request.request_id, answer, now_ms)
    written = None if unchanged else after
    return Decided(transactions.update_region(world.records, written, request.name, record), answer)


def _apply_tenant(world: World, request: global_pb2.ApplyTenantRequest, uid: str, now_ms: int) -> Decided | AtollError:
    wanted = complete_tenant(request.tenant)
    name = wanted.metadata.name
    if mistakes := [*mistakes_in_tenant(wanted), *mistakes_in_protection(wanted, world.records, world.summaries)]:
        return Invalid(f"tenant {name[:63]!r} is not valid", mistakes=tuple(mistakes))
    before = world.records.tenants.get(name)
    if error := stale(before, request.if_generation):
        return error
    unchanged = before is not None and same_wish(before, wanted)
    if unchanged and before is not None:
        answer = global_pb2.ApplyTenantResponse(tenant=before, outcome=UNCHANGED)
        answer.tenant.metadata.revision = world.records.mod(keys.tenant(name))
    else:
        changed = before is None or before.spec != wanted.spec
        carry_on(wanted.metadata, before, changed=changed, uid=uid, now_ms=now_ms)
        answer = global_pb2.ApplyTenantResponse(tenant=wanted, outcome=UPDATED if before else CREATED)
    money = purse(world.records.budgets.get(name)).with_target(limits(wanted.spec))
    record = record_of(request, request.request_id, answer, now_ms)
    written, budget = (None, None) if unchanged else (wanted, money.to_proto(name))
    return Decided(transactions.tenant(world.records, written, budget, name, record), answer)


def _delete_tenant(world: World, request: global_pb2.DeleteTenantRequest, now_ms: int) -> Decided | AtollError:
    before = world.records.tenants.get(request.name)
    if before is None:
        return NotFound(f"there is no tenant {request.name[:63]!r}")
    owned = world.records.workloads_of(request.name)
    if owned:
        return Conflict(
            f"tenant {request.name} still has {explain.counted(len(owned), 'workload')}",
            hint="delete its workloads first",
            code=IN_USE,
        )
    wanted = objects_pb2.Tenant()
    wanted.CopyFrom(before)
    wanted.metadata.deleted_ms = before.metadata.deleted_ms or now_ms
    record = record_of(request, request.request_id, answer := global_pb2.DeleteTenantResponse(), now_ms)
    return Decided(transactions.tenant(world.records, wanted, None, request.name, record), answer)


def _create_token(
    world: World, request: global_pb2.CreateUserTokenRequest, token: objects_pb2.UserToken, now_ms: int
) -> Decided | AtollError:
    mistakes = user_tokens.mistakes(request)
    if request.tenant:
        mistakes += _tenant_mistakes(world, request.tenant, "tenant")
    if mistakes:
        return Invalid("the token asked for is not valid", mistakes=tuple(mistakes))
    made = user_tokens.record(request, token, now_ms)
    answer = global_pb2.CreateUserTokenResponse(record=user_tokens.shown(made))
    kept = record_of(request, request.request_id, answer, now_ms)
    return Decided(transactions.token(world.records, made, kept), answer)


def _revoke_token(world: World, request: global_pb2.RevokeUserTokenRequest, now_ms: int) -> Decided | AtollError:
    before = world.records.tokens.get(request.id)
    if before is None:
        return NotFound(f"there is no user token {request.id[:63]!r}", hint="atoll auth token list")
    answer = global_pb2.RevokeUserTokenResponse(record=user_tokens.shown(before))
    kept = record_of(request, request.request_id, answer, now_ms)
    return Decided(transactions.revoke_one(world.records, request.id, kept), answer)
