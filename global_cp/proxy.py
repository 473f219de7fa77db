"""The Regional service as the global plane offers it: finds the region a call is for and passes it on.

Decides where a call goes when no region is named: to the only one, to those that hold the workload or the node, or to
all of them, page by page. What it means is decided there; the caller was authorized at this border. A change that was
passed on and not answered may have happened, and its caller is told so.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeVar

from google.protobuf.message import Message

from atoll.api.v1 import objects_pb2, regional_pb2_grpc
from atoll.api.v1 import regional_pb2 as pb
from atoll.errors import Expired, Invalid, Mistake, NotFound, Unavailable
from atoll.rpc import Context
from global_cp.core import views
from global_cp.core.records import Records
from global_cp.region_link import RegionLink
from global_cp.seat import Seat

Answer = TypeVar("Answer", bound=Message)
Page = TypeVar("Page", pb.ListNodesResponse, pb.ListSlotsResponse)
Gathered = TypeVar("Gathered", pb.ListQueueResponse, pb.ListJoinTokensResponse)
CHANGES = frozenset({"CreateJoinToken", "RevokeJoinToken", "UpdateNode", "RemoveNode"})


class RegionalProxy(regional_pb2_grpc.RegionalServicer):
    def __init__(self, seat: Seat, link: RegionLink, patience_s: float) -> None:
        """`patience_s`: so long one of several regions may be silent that are asked for one answer."""
        self._seat = seat
        self._link = link
        self._patience_s = patience_s

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        """Of every region when none is named."""
        records = (await self._seat.leading()).records
        named = [self._known(records, request.region)] if request.region else _all(records)
        return await self._paged("ListNodes", request, named, pb.ListNodesResponse)

    async def CreateJoinToken(self, request: pb.CreateJoinTokenRequest, context: Context) -> pb.CreateJoinTokenResponse:
        return await self._one("CreateJoinToken", request, pb.CreateJoinTokenResponse)

    async def ListJoinTokens(self, request: pb.ListJoinTokensRequest, context: Context) -> pb.ListJoinTokensResponse:
        """Of every region when none is named; one that cannot be asked is named."""
        records = (await self._seat.leading()).records
        named = [self._known(records, request.region)] if request.region else _all(records)
        return await self._gathered("ListJoinTokens", request, named, pb.ListJoinTokensResponse)

    async def RevokeJoinToken(self, request: pb.RevokeJoinTokenRequest, context: Context) -> pb.RevokeJoinTokenResponse:
        located = request if request.region else await self._having_token(request)
        return await self._one("RevokeJoinToken", located, pb.RevokeJoinTokenResponse)

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Context) -> pb.UpdateNodeResponse:
        return await self._one("UpdateNode", await self._located(request), pb.UpdateNodeResponse)

    async def RemoveNode(self, request: pb.RemoveNodeRequest, context: Context) -> pb.RemoveNodeResponse:
        return await self._one("RemoveNode", await self._located(request), pb.RemoveNodeResponse)

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        return await self._one("ListEvents", request, pb.ListEventsResponse)

    async def ListQueue(self, request: pb.ListQueueRequest, context: Context) -> pb.ListQueueResponse:
        """Of every region, or of those that hold the workload; one that cannot be asked is named."""
        if request.region or request.workload:
            regions = await self._holding(request)
        else:
            regions = _all((await self._seat.leading()).records)
        return await self._gathered("ListQueue", request, regions, pb.ListQueueResponse)

    async def _gathered(self, method: str, request: Any, regions: list[str], kind: type[Gathered]) -> Gathered:
        """What all of them say, and who cannot be asked. Raises Unavailable when that is the only one."""
        answer = kind()
        for region, said in (await self._ask_all(method, request, regions, kind)).items():
            if isinstance(said, kind):
                answer.MergeFrom(said)
            elif isinstance(said, Unavailable) and len(regions) > 1:
                answer.unreachable.append(region)
            elif isinstance(said, BaseException):
                raise said
        return answer

    async def _having_token(self, request: pb.RevokeJoinTokenRequest) -> pb.RevokeJoinTokenRequest:
        """With the region that made the token. Raises NotFound; Unavailable when one that may have it cannot be
        asked."""
        regions = _all((await self._seat.leading()).records)
        if len(regions) < 2:
            return request
        answer = await self._gathered("ListJoinTokens", pb.ListJoinTokensRequest(), regions, pb.ListJoinTokensResponse)
        located: pb.RevokeJoinTokenRequest = _copy(request)
        located.region = next((token.region for token in answer.tokens if token.id == request.id), "")
        if not located.region and answer.unreachable:
            raise Unavailable(f"{', '.join(answer.unreachable)} may have it, and cannot be asked")
        if not located.region:
            raise NotFound(f"no region has a join token {request.id[:63]!r}", hint="atoll node token list")
        return located

    async def Why(self, request: pb.WhyRequest, context: Context) -> pb.WhyResponse:
        """Of every region that holds the workload; one that cannot be asked does not hide what the others say, and
        NotFound is only what all of them do not have."""
        answer = pb.WhyResponse()
        missing: NotFound | None = None
        regions = await self._holding(request)
        for region, said in (await self._ask_all("Why", request, regions, pb.WhyResponse)).items():
            if isinstance(said, pb.WhyResponse):
                answer.slots.extend(said.slots)
            elif isinstance(said, NotFound):
                missing = said
            elif isinstance(said, Unavailable) and len(regions) > 1:
                answer.slots.append(_unreachable(request, region, said))
            else:
                raise said
        if missing and not answer.slots:
            raise missing
        return answer

    async def ListSlots(self, request: pb.ListSlotsRequest, context: Context) -> pb.ListSlotsResponse:
        """Of the regions that hold the workload or the tenant's work; of every tenant from all of them."""
        everywhere = not request.tenant and not request.region
        regions = _all((await self._seat.leading()).records) if everywhere else await self._holding(request)
        return await self._paged("ListSlots", request, regions, pb.ListSlotsResponse)

    async def _paged(self, method: str, request: Any, regions: list[str], kind: type[Page]) -> Page:
        """One region a page; the page's token says which region comes next, and where in it."""
        if not regions:
            return kind()
        region, _, inner = request.page_token.partition("/")
        region = region or regions[0]
        if region not in regions:
            raise Expired(f"region {region[:63]!r} is no longer among the pages", hint="list again")
        asked = _copy(request)
        asked.page_token = inner
        answer = await self._ask(method, asked, region, kind)
        later = regions[regions.index(region) + 1 :]
        if answer.next_page_token:
            answer.next_page_token = f"{region}/{answer.next_page_token}"
        elif later:
            answer.next_page_token = f"{later[0]}/"
        return answer

    async def Logs(self, request: pb.LogsRequest, context: Context) -> AsyncIterator[pb.LogsChunk]:
        region = await self._running(request, context)
        asked = _copy(request)
        asked.region = region
        async with aclosing(self._link.forward(region, "Logs", asked.SerializeToString())) as parts:
            async for part in parts:
                yield pb.LogsChunk.FromString(part)

    async def _one(self, method: str, request: Any, answer: type[Answer]) -> Answer:
        records = (await self._seat.leading()).records
        known = _all(records)
        if not request.region and len(known) != 1:
            raise _which(known)
        return await self._ask(method, request, self._known(records, request.region or known[0]), answer)

    async def _located(self, request: Any) -> Any:
        """With the region of the node it is about, where none is named and only one has such a node."""
        regions = _all((await self._seat.leading()).records)
        if request.region or len(regions) < 2:
            return request
        asked = pb.ListNodesRequest(name=request.name)
        answers = [(region, await self._ask("ListNodes", asked, region, pb.ListNodesResponse)) for region in regions]
        having = [region for region, answer in answers if answer.nodes]
        if not having:
            raise NotFound(f"no region has a node {request.name[:63]!r}", hint="atoll get nodes")
        if len(having) > 1:
            raise _which(having)
        located = _copy(request)
        located.region = having[0]
        return located

    async def _ask(self, method: str, request: Any, region: str, answer: type[Answer]) -> Answer:
        asked = _copy(request)
        asked.region = region
        body, changes = asked.SerializeToString(), method in CHANGES
        parts = [part async for part in self._link.forward(region, method, body, changes=changes)]
        if len(parts) != 1:
            raise Unavailable(f"region {region} gave {len(parts)} answers")
        return answer.FromString(parts[0])

    async def _ask_all(
        self, method: str, request: Any, regions: list[str], kind: type[Answer]
    ) -> dict[str, Answer | BaseException]:
        """What each says, all asked at once; one of several has less time, for its silence keeps the others waiting."""
        within_s = self._patience_s if len(regions) > 1 else None

        async def ask(region: str) -> Answer:
            try:
                async with asyncio.timeout(within_s):
                    return await self._ask(method, request, region, kind)
            except TimeoutError:
                raise Unavailable(f"region {region} did not answer in {within_s:g} s") from None

        said = await asyncio.gather(*map(ask, regions), return_exceptions=True)
        return dict(zip(regions, said, strict=True))

    async def _holding(self, request: Any) -> list[str]:
        """The regions a call about a tenant's work is for."""
        records = (await self._seat.leading()).records
        if request.region:
            return [self._known(records, request.region)]
        if request.workload and records.workloads.get(request.tenant, request.workload) is None:
            raise NotFound(
                f"tenant {request.tenant[:63]!r} has no workload {request.workload[:63]!r}",
                hint="atoll get workloads -A",
            )
        if not request.workload and not request.tenant:
            return _all(records)
        return views.regions_holding(records, request.tenant, request.workload)

    async def _running(self, request: pb.LogsRequest, context: Context) -> str:
        """The region that has the replica: the only one that holds the workload, or that says so when it is asked.
        Raises NotFound; Invalid when several regions have one of that index; Unavailable when none has, and one that
        may cannot be asked."""
        regions = await self._holding(request)
        if len(regions) == 1:
            return regions[0]
        question = pb.WhyRequest(tenant=request.tenant, workload=request.workload, task=request.task)
        question.index = request.index
        found = (await self.Why(question, context)).slots if regions else []
        having = [slot for slot in found if slot.id.index == request.index]
        places = sorted({slot.region for slot in having if slot.node} or {slot.region for slot in having})
        if len(places) > 1:
            raise _which(places)
        if places:
            return places[0]
        for silent in found:
            raise Unavailable(f"{silent.region} may have it, and cannot be asked: {silent.reasons[0].message}")
        raise NotFound(f"workload {request.workload[:63]!r} runs in no region")

    @staticmethod
    def _known(records: Records, region: str) -> str:
        if records.regions.get(region) is None:
            raise NotFound(f"there is no region {region[:63]!r}")
        return region


def _unreachable(request: pb.WhyRequest, region: str, error: Unavailable) -> pb.SlotWhy:
    slot = objects_pb2.SlotId(tenant=request.tenant, workload=request.workload, task=request.task, index=-1)
    reason = objects_pb2.PendingReason(code="RegionUnreachable", message=error.message, region=region)
    return pb.SlotWhy(id=slot, region=region, reasons=[reason])


def _all(records: Records) -> list[str]:
    return [name for (name,), _ in records.regions.items()]


def _copy(request: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy


def _which(regions: list[str]) -> Invalid:
    message = f"must be named; one of: {', '.join(regions)}" if regions else "has nothing there"
    return Invalid("the region is not clear", mistakes=(Mistake("region", message),))
