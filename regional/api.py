"""What the region answers to users: nodes and their changes, slots, why, events, logs, join tokens.

Decides nothing: answers are views of the core's state and of the edges beside it, served by the leader only; changes
of nodes go to the core. Who may
ask is decided before (atoll.authorization, at this server or at the global plane that forwards the call); there a
caller with a tenant is held to it, so here the request's tenant is the limit of what is shown, and none means all.
"""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, cast

from google.protobuf.message import DecodeError, Message

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.clock import Clock
from atoll.errors import Invalid, Mistake, NotFound, NotPlaced, Unavailable
from atoll.leadership import Leadership
from atoll.model.slots import SlotName, slot_name
from atoll.rpc import Context
from atoll.timeline import Timeline
from regional.config import Settings
from regional.core import node_changes, views
from regional.core.machine import Machine
from regional.core.queue_views import list_queue
from regional.core.state import State
from regional.dispatcher import Dispatcher
from regional.join import Enrolment
from regional.journal import Journal
from regional.writes import GuardedWrites

_Unary = Callable[[Any], Awaitable[Message]]


class RegionalApi(regional_pb2_grpc.RegionalServicer):
    def __init__(
        self,
        settings: Settings,
        leadership: Leadership,
        machine: Machine,
        journal: Journal,
        timeline: Timeline,
        dispatcher: Dispatcher,
        enrolment: Enrolment,
        writes: GuardedWrites,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._leadership = leadership
        self._machine = machine
        self._journal = journal
        self._timeline = timeline
        self._dispatcher = dispatcher
        self._enrolment = enrolment
        self._writes = writes
        self._clock = clock
        self._forwarded: dict[str, tuple[type[Message], _Unary]] = {
            "ListNodes": (regional_pb2.ListNodesRequest, self._list_nodes),
            "ListSlots": (regional_pb2.ListSlotsRequest, self._list_slots),
            "Why": (regional_pb2.WhyRequest, self._why),
            "ListQueue": (regional_pb2.ListQueueRequest, self._list_queue),
            "ListEvents": (regional_pb2.ListEventsRequest, self._list_events),
            "CreateJoinToken": (regional_pb2.CreateJoinTokenRequest, self._create_join_token),
            "ListJoinTokens": (regional_pb2.ListJoinTokensRequest, self._list_join_tokens),
            "RevokeJoinToken": (regional_pb2.RevokeJoinTokenRequest, self._revoke_join_token),
            "UpdateNode": (regional_pb2.UpdateNodeRequest, self._change_node),
            "RemoveNode": (regional_pb2.RemoveNodeRequest, self._change_node),
        }

    # ---- as a server

    async def ListNodes(
        self, request: regional_pb2.ListNodesRequest, context: Context
    ) -> regional_pb2.ListNodesResponse:
        return await self._list_nodes(request)

    async def ListSlots(
        self, request: regional_pb2.ListSlotsRequest, context: Context
    ) -> regional_pb2.ListSlotsResponse:
        return await self._list_slots(request)

    async def Why(self, request: regional_pb2.WhyRequest, context: Context) -> regional_pb2.WhyResponse:
        return await self._why(request)

    async def ListQueue(
        self, request: regional_pb2.ListQueueRequest, context: Context
    ) -> regional_pb2.ListQueueResponse:
        return await self._list_queue(request)

    async def ListEvents(
        self, request: regional_pb2.ListEventsRequest, context: Context
    ) -> regional_pb2.ListEventsResponse:
        return await self._list_events(request)

    async def Logs(self, request: regional_pb2.LogsRequest, context: Context) -> AsyncIterator[regional_pb2.LogsChunk]:
        async with contextlib.aclosing(self._logs(request)) as parts:
            async for data in parts:
                yield regional_pb2.LogsChunk(data=data)

    async def CreateJoinToken(
        self, request: regional_pb2.CreateJoinTokenRequest, context: Context
    ) -> regional_pb2.CreateJoinTokenResponse:
        return await self._create_join_token(request)

    async def ListJoinTokens(
        self, request: regional_pb2.ListJoinTokensRequest, context: Context
    ) -> regional_pb2.ListJoinTokensResponse:
        return await self._list_join_tokens(request)

    async def RevokeJoinToken(
        self, request: regional_pb2.RevokeJoinTokenRequest, context: Context
    ) -> regional_pb2.RevokeJoinTokenResponse:
        return await self._revoke_join_token(request)

    async def UpdateNode(
        self, request: regional_pb2.UpdateNodeRequest, context: Context
    ) -> regional_pb2.UpdateNodeResponse:
        return cast("regional_pb2.UpdateNodeResponse", await self._change_node(request))

    async def RemoveNode(
        self, request: regional_pb2.RemoveNodeRequest, context: Context
    ) -> regional_pb2.RemoveNodeResponse:
        return cast("regional_pb2.RemoveNodeResponse", await self._change_node(request))

    # ---- forwarded by the global plane

    async def answer(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]:
        """The serialized responses of `method`, for a caller that is authorized. Raises AtollError."""
        try:
            if method == "Logs":
                async with contextlib.aclosing(self._logs(regional_pb2.LogsRequest.FromString(request))) as parts:
                    async for data in parts:
                        yield regional_pb2.LogsChunk(data=data).SerializeToString()
                return
            if method not in self._forwarded:
                raise Invalid(f"a region does not know {method!r}", code="E1015")
            kind, call = self._forwarded[method]
            parsed = kind.FromString(request)
        except DecodeError as error:
            raise Invalid(f"the request of {method} cannot be read") from error
        yield (await call(parsed)).SerializeToString()

    # ---- the answers

    async def _list_nodes(self, request: regional_pb2.ListNodesRequest) -> regional_pb2.ListNodesResponse:
        state, size = await self._state(request.region), self._bounded(request.page_size)
        now_ms, after = self._clock.now_ms(), request.page_token
        nodes = views.list_nodes(state, now_ms, name=request.name, after=after, limit=size + 1)
        following = nodes[size - 1].metadata.name if len(nodes) > size else ""
        return regional_pb2.ListNodesResponse(nodes=nodes[:size], next_page_token=following, revision=state.revision)

    async def _list_slots(self, request: regional_pb2.ListSlotsRequest) -> regional_pb2.ListSlotsResponse:
        state, size = await self._state(request.region), self._bounded(request.page_size)
        after = _last_shown(request.page_token)
        slots = views.list_slots(
            state, request.tenant, request.workload, node=request.node, after=after, limit=size + 1
        )
        following = str(slot_name(slots[size - 1].slot.id)) if len(slots) > size else ""
        return regional_pb2.ListSlotsResponse(slots=slots[:size], next_page_token=following, revision=state.revision)

    async def _why(self, request: regional_pb2.WhyRequest) -> regional_pb2.WhyResponse:
        """The state's answer, each slot with the last decision about it. Raises NotFound."""
        state = await self._state(request.region)
        answer = views.why(state, request, self._clock.now_ms(), limit=self._settings.page_items)
        if not answer.slots:
            raise self._not_found(request)
        for slot in answer.slots:
            if decision := self._journal.last(slot_name(slot.id)):
                slot.decision.CopyFrom(decision)
        return answer

    async def _list_queue(self, request: regional_pb2.ListQueueRequest) -> regional_pb2.ListQueueResponse:
        """All that waits; of the items no more than one page."""
        answer = list_queue(await self._state(request.region), request, self._clock.now_ms())
        del answer.items[self._settings.page_items :]
        return answer

    async def _list_events(self, request: regional_pb2.ListEventsRequest) -> regional_pb2.ListEventsResponse:
        await self._state(request.region)

        def wanted(event: objects_pb2.Event) -> bool:
            return request.tenant in ("", event.tenant) and event.object.startswith(request.object)

        events = self._timeline.select(wanted, after_seq=request.after_seq, limit=self._bounded(request.limit))
        return regional_pb2.ListEventsResponse(events=events)

    async def _logs(self, request: regional_pb2.LogsRequest) -> AsyncGenerator[bytes, None]:
        """What the agent has of the slot's output, also when it has ended; what does not run is not followed. Raises
        NotFound, NotPlaced, Unavailable."""
        state = await self._state(request.region)
        asked = regional_pb2.WhyRequest(
            tenant=request.tenant, workload=request.workload, task=request.task, index=request.index
        )
        found = views.why(state, asked, self._clock.now_ms(), limit=1).slots
        if not found:
            raise self._not_found(request)
        node = views.last_node(state, found[0].id)
        if not node:
            raise NotPlaced(f"{slot_name(found[0].id)} has run on no node yet")
        follow = request.follow and found[0].state == objects_pb2.SLOT_STATE_BOUND
        query = agent_pb2.LogQuery(slot=found[0].id, tail_lines=request.tail_lines, follow=follow)
        async with contextlib.aclosing(self._dispatcher.logs(node, query)) as parts:
            async for data in parts:
                yield data

    async def _create_join_token(
        self, request: regional_pb2.CreateJoinTokenRequest
    ) -> regional_pb2.CreateJoinTokenResponse:
        await self._state(request.region)
        return await self._enrolment.create(request)

    async def _list_join_tokens(
        self, request: regional_pb2.ListJoinTokensRequest
    ) -> regional_pb2.ListJoinTokensResponse:
        await self._state(request.region)
        return regional_pb2.ListJoinTokensResponse(tokens=await self._enrolment.tokens())

    async def _revoke_join_token(
        self, request: regional_pb2.RevokeJoinTokenRequest
    ) -> regional_pb2.RevokeJoinTokenResponse:
        await self._state(request.region)
        return regional_pb2.RevokeJoinTokenResponse(record=await self._enrolment.revoke(request.id))

    async def _change_node(self, request: regional_pb2.UpdateNodeRequest | regional_pb2.RemoveNodeRequest) -> Message:
        await self._state(request.region)
        if mistakes := node_changes.mistakes(request):
            raise Invalid("the node cannot be changed so", tuple(mistakes))
        return await self._writes.change_node(request)

    async def _state(self, region: str) -> State:
        """The leader's. Raises NotFound for another region, Unavailable on a standby."""
        if region not in ("", self._settings.region):
            raise NotFound(f"this is region {self._settings.region}, not {region[:63]!r}")
        await self._leadership.require_leading()
        if self._machine.state is None:
            raise Unavailable("the region's leader is about to resign")
        return self._machine.state

    def _not_found(self, asked: regional_pb2.WhyRequest | regional_pb2.LogsRequest) -> NotFound:
        name = "/".join(part[:63] for part in (asked.tenant, asked.workload, asked.task) if part)
        what = f"replica {asked.index}" if asked.index >= 0 else "replica"
        hint = f"atoll get slots {asked.workload[:63]} -t {asked.tenant[:63]}"
        return NotFound(f"region {self._settings.region} has no {what} of {name}", hint=hint)

    def _bounded(self, asked: int) -> int:
        return min(asked, self._settings.page_items) if asked > 0 else self._settings.page_items


def _last_shown(token: str) -> SlotName | None:
    """The slot that a page token names: the last one of the page before."""
    if not token:
        return None
    parts = token.split("/")
    if len(parts) != 4 or not parts[3].isdecimal():
        raise Invalid("this page token was not given by this call", (Mistake("page_token", "is malformed"),))
    return SlotName(parts[0], parts[1], parts[2], int(parts[3]))
