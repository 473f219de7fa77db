"""One call to a server, made good: deadlines, retries, and an honest word when nobody can know.

Reads are asked again until their deadline. A write is asked again only because its request id makes the second the
same as the first; when the deadline ends and one of the tries may have arrived, that is OutcomeUnknown, never a guess.
A write without a request id is asked again only when it certainly never left.
"""

import asyncio
import random
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio

from atoll import errors, rpc
from atoll.sdk.servers import NO_ANSWER, Servers

ATTEMPT_S = 10.0  # one try, where there is nobody else to turn to
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
SILENT_S = 1.0  # without an answer, when the caller gives up
TURN_S = 3.0  # one of several servers is given so long to connect, and to answer; twice as long at every try
LEAST_TRY_S = 0.1  # a write that is tried with less time than this has an outcome that nobody knows
NEVER_LEFT = (
    "failed to connect to all addresses",
    "DNS resolution failed",
    "name resolution failed",
    "errors resolving",
)
RETRIED = (errors.Unavailable, errors.Busy, errors.OutcomeUnknown)

Answer = TypeVar("Answer")


class Method(Protocol[Answer]):
    """A unary method of a generated stub."""

    def __call__(self, request: Any, *, timeout: float | None = None) -> grpc.aio.UnaryUnaryCall[Any, Answer]: ...


class _Unanswered(Exception):
    """The deadline ended. `unsure`: one of the tries may have been acted on."""

    def __init__(self, error: errors.AtollError, unsure: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsure = unsure


class Caller:
    """Calls to one of several servers. When none was ever reached, they are given `reach_s` to be there, whatever the
    deadline."""

    def __init__(self, servers: Servers, reach_s: float) -> None:
        self._servers = servers
        self._reach_s = reach_s
        self._reached = False

    async def read(self, method: Method[Answer], request: Any, *, deadline_s: float) -> Answer:
        """Raises the server's error; Unavailable or Busy when the deadline ends without an answer."""
        try:
            return await self._ask(method, request, deadline_s, repeatable=True)
        except _Unanswered as unanswered:
            raise unanswered.error from None

    async def write(self, method: Method[Answer], request: Any, *, request_id: str, deadline_s: float) -> Answer:
        """Raises the server's error; Unavailable or Busy when it certainly did not happen; OutcomeUnknown when it may
        have. Without a request id it is not sent again once it may have happened."""
        try:
            return await self._ask(method, request, deadline_s, repeatable=bool(request_id))
        except _Unanswered as unanswered:
            error = unanswered.error
            if not unanswered.unsure:
                raise error from None
            again = f"ask again with --request-id {request_id}: it is done once, and you get its answer"
            hint = again if request_id else "look what is there before you ask again"
            raise errors.OutcomeUnknown(error.message, request_id=request_id, hint=hint) from None

    async def _ask(self, method: Method[Answer], request: Any, deadline_s: float, *, repeatable: bool) -> Answer:
        clock = asyncio.get_running_loop().time
        began, pause_s, unsure = clock(), FIRST_PAUSE_S, False
        patience_s = TURN_S if repeatable and not self._servers.alone else ATTEMPT_S

        def left_s() -> float:
            within_s = deadline_s if self._reached else min(deadline_s, self._reach_s)
            return max(began + within_s - clock(), 0.001)

        while True:
            error: errors.AtollError
            tried = clock()
            try:
                await self._connect(left_s() if self._servers.alone else min(TURN_S, left_s()))
                answer = await method(request, timeout=min(patience_s, left_s()))
                self._servers.answered()
                return answer
            except asyncio.CancelledError:
                if clock() - tried > SILENT_S:  # the caller has lost patience with this server
                    self._servers.turn(errors.Unavailable("no answer"), silent=True)
                raise
            except grpc.aio.AioRpcError as broken:
                error = rpc.error_of(broken)
                unsure = unsure or may_have_happened(error)
                timed_out = broken.code() is grpc.StatusCode.DEADLINE_EXCEEDED and error.code == NO_ANSWER
                patience_s = min(patience_s * 2, ATTEMPT_S) if timed_out else patience_s  # slow, perhaps, and not gone
                self._servers.turn(error, silent=timed_out)
            except errors.Unavailable as not_connected:
                error = not_connected
                self._servers.turn(error, silent=True)
            if not isinstance(error, RETRIED):
                raise error
            told_s = error.retry_after_ms / 1000 * random.uniform(1.0, 1.5)  # many were told the same
            wait_s = max(told_s, pause_s * random.uniform(0.5, 1.0))
            if (unsure and not repeatable) or wait_s + LEAST_TRY_S >= left_s():
                raise _Unanswered(error, unsure)
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _connect(self, within_s: float) -> None:
        """Waits until the channel is connected or has failed to be, so that no request is stuck in a dead one."""
        channel = self._servers.channel
        try:
            async with asyncio.timeout(within_s):
                state = channel.get_state(try_to_connect=True)
                while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                self._reached = self._reached or state is grpc.ChannelConnectivity.READY
        except TimeoutError:
            raise errors.Unavailable("the connection could not be made in time") from None


def may_have_happened(error: errors.AtollError) -> bool:
    """Whether the call may have reached a server that acted on it and could not say so."""
    if error.code == NO_ANSWER:
        return not any(text in error.message for text in NEVER_LEFT)
    return isinstance(error, errors.OutcomeUnknown)
