"""A global plane in memory behind the real border: what clients are tested against without etcd or regions.

Verified by tests/contracts/sdk, which holds it and the real programs to the same contract. Workloads serve as soon as
they are applied, unless `placing` is off. `lose_answers` makes it act on writes and say nothing, `refuse` makes it
refuse before it acts: the two things a client must tell apart.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from atoll import errors, rpc
from atoll.api.v1 import global_pb2, global_pb2_grpc, objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.clock import SystemClock
from global_cp.core import policies
from tests.support.global_core import GlobalCore
from tests.support.pki import Pki

RING = 50
STAGES = ("Admitted", "Bound", "Ready", "Serving", "Started")


class FakeGlobal(global_pb2_grpc.GlobalServicer):
    """One tenant `default`, no quota. Revisions count changes."""

    def __init__(self) -> None:
        self.revision = 10
        self.workloads: dict[tuple[str, str], objects_pb2.Workload] = {}
        self.tenants: dict[str, objects_pb2.Tenant] = {}
        self.requests: dict[str, tuple[bytes, Any]] = {}
        self.events: deque[global_pb2.WorkloadEvent] = deque(maxlen=RING)
        self.news = asyncio.Condition()
        self.placing = True
        self.regions = ["r1"]
        self.summaries: dict[str, objects_pb2.RegionSummary] = {}
        self.away: set[str] = set()
        self.lose_answers = 0
        self.refuse = 0
        self.full_ms = 0  # > 0: its queues are full, and it says to come again after so long
        self.break_watches_after = 0  # events
        self.writes_seen = 0
        self.policies = GlobalCore()  # which decides about policies, and nothing else
        self.policies.elect()
        for session, region in enumerate(self.regions):
            self.policies.connect(session, region)
        self.reads_seen = 0

    async def ApplyWorkload(self, request: global_pb2.ApplyWorkloadRequest, context: Any) -> Any:
        return await self._write(request, context, self._apply)

    async def ScaleWorkload(self, request: global_pb2.ScaleWorkloadRequest, context: Any) -> Any:
        return await self._write(request, context, self._scale)

    async def DeleteWorkload(self, request: global_pb2.DeleteWorkloadRequest, context: Any) -> Any:
        return await self._write(request, context, self._delete)

    async def GetWorkload(self, request: global_pb2.GetWorkloadRequest, context: Any) -> objects_pb2.Workload:
        self._maybe_refuse()
        return self._found(request.tenant, request.name)

    async def ListWorkloads(self, request: global_pb2.ListWorkloadsRequest, context: Any) -> Any:
        self._maybe_refuse()
        keys = sorted(key for key in self.workloads if request.tenant in ("", key[0]))
        first = int(request.page_token or 0)
        size = request.page_size or len(keys)
        page = [self.workloads[key] for key in keys[first : first + size]]
        more = str(first + size) if first + size < len(keys) else ""
        return global_pb2.ListWorkloadsResponse(workloads=page, next_page_token=more, revision=self.revision)

    async def WatchWorkloads(
        self, request: global_pb2.WatchWorkloadsRequest, context: Any
    ) -> AsyncIterator[global_pb2.WorkloadEvent]:
        sent, seen = 0, request.since_revision
        oldest = self.events[0].revision if len(self.events) == RING else 0
        if seen and seen < oldest:
            raise errors.Expired(f"revision {seen} is gone")
        if not seen:
            for key in sorted(self.workloads):
                yield global_pb2.WorkloadEvent(
                    type=global_pb2.EVENT_TYPE_EXISTS, workload=self.workloads[key], revision=self.revision
                )
            seen = self.revision
            yield global_pb2.WorkloadEvent(type=global_pb2.EVENT_TYPE_PROGRESS, revision=seen)
        while True:
            for event in [e for e in self.events if e.revision > seen]:
                yield event
                seen, sent = event.revision, sent + 1
                if 0 < self.break_watches_after <= sent:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
            async with self.news:
                await self.news.wait_for(lambda seen=seen: self.revision > seen)  # type: ignore[misc]

    async def ApplyTenant(self, request: global_pb2.ApplyTenantRequest, context: Any) -> Any:
        return await self._write(request, context, self._apply_tenant)

    async def GetTenant(self, request: global_pb2.GetTenantRequest, context: Any) -> objects_pb2.Tenant:
        if request.name not in self.tenants:
            raise errors.NotFound(f"there is no tenant {request.name!r}")
        return self.tenants[request.name]

    async def DeleteTenant(self, request: global_pb2.DeleteTenantRequest, context: Any) -> Any:
        return await self._write(request, context, self._delete_tenant)

    async def ListGlobalEvents(self, request: Any, context: Any) -> global_pb2.ListGlobalEventsResponse:
        return global_pb2.ListGlobalEventsResponse()

    async def ListTenants(self, request: global_pb2.ListTenantsRequest, context: Any) -> Any:
        return global_pb2.ListTenantsResponse(tenants=self.tenants.values(), revision=self.revision)

    async def ListRegions(self, request: global_pb2.ListRegionsRequest, context: Any) -> Any:
        regions = [
            objects_pb2.Region(
                metadata=objects_pb2.Metadata(name=name),
                epoch=1,
                state=objects_pb2.REGION_STATE_ACTIVE,
                connected=name not in self.away,
                summary=self.summaries.get(name),
            )
            for name in self.regions
        ]
        return global_pb2.ListRegionsResponse(regions=regions, revision=self.revision)

    async def UpdateRegion(self, request: global_pb2.UpdateRegionRequest, context: Any) -> Any:
        return await self._write(request, context, self._update_region)

    async def ApplyPolicy(self, request: global_pb2.ApplyPolicyRequest, context: Any) -> Any:
        return await self._write(request, context, self._decided)

    async def PromotePolicy(self, request: global_pb2.PromotePolicyRequest, context: Any) -> Any:
        return await self._write(request, context, self._decided)

    async def RollBackPolicy(self, request: global_pb2.RollBackPolicyRequest, context: Any) -> Any:
        return await self._write(request, context, self._decided)

    async def GetPolicy(self, request: global_pb2.GetPolicyRequest, context: Any) -> objects_pb2.SchedulerPolicy:
        found = policies.shown(self.policies.records, request.policy_revision)
        if found is None:
            raise errors.NotFound(f"there is no policy revision {request.policy_revision}")
        return found

    async def ListPolicies(self, request: global_pb2.ListPoliciesRequest, context: Any) -> Any:
        records = self.policies.records
        return global_pb2.ListPoliciesResponse(
            policies=policies.all_shown(records), in_force=policies.in_force(records), revision=self.revision
        )

    async def WhoAmI(self, request: global_pb2.WhoAmIRequest, context: Any) -> global_pb2.WhoAmIResponse:
        caller = rpc.identity_of(context)
        return global_pb2.WhoAmIResponse(name=caller.name, role=caller.role, tenant=caller.tenant, cluster="test")

    # ---- what the methods share

    async def _write(self, request: Any, context: Any, act: Any) -> Any:
        self.writes_seen += 1
        self._maybe_refuse()
        body = request.SerializeToString(deterministic=True)
        known = self.requests.get(request.request_id)
        if known is not None and known[0] != body:
            raise errors.Conflict(f"request id {request.request_id} was used for another request")
        answer = known[1] if known is not None else act(request)
        if not getattr(request, "dry_run", False):
            self.requests[request.request_id] = (body, answer)
        async with self.news:
            self.news.notify_all()
        if self.lose_answers:
            self.lose_answers -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
        return answer

    def _maybe_refuse(self) -> None:
        self.reads_seen += 1
        if self.refuse:
            self.refuse -= 1
            raise errors.Unavailable("not the leader")
        if self.full_ms:
            raise errors.Busy("too many replicas wait in r1", retry_after_ms=self.full_ms, code="E5012")

    def _found(self, tenant: str, name: str) -> objects_pb2.Workload:
        if (tenant, name) not in self.workloads:
            raise errors.NotFound(f"tenant {tenant!r} has no workload {name!r}")
        return self.workloads[tenant, name]

    def _apply(self, request: global_pb2.ApplyWorkloadRequest) -> global_pb2.ApplyWorkloadResponse:
        asked = request.workload
        if not asked.metadata.name.islower():
            raise errors.Invalid("not valid", mistakes=(errors.Mistake("metadata.name", "is not allowed"),))
        before = self.workloads.get((asked.metadata.tenant, asked.metadata.name))
        if request.if_generation and (before is None or before.metadata.generation != request.if_generation):
            raise errors.Conflict("the generation is another one")
        if before is not None and before.spec == asked.spec and before.metadata.labels == asked.metadata.labels:
            return global_pb2.ApplyWorkloadResponse(workload=before, revision=self.revision, outcome="unchanged")
        outcome = "created" if before is None else "updated"
        stored = objects_pb2.Workload()
        stored.CopyFrom(asked)
        stored.metadata.generation = before.metadata.generation + 1 if before is not None else 1
        stored.metadata.uid = before.metadata.uid if before is not None else f"uid-{self.revision}"
        if not request.dry_run:
            self.put(stored)
        return global_pb2.ApplyWorkloadResponse(workload=stored, revision=self.revision, outcome=outcome)

    def _scale(self, request: global_pb2.ScaleWorkloadRequest) -> global_pb2.ApplyWorkloadResponse:
        stored = objects_pb2.Workload()
        stored.CopyFrom(self._found(request.tenant, request.name))
        stored.spec.tasks[0].replicas = request.replicas
        stored.metadata.generation += 1
        self.put(stored)
        return global_pb2.ApplyWorkloadResponse(workload=stored, revision=self.revision, outcome="updated")

    def _delete(self, request: global_pb2.DeleteWorkloadRequest) -> global_pb2.DeleteWorkloadResponse:
        gone = self._found(request.tenant, request.name)
        del self.workloads[request.tenant, request.name]
        self._publish(global_pb2.EVENT_TYPE_DELETED, gone)
        return global_pb2.DeleteWorkloadResponse(revision=self.revision)

    def _apply_tenant(self, request: global_pb2.ApplyTenantRequest) -> global_pb2.ApplyTenantResponse:
        outcome = "updated" if request.tenant.metadata.name in self.tenants else "created"
        if not request.dry_run:
            self.tenants[request.tenant.metadata.name] = request.tenant
        return global_pb2.ApplyTenantResponse(tenant=request.tenant, revision=self.revision, outcome=outcome)

    def _decided(self, request: Any) -> Any:
        """By the real core."""
        answer = self.policies.ask(request)
        if isinstance(answer, errors.AtollError):
            raise answer
        return answer

    def _update_region(self, request: global_pb2.UpdateRegionRequest) -> global_pb2.UpdateRegionResponse:
        region = objects_pb2.Region(metadata=objects_pb2.Metadata(name=request.name), cordoned=request.cordoned)
        return global_pb2.UpdateRegionResponse(region=region, revision=self.revision, outcome="updated")

    def _delete_tenant(self, request: global_pb2.DeleteTenantRequest) -> global_pb2.DeleteTenantResponse:
        if self.tenants.pop(request.name, None) is None:
            raise errors.NotFound(f"there is no tenant {request.name!r}")
        return global_pb2.DeleteTenantResponse(revision=self.revision)

    def put(self, workload: objects_pb2.Workload) -> None:
        """Stores it with its status and tells the watchers."""
        count = sum(task.replicas for task in workload.spec.tasks)
        status = objects_pb2.WorkloadStatus(observed_generation=workload.metadata.generation)
        true = objects_pb2.CONDITION_STATUS_TRUE
        for stage in STAGES if self.placing else STAGES[:1]:
            status.conditions.add(type=stage, status=true)
        if self.placing:
            counts = objects_pb2.SlotCounts(desired=count, bound=count, started=count, ready=count, serving=count)
        else:
            counts = objects_pb2.SlotCounts(desired=count, waiting=count)
            status.pending.add(code="InsufficientMemory", nodes=3, message="without enough free memory; lacks 2Gi")
        status.counts.CopyFrom(counts)
        workload.status.CopyFrom(status)
        self.workloads[workload.metadata.tenant, workload.metadata.name] = workload
        self._publish(global_pb2.EVENT_TYPE_CHANGED, workload)

    def _publish(self, kind: Any, workload: objects_pb2.Workload) -> None:
        self.revision += 1
        self.events.append(global_pb2.WorkloadEvent(type=kind, workload=workload, revision=self.revision))


class FakeRegion(regional_pb2_grpc.RegionalServicer):
    """Answers from what a test puts into it."""

    def __init__(self) -> None:
        self.why = regional_pb2.WhyResponse()
        self.mute = ""  # a region that gives no answer about events
        self.events_asked: list[str] = []
        self.queue = regional_pb2.ListQueueResponse()
        self.queue_asked = regional_pb2.ListQueueRequest()
        self.slots_asked = regional_pb2.ListSlotsRequest()
        self.tokens = regional_pb2.ListJoinTokensResponse()
        self.slots = [
            regional_pb2.SlotView(
                slot=objects_pb2.Slot(
                    id=objects_pb2.SlotId(tenant="default", workload="hello", task="main", index=index),
                    state=objects_pb2.SLOT_STATE_BOUND,
                    node="n\x1b[2J1",
                )
            )
            for index in range(3)
        ]

    async def ListSlots(self, request: regional_pb2.ListSlotsRequest, context: Any) -> Any:
        self.slots_asked = request
        first = int(request.page_token or 0)
        more = str(first + 2) if first + 2 < len(self.slots) else ""
        return regional_pb2.ListSlotsResponse(slots=self.slots[first : first + 2], next_page_token=more)

    async def ListQueue(self, request: regional_pb2.ListQueueRequest, context: Any) -> regional_pb2.ListQueueResponse:
        self.queue_asked = request
        return self.queue

    async def Why(self, request: regional_pb2.WhyRequest, context: Any) -> regional_pb2.WhyResponse:
        return self.why

    async def ListEvents(self, request: regional_pb2.ListEventsRequest, context: Any) -> Any:
        self.events_asked.append(request.region)
        if request.region == self.mute:
            await asyncio.Event().wait()  # never: whoever asks has to give up
        event = objects_pb2.Event(at_ms=1, type="Placed", object=f"of {request.region}", seq=1)
        return regional_pb2.ListEventsResponse(events=[event])

    async def ListNodes(self, request: Any, context: Any) -> regional_pb2.ListNodesResponse:
        return regional_pb2.ListNodesResponse()

    async def ListJoinTokens(self, request: Any, context: Any) -> regional_pb2.ListJoinTokensResponse:
        return self.tokens

    async def Logs(self, request: regional_pb2.LogsRequest, context: Any) -> AsyncIterator[regional_pb2.LogsChunk]:
        yield regional_pb2.LogsChunk(data=b"one\n")
        yield regional_pb2.LogsChunk(data=b"two\n")


class FakeCluster:
    """Both, served with TLS on loopback ports; `token` is an admin's."""

    def __init__(self, folder: Path) -> None:
        self.plane = FakeGlobal()  # type: ignore[abstract]  # what no test asks for is not there
        self.region = FakeRegion()  # type: ignore[abstract]
        self._pki = Pki(folder)
        self.ca = self._pki.ca
        self.token = self._pki.user("root", objects_pb2.ROLE_ADMIN)
        self._server = rpc.Server(self._pki.global_plane(), self._pki.find_user, SystemClock())
        self._server.add(global_pb2_grpc.add_GlobalServicer_to_server, self.plane)
        self._server.add(regional_pb2_grpc.add_RegionalServicer_to_server, self.region)
        self.address = ""

    async def start(self) -> None:
        await self._server.start("127.0.0.1:0", "127.0.0.1:0")
        self.address = self._server.people_address

    async def stop(self) -> None:
        await self._server.stop(0)
