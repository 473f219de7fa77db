"""Everything but workloads and nodes: tenants, regions, slots, reasons, events, logs and tokens."""

from collections.abc import AsyncGenerator, Mapping, Sequence

import grpc.aio

from atoll import rpc
from atoll.api.v1 import global_pb2, global_pb2_grpc, objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.manifest import schema
from atoll.sdk.calls import Caller
from atoll.sdk.workloads import DEADLINE_S, PAGE_SIZE, new_request_id


class Tenants:
    def __init__(self, caller: Caller, stub: "global_pb2_grpc.GlobalAsyncStub") -> None:
        self._caller = caller
        self._stub = stub

    async def apply(
        self, tenant: objects_pb2.Tenant, *, request_id: str = "", dry_run: bool = False, if_generation: int = 0
    ) -> global_pb2.ApplyTenantResponse:
        """Creates or updates. Raises Invalid, Conflict, NotAllowed, Unavailable, OutcomeUnknown."""
        message = schema.without_server_fields(tenant)
        request_id = request_id or new_request_id()
        request = global_pb2.ApplyTenantRequest(
            tenant=message, request_id=request_id, dry_run=dry_run, if_generation=if_generation
        )
        return await self._caller.write(self._stub.ApplyTenant, request, request_id=request_id, deadline_s=DEADLINE_S)

    async def get(self, name: str) -> objects_pb2.Tenant:
        """Raises NotFound."""
        request = global_pb2.GetTenantRequest(name=name)
        return await self._caller.read(self._stub.GetTenant, request, deadline_s=DEADLINE_S)

    async def list(self) -> list[objects_pb2.Tenant]:
        request = global_pb2.ListTenantsRequest()
        return list((await self._caller.read(self._stub.ListTenants, request, deadline_s=DEADLINE_S)).tenants)

    async def delete(self, name: str, *, request_id: str = "") -> int:
        """The revision of its end. Raises NotFound, Conflict (it still has workloads)."""
        request_id = request_id or new_request_id()
        request = global_pb2.DeleteTenantRequest(name=name, request_id=request_id)
        write = self._caller.write(self._stub.DeleteTenant, request, request_id=request_id, deadline_s=DEADLINE_S)
        return (await write).revision


class Regions:
    def __init__(self, caller: Caller, stub: "global_pb2_grpc.GlobalAsyncStub") -> None:
        self._caller = caller
        self._stub = stub

    async def list(self) -> list[objects_pb2.Region]:
        request = global_pb2.ListRegionsRequest()
        return list((await self._caller.read(self._stub.ListRegions, request, deadline_s=DEADLINE_S)).regions)

    async def update(
        self,
        name: str,
        *,
        cordoned: bool | None = None,
        draining: bool | None = None,
        labels: Mapping[str, str] | None = None,
        removed_labels: Sequence[str] = (),
        request_id: str = "",
    ) -> global_pb2.UpdateRegionResponse:
        """Changes what is given; the rest stays. Draining cordons too. Raises NotFound, Invalid, NotAllowed."""
        request_id = request_id or new_request_id()
        request = global_pb2.UpdateRegionRequest(
            name=name,
            request_id=request_id,
            cordoned=cordoned,
            draining=draining,
            labels=[objects_pb2.Label(key=key, value=value) for key, value in sorted((labels or {}).items())],
            removed_labels=removed_labels,
        )
        return await self._caller.write(self._stub.UpdateRegion, request, request_id=request_id, deadline_s=DEADLINE_S)


class Slots:
    """The replicas: where each one is, and how it fares."""

    def __init__(self, caller: Caller, stub: "regional_pb2_grpc.RegionalAsyncStub", tenant: str) -> None:
        self._caller = caller
        self._stub = stub
        self._tenant = tenant

    async def why(
        self, workload: str, *, index: int = -1, task: str = "", node: str = "", tenant: str = "", region: str = ""
    ) -> list[regional_pb2.SlotWhy]:
        """Why slots are where they are, and why waiting ones wait. `index` -1 = all. Raises NotFound."""
        request = regional_pb2.WhyRequest(
            region=region, tenant=tenant or self._tenant, workload=workload, task=task, index=index, node=node
        )
        return list((await self._caller.read(self._stub.Why, request, deadline_s=DEADLINE_S)).slots)

    async def logs(
        self,
        workload: str,
        *,
        index: int = 0,
        task: str = "",
        tail_lines: int = 0,
        follow: bool = False,
        tenant: str = "",
        region: str = "",
    ) -> AsyncGenerator[bytes, None]:
        """What the replica wrote. A broken stream is not resumed, for a place in a log has no name: Unavailable."""
        call = self._stub.Logs(
            regional_pb2.LogsRequest(
                region=region,
                tenant=tenant or self._tenant,
                workload=workload,
                task=task,
                index=index,
                tail_lines=tail_lines,
                follow=follow,
            )
        )
        try:
            async for chunk in call:
                yield chunk.data
        except grpc.aio.AioRpcError as broken:
            raise rpc.error_of(broken) from None
        finally:
            call.cancel()

    async def list(
        self,
        *,
        workload: str = "",
        tenant: str = "",
        everywhere: bool = False,
        region: str = "",
        page_within_s: float = DEADLINE_S,
    ) -> list[regional_pb2.SlotView]:
        """All pages; of all workloads of the tenant when none is named. `everywhere`: of every tenant, for
        operators. Raises Unavailable when a page does not come in time."""
        tenant = "" if everywhere else tenant or self._tenant
        request = regional_pb2.ListSlotsRequest(region=region, tenant=tenant, workload=workload, page_size=PAGE_SIZE)
        found: list[regional_pb2.SlotView] = []
        while True:
            page = await self._caller.read(self._stub.ListSlots, request, deadline_s=page_within_s)
            found.extend(page.slots)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token


class Queue:
    """What waits to be placed."""

    def __init__(self, caller: Caller, stub: "regional_pb2_grpc.RegionalAsyncStub", tenant: str) -> None:
        self._caller = caller
        self._stub = stub
        self._tenant = tenant

    async def list(
        self, *, tenant: str | None = None, workload: str = "", region: str = ""
    ) -> regional_pb2.ListQueueResponse:
        """Whose turn it is and what waits, in that order, of one tenant (None = one's own, "" = all, for operators) or
        of one workload. Raises NotFound, Unavailable."""
        own = self._tenant if tenant is None else tenant
        request = regional_pb2.ListQueueRequest(region=region, tenant=own, workload=workload)
        return await self._caller.read(self._stub.ListQueue, request, deadline_s=DEADLINE_S)


class Events:
    def __init__(
        self,
        caller: Caller,
        everywhere: "global_pb2_grpc.GlobalAsyncStub",
        stub: "regional_pb2_grpc.RegionalAsyncStub",
        tenant: str,
    ) -> None:
        self._caller = caller
        self._everywhere = everywhere
        self._stub = stub
        self._tenant = tenant

    async def list(
        self,
        *,
        object: str = "",
        limit: int = 0,
        after: int = 0,
        tenant: str = "",
        everywhere: bool = False,
        region: str = "",
        within_s: float = DEADLINE_S,
    ) -> list[objects_pb2.Event]:
        """What happened, oldest first, as far back as the region remembers. `object` is a prefix; `after` a seq.
        `everywhere`: of every tenant and of nodes, for operators. Raises Unavailable when no answer comes in time."""
        tenant = "" if everywhere else tenant or self._tenant
        request = regional_pb2.ListEventsRequest(
            region=region, tenant=tenant, object=object, limit=limit, after_seq=after
        )
        return list((await self._caller.read(self._stub.ListEvents, request, deadline_s=within_s)).events)

    async def list_global(
        self, *, object: str = "", limit: int = 0, after: int = 0, tenant: str = "", everywhere: bool = False
    ) -> Sequence[objects_pb2.Event]:
        """What happened at the global plane itself, likewise: notices that were given up and, with `everywhere`,
        changes of the policy."""
        tenant = "" if everywhere else tenant or self._tenant
        request = global_pb2.ListGlobalEventsRequest(tenant=tenant, object=object, limit=limit, after_seq=after)
        answer = await self._caller.read(self._everywhere.ListGlobalEvents, request, deadline_s=DEADLINE_S)
        return answer.events


class Tokens:
    """Secrets are in the answer once and are stored nowhere."""

    def __init__(
        self,
        caller: Caller,
        stub: "global_pb2_grpc.GlobalAsyncStub",
        regional: "regional_pb2_grpc.RegionalAsyncStub",
    ) -> None:
        self._caller = caller
        self._stub = stub
        self._regional = regional

    async def create_user(
        self, name: str, role: objects_pb2.Role.ValueType, *, tenant: str = "", ttl_s: int = 0, request_id: str = ""
    ) -> global_pb2.CreateUserTokenResponse:
        request_id = request_id or new_request_id()
        request = global_pb2.CreateUserTokenRequest(
            name=name, role=role, tenant=tenant, ttl_s=ttl_s, request_id=request_id
        )
        return await self._caller.write(
            self._stub.CreateUserToken, request, request_id=request_id, deadline_s=DEADLINE_S
        )

    async def list_user(self) -> list[objects_pb2.UserToken]:
        """All, without their hashes."""
        request = global_pb2.ListUserTokensRequest()
        return list((await self._caller.read(self._stub.ListUserTokens, request, deadline_s=DEADLINE_S)).tokens)

    async def revoke_user(self, token_id: str, *, request_id: str = "") -> objects_pb2.UserToken:
        """The token is refused from then on, everywhere. Raises NotFound."""
        request_id = request_id or new_request_id()
        request = global_pb2.RevokeUserTokenRequest(id=token_id, request_id=request_id)
        write = self._caller.write(self._stub.RevokeUserToken, request, request_id=request_id, deadline_s=DEADLINE_S)
        return (await write).record

    async def create_join(
        self,
        *,
        region: str = "",
        pool: str = "",
        node: str = "",
        ttl_s: int,
        labels: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> regional_pb2.CreateJoinTokenResponse:
        """A token with which one node may join, once. Asked again with the same request id it is the same token."""
        request_id = request_id or new_request_id()
        request = regional_pb2.CreateJoinTokenRequest(
            region=region,
            pool=pool,
            node=node,
            ttl_s=ttl_s,
            labels=[objects_pb2.Label(key=key, value=value) for key, value in sorted((labels or {}).items())],
            request_id=request_id,
        )
        return await self._caller.write(
            self._regional.CreateJoinToken, request, request_id=request_id, deadline_s=DEADLINE_S
        )

    async def list_join(self, *, region: str = "") -> regional_pb2.ListJoinTokensResponse:
        """Join tokens that have not expired, used and revoked ones too; of every region when none is named. One that
        cannot be asked is in `unreachable`."""
        request = regional_pb2.ListJoinTokensRequest(region=region)
        return await self._caller.read(self._regional.ListJoinTokens, request, deadline_s=DEADLINE_S)

    async def revoke_join(self, token_id: str, *, region: str = "", request_id: str = "") -> objects_pb2.JoinToken:
        """No node joins with it any more; one that did stays. `region` may be left out. Raises NotFound."""
        request_id = request_id or new_request_id()
        request = regional_pb2.RevokeJoinTokenRequest(region=region, id=token_id, request_id=request_id)
        write = self._caller.write(
            self._regional.RevokeJoinToken, request, request_id=request_id, deadline_s=DEADLINE_S
        )
        return (await write).record

    async def whoami(self) -> global_pb2.WhoAmIResponse:
        return await self._caller.read(self._stub.WhoAmI, global_pb2.WhoAmIRequest(), deadline_s=DEADLINE_S)
