"""Writes asked for by the API: a plan, or a change of a node, goes to the core, which commits it and replies.

Decides nothing. The core replies to every write asked of it, also when its leadership ends. A caller waits at most
`deadline_ms`; when the time is over before the reply came, the outcome is unknown to the caller, and it is told so.
"""

import asyncio
from collections.abc import Callable
from typing import cast

from google.protobuf.message import Message

from atoll.api.v1 import regional_pb2
from atoll.errors import Conflict, OutcomeUnknown, Unavailable, require
from atoll.lane import Plan
from regional.core.commands import Reply
from regional.core.events import NodeChangeAsked, WriteAsked


class GuardedWrites:
    def __init__(self, post: Callable[[WriteAsked | NodeChangeAsked], None], *, deadline_ms: int) -> None:
        self._post = post
        self._deadline_s = deadline_ms / 1000
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._count = 0

    async def write(self, plan: Plan) -> int:
        """The revision of the commit. Raises Conflict or Unavailable (not written), or OutcomeUnknown."""
        reply = await self._ask(lambda reply_to: WriteAsked(reply_to, plan), plan.operation)
        if reply.error:
            raise Conflict(f"{plan.operation} was not written: {reply.error}")
        return reply.revision

    async def change_node(self, request: regional_pb2.UpdateNodeRequest | regional_pb2.RemoveNodeRequest) -> Message:
        """The response. Raises NotFound, Conflict, Unavailable, or OutcomeUnknown with the request's id."""
        try:
            reply = await self._ask(lambda reply_to: NodeChangeAsked(reply_to, request), "the change of the node")
        except OutcomeUnknown as unknown:
            unknown.request_id = request.request_id
            raise
        if reply.refusal:
            raise reply.refusal
        require(reply.answer is not None, "a change of a node has an answer or a refusal")
        return cast("Message", reply.answer)

    async def _ask(self, event: Callable[[int], WriteAsked | NodeChangeAsked], what: str) -> Reply:
        """Raises OutcomeUnknown, Unavailable (not written)."""
        self._count += 1
        reply_to = self._count
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[reply_to] = answer
        self._post(event(reply_to))
        try:
            async with asyncio.timeout(self._deadline_s):
                reply = await answer
        except TimeoutError:
            raise OutcomeUnknown(f"{what}: no answer from the store in {self._deadline_s:g} s") from None
        finally:
            del self._waiting[reply_to]
        if reply.unknown:
            raise OutcomeUnknown(f"{what}: {reply.error}")
        if reply.unsent:
            raise Unavailable(f"{what} was not written: {reply.error}")
        return reply

    def settle(self, reply: Reply) -> None:
        answer = self._waiting.get(reply.reply_to)
        if answer is not None and not answer.done():
            answer.set_result(reply)
