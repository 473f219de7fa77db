"""The Global service: reads from the leader's records, changes through the core.

Decides nothing but who answers: a standby answers Unavailable with the leader's address. Callers are authorized at the
border (atoll.rpc), which also completes and checks the tenant of every request.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from google.protobuf.message import Message

from atoll import tokens
from atoll.api.v1 import global_pb2 as pb
from atoll.api.v1 import global_pb2_grpc, objects_pb2
from atoll.authorization import mistake_in_grant
from atoll.errors import AtollError, Busy, Conflict, Invalid, Mistake, NotFound, OutcomeUnknown, Unavailable
from atoll.model.selectors import mistake_in_requirement
from atoll.rpc import Context, identity_of
from atoll.timeline import Timeline
from global_cp.config import Settings
from global_cp.core import policies, user_tokens, views
from global_cp.core.commands import Reply
from global_cp.core.events import MutationAsked
from global_cp.core.records import Records
from global_cp.seat import Seat
from global_cp.watches import WatchRing


class GlobalApi(global_pb2_grpc.GlobalServicer):
    def __init__(
        self,
        settings: Settings,
        seat: Seat,
        *,
        cluster: str,
        post: Callable[[MutationAsked], None],
        backlog: Callable[[], int],
        ring: Callable[[], WatchRing | None],
        timeline: Timeline,
    ) -> None:
        self._settings = settings
        self._seat = seat
        self._cluster = cluster
        self._post = post
        self._backlog = backlog
        self._ring = ring
        self._timeline = timeline
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._asked = 0

    def reply(self, reply: Reply) -> None:
        """The core's answer to a change."""
        waiting = self._waiting.get(reply.reply_to)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)

    # ---- changes

    async def ApplyWorkload(self, request: pb.ApplyWorkloadRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def ScaleWorkload(self, request: pb.ScaleWorkloadRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def DeleteWorkload(self, request: pb.DeleteWorkloadRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def ApplyTenant(self, request: pb.ApplyTenantRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def DeleteTenant(self, request: pb.DeleteTenantRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def UpdateRegion(self, request: pb.UpdateRegionRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def ApplyPolicy(self, request: pb.ApplyPolicyRequest, context: Context) -> Any:
        return (await self._change(request, by=identity_of(context).name)).answer

    async def PromotePolicy(self, request: pb.PromotePolicyRequest, context: Context) -> Any:
        return (await self._change(request, by=identity_of(context).name)).answer

    async def RollBackPolicy(self, request: pb.RollBackPolicyRequest, context: Context) -> Any:
        return (await self._change(request, by=identity_of(context).name)).answer

    async def CreateUserToken(self, request: pb.CreateUserTokenRequest, context: Context) -> Any:
        """The secret is made here and shown once; the core and the store only ever see its hash."""
        if mistake := mistake_in_grant(request.role, request.tenant):
            raise Invalid("the token asked for is not valid", mistakes=(Mistake("role", mistake),))
        token = tokens.mint_user()
        reply = await self._change(request, objects_pb2.UserToken(id=token.id, hash=token.hash()))
        if reply.replayed:
            raise Conflict("this token was made before, and its secret is shown once", hint="make another token")
        answer = pb.CreateUserTokenResponse(token=token.text())
        answer.MergeFrom(_as(pb.CreateUserTokenResponse, reply.answer))
        return answer

    async def RevokeUserToken(self, request: pb.RevokeUserTokenRequest, context: Context) -> Any:
        return (await self._change(request)).answer

    async def ListUserTokens(self, request: pb.ListUserTokensRequest, context: Context) -> pb.ListUserTokensResponse:
        records = await self._records()
        return pb.ListUserTokensResponse(tokens=map(user_tokens.shown, records.tokens), revision=records.revision)

    async def _change(self, request: Any, token: objects_pb2.UserToken | None = None, by: str = "") -> Reply:
        await self._seat.leading()
        if self._backlog() > self._settings.backlog_events:
            raise Busy("the global plane is busy", retry_after_ms=self._settings.busy_retry_ms)
        self._asked += 1
        reply_to = self._asked
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[reply_to] = waiting
        self._post(MutationAsked(reply_to, request, token, by))
        try:
            async with asyncio.timeout(self._settings.mutation_timeout_s):
                reply = await waiting
        except TimeoutError:
            raise OutcomeUnknown(
                f"no answer from the store in {self._settings.mutation_timeout_s:g} s",
                hint="ask again with the same request id",
                request_id=request.request_id,
            ) from None
        finally:
            del self._waiting[reply_to]
        if isinstance(reply.answer, AtollError):
            raise reply.answer
        return reply

    # ---- reads

    async def GetWorkload(self, request: pb.GetWorkloadRequest, context: Context) -> objects_pb2.Workload:
        records = await self._records(request.min_revision)
        found = views.workload(records, request.tenant, request.name)
        if found is None:
            raise NotFound(
                f"tenant {request.tenant[:63]!r} has no workload {request.name[:63]!r}", hint="atoll get workloads -A"
            )
        return found

    async def ListWorkloads(self, request: pb.ListWorkloadsRequest, context: Context) -> pb.ListWorkloadsResponse:
        """Pages are in order of tenant and name; each is of the revision it tells."""
        _check_selector(request.selector)
        reign = await self._seat.leading()
        records = reign.records
        size = min(request.page_size, self._settings.page_size)
        size = size if size > 0 else self._settings.page_size
        tenant, _, name = request.page_token.partition("/")
        found = views.workloads(records, request.tenant, request.selector, (tenant, name), size + 1)
        answer = pb.ListWorkloadsResponse(workloads=found[:size], revision=reign.complete_revision)
        if len(found) > size:
            last = found[size - 1].metadata
            answer.next_page_token = f"{last.tenant}/{last.name}"
        return answer

    async def WatchWorkloads(
        self, request: pb.WatchWorkloadsRequest, context: Context
    ) -> AsyncIterator[pb.WorkloadEvent]:
        await self._seat.leading()
        ring = self._ring()
        if ring is None:
            raise Unavailable("leadership was lost")
        async with aclosing(ring.follow(request.tenant, request.since_revision)) as events:
            async for event in events:
                yield event

    async def GetTenant(self, request: pb.GetTenantRequest, context: Context) -> objects_pb2.Tenant:
        found = views.tenant(await self._records(), request.name)
        if found is None:
            raise NotFound(f"there is no tenant {request.name[:63]!r}")
        return found

    async def ListTenants(self, request: pb.ListTenantsRequest, context: Context) -> pb.ListTenantsResponse:
        records = await self._records()
        found = [views.tenant(records, name) for (name,), _ in records.tenants.items()]
        return pb.ListTenantsResponse(tenants=[t for t in found if t], revision=records.revision)

    async def ListRegions(self, request: pb.ListRegionsRequest, context: Context) -> pb.ListRegionsResponse:
        reign = await self._seat.leading()
        records, regions = reign.records, reign.regions
        found = [
            views.region(records, name, regions.summaries.get(name), regions.is_connected(name))
            for (name,), _ in records.regions.items()
        ]
        return pb.ListRegionsResponse(regions=[r for r in found if r], revision=records.revision)

    async def GetPolicy(self, request: pb.GetPolicyRequest, context: Context) -> objects_pb2.SchedulerPolicy:
        found = policies.shown(await self._records(), request.policy_revision)
        if found is None:
            raise NotFound(f"there is no policy revision {request.policy_revision}", hint="atoll policy list")
        return found

    async def ListPolicies(self, request: pb.ListPoliciesRequest, context: Context) -> pb.ListPoliciesResponse:
        records = await self._records()
        found, force = policies.all_shown(records), policies.in_force(records)
        return pb.ListPoliciesResponse(policies=found, in_force=force, revision=records.revision)

    async def ListGlobalEvents(
        self, request: pb.ListGlobalEventsRequest, context: Context
    ) -> pb.ListGlobalEventsResponse:
        await self._seat.leading()

        def wanted(event: objects_pb2.Event) -> bool:
            return request.tenant in ("", event.tenant) and event.object.startswith(request.object)

        limit = min(request.limit, self._settings.timeline_events)
        limit = limit if limit > 0 else self._settings.page_size
        found = self._timeline.select(wanted, after_seq=request.after_seq, limit=limit)
        return pb.ListGlobalEventsResponse(events=found)

    async def WhoAmI(self, request: pb.WhoAmIRequest, context: Context) -> pb.WhoAmIResponse:
        caller = identity_of(context)
        return pb.WhoAmIResponse(name=caller.name, role=caller.role, tenant=caller.tenant, cluster=self._cluster)

    async def _records(self, min_revision: int = 0) -> Records:
        records = (await self._seat.leading()).records
        if records.revision < min_revision:
            raise Unavailable(f"revision {min_revision} is not reached here yet", hint="try again")
        return records


def _check_selector(selector: Any) -> None:
    mistakes = [
        Mistake(f"selector[{index}]", mistake)
        for index, requirement in enumerate(selector)
        if (mistake := mistake_in_requirement(requirement))
    ]
    if mistakes:
        raise Invalid("the selector is not valid", mistakes=tuple(mistakes))


def _as(kind: type[pb.CreateUserTokenResponse], answer: Message | AtollError) -> pb.CreateUserTokenResponse:
    assert isinstance(answer, kind)
    return answer
