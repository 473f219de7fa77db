"""Guarded writes asked for by the API: a plan goes to the core, which commits it under its authority and replies.

Decides nothing. The core replies to every write asked of it, also when its leadership ends. A caller waits at most
`deadline_ms`; when the time is over before the reply came, the outcome is unknown to the caller, and it is told so.
"""

import asyncio
from collections.abc import Callable

from atoll.errors import Conflict, OutcomeUnknown, Unavailable
from atoll.lane import Plan
from regional.core.commands import Reply
from regional.core.events import WriteAsked


class GuardedWrites:
    def __init__(self, post: Callable[[WriteAsked], None], *, deadline_ms: int) -> None:
        self._post = post
        self._deadline_s = deadline_ms / 1000
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._count = 0

    async def write(self, plan: Plan) -> int:
        """The revision of the commit. Raises Conflict or Unavailable (not written), or OutcomeUnknown."""
        self._count += 1
        reply_to = self._count
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[reply_to] = answer
        self._post(WriteAsked(reply_to, plan))
        try:
            async with asyncio.timeout(self._deadline_s):
                reply = await answer
        except TimeoutError:
            raise OutcomeUnknown(f"{plan.operation}: no answer from the store in {self._deadline_s:g} s") from None
        finally:
            del self._waiting[reply_to]
        if reply.unknown:
            raise OutcomeUnknown(f"{plan.operation}: {reply.error}")
        if reply.unsent:
            raise Unavailable(f"{plan.operation} was not written: {reply.error}")
        if reply.error:
            raise Conflict(f"{plan.operation} was not written: {reply.error}")
        return reply.revision

    def settle(self, reply: Reply) -> None:
        answer = self._waiting.get(reply.reply_to)
        if answer is not None and not answer.done():
            answer.set_result(reply)
