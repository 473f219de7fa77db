"""The stream to the region: dials, keeps one session at a time, and dials again.

Messages go up in the order given, from a bounded queue: a session that cannot keep up is left, and the next Hello
says everything again. A refused or broken session is followed by a pause with jitter that doubles; a leader's address
learned from NotLeader is tried next. Decides nothing about work: what comes down is posted to the core, queries go to
`answer`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import structlog

from agent.config import Settings
from agent.core.commands import Reconnect, SendUp
from agent.core.events import Connected, Disconnected, Event, RegionSaid
from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc
from atoll.identity import TlsFiles

log = structlog.get_logger()

Answer = Callable[[int, agent_pb2.Query], None]
_Call = grpc.aio.StreamStreamCall[agent_pb2.AgentMessage, agent_pb2.RegionMessage]


@dataclass(slots=True)
class _Open:
    number: int
    address: str
    queue: asyncio.Queue[agent_pb2.AgentMessage]
    left: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    heard: bool = False

    def leave(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.left.set()


class Session:
    def __init__(
        self,
        settings: Settings,
        files: Callable[[], TlsFiles],
        post: Callable[[Event], None],
    ) -> None:
        """`files` is asked at each dial."""
        self._settings = settings
        self._files = files
        self._post = post
        self._open: _Open | None = None
        self._number = 0
        self._next_address = ""

    @property
    def address(self) -> str:
        """Of the region server last dialled."""
        return self._open.address if self._open else self._settings.region_programs[0]

    def send(self, command: SendUp) -> None:
        session = self._open
        if session is None or session.number != command.session:
            return
        try:
            session.queue.put_nowait(command.message)
        except asyncio.QueueFull:
            session.leave("the region does not take what this agent has to say")

    def reconnect(self, command: Reconnect) -> None:
        if self._open and self._open.number == command.session:
            self._next_address = command.address
            self._open.leave(command.reason)

    def renew(self, reason: str) -> None:
        """Dial again, with the certificate that is there by then."""
        if self._open:
            self._open.leave(reason)

    async def run(self, answer: Answer) -> None:
        """Until cancelled. `answer` gets the session's number with each query."""
        delay_ms, turn = self._settings.reconnect_min_ms, 0
        while True:
            address, self._next_address = self._next_address, ""
            if not address:
                address = self._settings.region_programs[turn % len(self._settings.region_programs)]
                turn += 1
            self._number += 1
            session = _Open(self._number, address, asyncio.Queue(self._settings.send_queue))
            await self._hold(session, answer)
            log.info("session ended", address=address, reason=session.reason)
            delay_ms = self._settings.reconnect_min_ms if session.heard else delay_ms
            await asyncio.sleep(delay_ms * random.uniform(0.5, 1.0) / 1000)
            delay_ms = min(delay_ms * 2, self._settings.reconnect_max_ms)

    async def _hold(self, session: _Open, answer: Answer) -> None:
        self._open = session
        self._post(Connected(session.number))
        try:
            async with rpc.channel(session.address, ca=self._settings.ca, client=self._files()) as channel:
                call = agent_pb2_grpc.AgentGatewayStub(channel).Session(_outgoing(session))
                reading = asyncio.ensure_future(_read(session, call, self._post, answer))
                leaving = asyncio.ensure_future(session.left.wait())
                try:
                    await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    call.cancel()
                    reading.cancel()
                    leaving.cancel()
                    await asyncio.gather(reading, leaving, return_exceptions=True)
        finally:
            self._open = None
            self._post(Disconnected(session.number))


async def _read(session: _Open, call: _Call, post: Callable[[Event], None], answer: Answer) -> None:
    try:
        async for message in call:
            session.heard = session.heard or message.HasField("welcome")
            if message.HasField("query"):
                answer(session.number, message.query)
            else:
                post(RegionSaid(session.number, message))
        session.leave("the region closed the stream")
    except grpc.aio.AioRpcError as error:
        session.leave(str(rpc.error_of(error)))


async def _outgoing(session: _Open) -> AsyncIterator[agent_pb2.AgentMessage]:
    while True:
        yield await session.queue.get()
