"""I11: what the global plane has accepted is in force until a user supersedes it.

At every revision: a workload or a tenant changes only together with the record of a request for it that a user made,
and becomes what that request says; a request is recorded once; nothing is forgotten but what was deleted, and only when
nothing of it is bound anywhere. At every answer: what it promises is recorded at the revision it names, and the same
request id has the same answer. So no accepted change is ever lost, done twice, or undone by a later leader.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Literal

from google.protobuf.message import Message

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.store import keys
from atoll.store.store import Batch, Change
from global_cp.core import transactions
from simulation import recovery
from simulation.schedules import ScheduleChecks
from simulation.users import Call
from simulation.violated import Violated

if TYPE_CHECKING:
    from simulation.world import World

RESPONSES: dict[str, Any] = {
    "ApplyWorkloadRequest": global_pb2.ApplyWorkloadResponse,
    "ScaleWorkloadRequest": global_pb2.ApplyWorkloadResponse,
    "DeleteWorkloadRequest": global_pb2.DeleteWorkloadResponse,
    "ResumeJobRequest": global_pb2.ApplyWorkloadResponse,
    "ApplyTenantRequest": global_pb2.ApplyTenantResponse,
    "DeleteTenantRequest": global_pb2.DeleteTenantResponse,
    "UpdateRegionRequest": global_pb2.UpdateRegionResponse,
    "CreateUserTokenRequest": global_pb2.CreateUserTokenResponse,
    "RevokeUserTokenRequest": global_pb2.RevokeUserTokenResponse,
    "ApplyPolicyRequest": global_pb2.ApplyPolicyResponse,
    "PromotePolicyRequest": global_pb2.ChangePolicyResponse,
    "RollBackPolicyRequest": global_pb2.ChangePolicyResponse,
}
AVAILABLE = objects_pb2.QUOTA_MODE_AVAILABLE
FLAGS: tuple[Literal["cordoned", "draining"], ...] = ("cordoned", "draining")


class Promises:
    def __init__(self, world: "World") -> None:
        self._world = world
        self.workloads: dict[tuple[str, str], objects_pb2.Workload] = {}  # as stored
        self.tenants: dict[str, objects_pb2.Tenant] = {}
        self.tokens: dict[str, objects_pb2.UserToken] = {}
        self.schedules = ScheduleChecks(world)
        self.forgotten: set[str] = set()  # uids of workloads that were deleted, closed everywhere and forgotten

    # ---- at every revision of the global plane's store

    def look(self, batch: Batch) -> None:
        recorded = [self._recorded(change) for change in batch.changes if change.key.startswith(b"/g/request/")]
        calls = [call for call in recorded if call is not None]
        by_workload: defaultdict[tuple[str, str] | None, list[Call]] = defaultdict(list)
        for call in calls:
            by_workload[workload_of(call)].append(call)
        request = calls[0] if len(calls) == 1 else None  # only those about workloads share a revision
        for change in batch.changes:
            _, _, kind, *path = change.key.decode().split("/")
            if kind == "workload":
                self._workload((path[0], path[1]), change, by_workload[path[0], path[1]])
            elif kind == "region":
                self._region(change, request)
            elif kind == "tenant":
                self._tenant(path[0], change, request)
            elif kind == "token":
                self._token(path[0], change, request)

    def _recorded(self, change: Change) -> Call | None:
        if change.item is None:
            return None  # swept after its time
        request_id = change.key.decode().rpartition("/")[2]
        if change.previous is not None:
            raise Violated(f"I11: request {request_id} is done twice")
        call = self._world.users.calls.get(request_id)
        if call is None:
            raise Violated(f"I11: request {request_id} was asked by nobody")
        return call

    def _workload(self, path: tuple[str, str], change: Change, calls: list[Call]) -> None:
        """Of several requests about it in one revision all but one found that there was nothing to change."""
        before = self.workloads.pop(path, None)
        if change.item is None:
            if before is None or not before.metadata.deleted_ms:
                raise Violated(f"I11: workload {path} is gone though nobody deleted it")
            if slot := self._world.checkers.bound_of(before.metadata.uid):
                raise Violated(f"I7: workload {path} is forgotten while {slot} is bound")
            self.forgotten.add(before.metadata.uid)
            return
        after = self.workloads[path] = objects_pb2.Workload.FromString(change.item.value)
        requests: list[Message | None] = [call.request for call in calls] or [None]
        self._world.checkers.jobs.accepted(after)
        recovery.look_at_admission(before, after)
        if not any(self._is_done(path, before, after, asked) for asked in requests):
            raise Violated(f"I11: workload {path} has become what nobody asked for")
        if before is not None and before.metadata.deleted_ms and not after.metadata.deleted_ms:
            raise Violated(f"I11: workload {path} is back though its deletion was accepted")

    def _is_done(
        self,
        path: tuple[str, str],
        before: objects_pb2.Workload | None,
        after: objects_pb2.Workload,
        asked: Message | None,
    ) -> bool:
        match asked:
            case global_pb2.ApplyWorkloadRequest():
                named, done = asked.workload.metadata, wish(after.spec) == wish(asked.workload.spec)
            case global_pb2.ScaleWorkloadRequest() if before is not None:
                wanted = objects_pb2.Workload()
                wanted.CopyFrom(before)
                wanted.spec.tasks[0].replicas = asked.replicas
                named, done = objects_pb2.Metadata(tenant=asked.tenant, name=asked.name), after.spec == wanted.spec
            case global_pb2.DeleteWorkloadRequest() if before is not None:
                named = objects_pb2.Metadata(tenant=asked.tenant, name=asked.name)
                done = bool(after.metadata.deleted_ms) and after.spec == before.spec
            case global_pb2.ResumeJobRequest() if before is not None:
                wanted = objects_pb2.Workload()
                wanted.CopyFrom(before)
                wanted.spec.resumed = after.metadata.generation
                named, done = objects_pb2.Metadata(tenant=asked.tenant, name=asked.name), after.spec == wanted.spec
            case None if before is None:
                named, done = after.metadata, self.schedules.begins(after, self.workloads)
            case None if before is not None and self._may_expire(path, before):
                named = before.metadata
                done = bool(after.metadata.deleted_ms) and after.spec == before.spec
            case _:
                raise Violated(f"I11: workload {path} changed, and nobody asked for it")
        return done and (named.tenant, named.name) == path

    def _may_expire(self, path: tuple[str, str], job: objects_pb2.Workload) -> bool:
        """A job with a time to live that has ended at its present generation; or a run that its schedule ends."""
        item = self._world.global_state.get(keys.status(*path))
        status = objects_pb2.WorkloadStatus.FromString(item.value if item else b"").job
        current = status.generation == job.metadata.generation
        if self.schedules.may_go(job, self.workloads) and not job.metadata.deleted_ms:
            return True
        return bool(job.spec.time_to_live_s and status.ended_ms and current and not job.metadata.deleted_ms)

    @staticmethod
    def _region(change: Change, call: Call | None) -> None:
        """A region's record is its own word until an operator changes it; from then on only operators do."""
        before, after = (
            objects_pb2.Region.FromString(item.value if item else b"") for item in (change.previous, change.item)
        )
        name, asked = after.metadata.name, call.request if call else None
        if after.metadata.generation == before.metadata.generation or change.previous is None:
            done = (after.cordoned, after.draining) == (before.cordoned, before.draining)
        elif isinstance(asked, global_pb2.UpdateRegionRequest) and asked.name == name:
            done = all(getattr(after, flag) == getattr(asked, flag) for flag in FLAGS if asked.HasField(flag))
        else:
            done = False
        if not done:
            raise Violated(f"I11: region {name} has become what nobody asked for")

    def _tenant(self, name: str, change: Change, call: Call | None) -> None:
        before = self.tenants.pop(name, None)
        if change.item is None:
            if before is None or not before.metadata.deleted_ms:
                raise Violated(f"I11: tenant {name} is gone though nobody deleted it")
            return
        after = self.tenants[name] = objects_pb2.Tenant.FromString(change.item.value)
        match call.request if call else None:
            case global_pb2.ApplyTenantRequest() as asked:
                spec, wanted = after.spec, asked.tenant.spec
                same = (spec.quota, spec.weight, spec.mode) == (wanted.quota, wanted.weight, wanted.mode or AVAILABLE)
                same = same and list(spec.protected) == sorted(wanted.protected, key=lambda part: part.region)
                done = asked.tenant.metadata.name == name and same
            case global_pb2.DeleteTenantRequest() as asked:
                done = asked.name == name and bool(after.metadata.deleted_ms)
            case _:
                done = False
        if not done:
            raise Violated(f"I11: tenant {name} has become what nobody asked for")

    def _token(self, token_id: str, change: Change, call: Call | None) -> None:
        before = self.tokens.pop(token_id, None)
        asked = call.request if call else None
        if change.item is None:
            owner = self.tenants.get(before.tenant) if before else None
            asked_for = isinstance(asked, global_pb2.RevokeUserTokenRequest) and asked.id == token_id
            done = asked_for or owner is None or bool(owner.metadata.deleted_ms)
        else:
            after = self.tokens[token_id] = objects_pb2.UserToken.FromString(change.item.value)
            wanted = asked if isinstance(asked, global_pb2.CreateUserTokenRequest) else None
            done = before is None and wanted is not None
            done = (
                done
                and wanted is not None
                and (after.name, after.role, after.tenant) == (wanted.name, wanted.role, wanted.tenant)
            )
            self._world.checkers.seen["tokens"] += 1
        if not done:
            raise Violated(f"I11: token {token_id} has come or gone, and nobody asked for it")

    # ---- at every answer

    def answered(self, call: Call, kind: str, data: bytes) -> None:
        if call.answer and call.answer != (kind, data):
            raise Violated(f"I11: {call.method} has two different answers: {call.answer[1]!r} and {data!r}")
        response = RESPONSES[call.method]
        if kind != response.__name__:
            raise Violated(f"I11: {call.method} was answered with {kind}")
        tenant, request_id = path_of(call)
        item = self._world.global_state.get(keys.request(tenant, request_id))
        answer = response.FromString(data)
        revision = getattr(answer, "revision", item.mod_revision if item else 0)  # a new token's has none
        if item is None or item.mod_revision != revision:
            raise Violated(f"I11: {request_id} was promised at revision {revision}, and is not recorded there")


def path_of(call: Call) -> tuple[str, str]:
    """Tenant and request id."""
    match call.request:
        case global_pb2.ApplyWorkloadRequest() as asked:
            return asked.workload.metadata.tenant, asked.request_id
        case global_pb2.ApplyTenantRequest() as asked:
            return asked.tenant.metadata.name, asked.request_id
        case global_pb2.DeleteTenantRequest() as asked:
            return asked.name, asked.request_id
        case global_pb2.CreateUserTokenRequest() as asked:
            return asked.tenant or transactions.CLUSTER, asked.request_id
        case global_pb2.UpdateRegionRequest() | global_pb2.RevokeUserTokenRequest() as asked:
            return transactions.CLUSTER, asked.request_id
        case (
            global_pb2.ApplyPolicyRequest()
            | global_pb2.PromotePolicyRequest()
            | global_pb2.RollBackPolicyRequest() as asked
        ):
            return transactions.CLUSTER, asked.request_id
        case asked:
            return asked.tenant, asked.request_id  # type: ignore[attr-defined]  # of a workload


def workload_of(call: Call) -> tuple[str, str] | None:
    """Which workload the call is about."""
    match call.request:
        case global_pb2.ApplyWorkloadRequest() as asked:
            return asked.workload.metadata.tenant, asked.workload.metadata.name
        case (
            global_pb2.ScaleWorkloadRequest() | global_pb2.DeleteWorkloadRequest() | global_pb2.ResumeJobRequest()
        ) as asked:
            return asked.tenant, asked.name
    return None


def wish(spec: objects_pb2.WorkloadSpec) -> tuple[object, ...]:
    """What users say; the rest of a stored spec are defaults."""
    fixed = sum(count.replicas for count in spec.spread.fixed)
    tasks = [
        (
            task.name,
            task.replicas or task.completions or fixed,
            tuple(task.command),
            tuple(task.args),
            task.resources.requests.SerializeToString(),
        )
        for task in spec.tasks
    ]
    spread = spec.spread.SerializeToString(deterministic=True)
    return (spec.type, spec.priority, spec.run_class, spec.recovery, tuple(spec.regions), spread, tuple(tasks))
