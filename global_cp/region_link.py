"""The streams to the regions: what the core says goes down, what they say comes up, and users' calls pass through.

Decides nothing about regions: the core says which session counts. Invariants: one queue a session keeps the core's
order; a region speaks under the name in its certificate; a forwarded call ends when its session does, with an error.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeAlias

import structlog
from prometheus_client import Gauge

from atoll.api.v1 import agent_pb2, global_pb2, regional_pb2, regional_pb2_grpc
from atoll.errors import AtollError, Conflict, Invalid, NotAllowed, NotPlaced, OutcomeUnknown, Unavailable
from atoll.rpc import Context, identity_of
from atoll.status import STATUS, told_as
from global_cp.config import Settings
from global_cp.core.commands import CloseSession, SendDown
from global_cp.core.events import Event, RegionConnected, RegionGone, RegionSaid
from global_cp.seat import Seat

SESSIONS = Gauge("atoll_global_region_sessions", "Regions connected to this process.")

Up: TypeAlias = regional_pb2.UplinkMessage
Down: TypeAlias = regional_pb2.DownlinkMessage
Answer: TypeAlias = regional_pb2.ForwardAnswer | AtollError
_FAMILIES: dict[str, type[AtollError]] = {
    "E1": Invalid,
    "E2": NotPlaced,
    "E3": Conflict,
    "E4": NotAllowed,
    "E5": Unavailable,
}
_log = structlog.get_logger()


class _Session:
    """One region's stream. `forwards`: calls that wait for this region's answers."""

    def __init__(self, session_id: int, region: str, queue_limit: int) -> None:
        self.id = session_id
        self.region = region
        self.closed = ""  # why, once it is
        self.forwards: dict[int, asyncio.Queue[Answer]] = {}
        self._queue: deque[Down] = deque()
        self._queue_limit = queue_limit
        self._listing = True  # all that the region has to know is on its way, however much that is
        self._news = asyncio.Event()

    def send(self, message: Down) -> None:
        if len(self._queue) >= self._queue_limit and not self._listing:
            self.close("the region does not read fast enough")
            return
        self._queue.append(message)
        self._news.set()

    def close(self, reason: str) -> None:
        """What was queued before still goes out."""
        self.closed = self.closed or reason
        self._news.set()

    async def messages(self) -> AsyncGenerator[Down, None]:
        """Until closed."""
        while True:
            while self._queue:
                message = self._queue.popleft()
                self._listing = self._listing and message.WhichOneof("body") != "listed"
                yield message
            if self.closed:
                return
            self._news.clear()
            await self._news.wait()


class RegionLink(regional_pb2_grpc.UplinkServicer):
    def __init__(
        self, settings: Settings, seat: Seat, *, post: Callable[[Event], None], backlog: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._seat = seat
        self._post = post
        self._backlog = backlog
        self._sessions: dict[int, _Session] = {}
        self._session_ids = 0
        self._forward_ids = 0

    # ---- commands of the core

    def send(self, command: SendDown) -> None:
        if session := self._sessions.get(command.session):
            session.send(command.message)

    def close(self, command: CloseSession) -> None:
        if session := self._sessions.get(command.session):
            session.close(command.reason)

    # ---- the stream

    async def Session(self, request_iterator: AsyncIterator[Up], context: Context) -> AsyncIterator[Down]:
        region = identity_of(context).region
        hello = await self._hello(request_iterator, region)
        if self._standby():
            yield await self._not_leader()
            return
        self._session_ids += 1
        session = self._sessions[self._session_ids] = _Session(self._session_ids, region, self._settings.downlink_queue)
        SESSIONS.set(len(self._sessions))
        _log.info("region connected", region=region, session=session.id, term=hello.term)
        self._post(RegionConnected(session.id, region, hello))
        reading = asyncio.create_task(self._read(session, request_iterator))
        try:
            async with contextlib.aclosing(session.messages()) as messages:
                async for message in messages:
                    yield message
        finally:
            reading.cancel()
            self._end(session)
        if self._standby():
            yield await self._not_leader()
            return
        raise Unavailable(f"the session was ended: {session.closed}")

    def _standby(self) -> bool:
        return self._seat.reign is None

    async def _not_leader(self) -> Down:
        return Down(not_leader=agent_pb2.NotLeader(address=await self._seat.leader_address()))

    async def _hello(self, messages: AsyncIterator[Up], region: str) -> regional_pb2.RegionHello:
        try:
            async with asyncio.timeout(self._settings.hello_timeout_s):
                first = await anext(aiter(messages), Up())
        except TimeoutError:
            raise Invalid("the first message did not come in time") from None
        if first.WhichOneof("body") != "hello":
            raise Invalid("the first message must be RegionHello")
        if first.hello.region != region:
            raise NotAllowed(f"the certificate is of region {region!r}, the hello of {first.hello.region[:63]!r}")
        return first.hello

    async def _read(self, session: _Session, messages: AsyncIterator[Up]) -> None:
        """Until the region ends its side. Reads no faster than the core handles."""
        async for message in messages:
            if message.WhichOneof("body") == "answer":
                if waiting := session.forwards.get(message.answer.id):
                    _offer(waiting, message.answer)
                continue
            self._post(RegionSaid(session.id, message))
            while self._backlog() > self._settings.backlog_events:  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # the loop tells nobody that it has caught up
        session.close("the region ended the stream")

    def _end(self, session: _Session) -> None:
        del self._sessions[session.id]
        SESSIONS.set(len(self._sessions))
        _log.info("region gone", region=session.region, session=session.id, reason=session.closed or "the stream broke")
        for waiting in session.forwards.values():
            _offer(waiting, Unavailable(f"region {session.region} went away during the call"))
        self._post(RegionGone(session.id))

    # ---- calls of users

    async def forward(
        self, region: str, method: str, request: bytes, *, changes: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """The region's answers to a call of its Regional service. Raises the region's error, or Unavailable; of a call
        that `changes` something, once it was sent, OutcomeUnknown."""
        reign = await self._seat.leading()
        session = self._sessions.get(reign.regions.session_of(region) or 0)
        if session is None:
            raise Unavailable(f"region {region} is not connected", hint="ask the region itself, or try again")
        self._forward_ids += 1
        call = self._forward_ids
        answers = session.forwards[call] = asyncio.Queue(self._settings.forward_queue)
        done = False
        session.send(Down(forward=regional_pb2.Forward(id=call, method=method, request=request)))
        try:
            while not done:
                answer = await self._next_answer(answers, region, method, changes)
                done = answer.last
                if answer.error_code:
                    raise error_in(answer)
                if answer.response or not answer.last:
                    yield answer.response
        finally:
            del session.forwards[call]
            if not done:
                session.send(Down(forward=regional_pb2.Forward(id=call, cancel=True)))

    async def _next_answer(
        self, answers: asyncio.Queue[Answer], region: str, method: str, changes: bool
    ) -> regional_pb2.ForwardAnswer:
        """A stream of answers (logs that are followed) may be silent for any time; its caller's deadline bounds it."""
        try:
            async with asyncio.timeout(None if method == "Logs" else self._settings.forward_timeout_s):
                answer: Answer = await answers.get()
        except TimeoutError:
            answer = Unavailable(f"region {region} did not answer in {self._settings.forward_timeout_s:g} s")
        if isinstance(answer, AtollError):
            raise OutcomeUnknown(answer.message) if changes else answer
        return answer


def _offer(waiting: asyncio.Queue[Answer], answer: Answer) -> None:
    """A reader that is too slow loses its call, not the session."""
    if waiting.full():
        waiting.get_nowait()
        answer = Unavailable("the answers were not read fast enough")
    waiting.put_nowait(answer)


def error_in(answer: regional_pb2.ForwardAnswer) -> AtollError:
    """The error a region tells by its stable code; a code that is new here is of its family's general kind."""
    code = answer.error_code
    kind = next((kind for kind in STATUS if kind("").code == code), _FAMILIES.get(code[:2], AtollError))
    detail = global_pb2.ErrorDetail(code=code, message=answer.error_message)
    return told_as(kind, answer.error_detail if answer.HasField("error_detail") else detail)
