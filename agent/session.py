"""The streams to the region: one to each candidate's address, dialled again whenever it ends.

Messages go up in the order given, from a bounded queue each: a stream that cannot keep up is left, and the next Hello
says everything again. A refused or broken stream is followed by a pause with jitter that doubles. Addresses beside
those of the settings (`Dial`) are bounded, and forgotten when nobody answers there. Decides nothing about work, nor
who leads: what comes down is posted to the core, queries go to `answer`.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import grpc
import grpc.aio
import structlog

from agent.config import Settings
from agent.core.commands import Dial, Reconnect, SendUp
from agent.core.events import Connected, Disconnected, Event, RegionSaid
from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc
from atoll.identity import TlsFiles

log = structlog.get_logger()

RENEWED_S = 10.0  # a candidate that does not answer for so long does not keep the others from the new certificate
_ANSWERS = ("welcome", "not_leader")

Answer = Callable[[int, agent_pb2.Query], None]
_Call = grpc.aio.StreamStreamCall[agent_pb2.AgentMessage, agent_pb2.RegionMessage]


@dataclass(slots=True)
class _Open:
    number: int
    address: str
    queue: asyncio.Queue[agent_pb2.AgentMessage | None]  # None: it has ended
    left: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    heard: bool = False

    def leave(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.left.set()

    def end(self) -> None:
        """Nothing goes up any more. Where the queue is full nobody waits for it either."""
        if not self.queue.full():
            self.queue.put_nowait(None)


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
        self._open: dict[int, _Open] = {}
        self._number = 0
        self._tasks: dict[str, asyncio.Task[None]] = {}  # by address
        self._group: asyncio.TaskGroup | None = None
        self._heard = asyncio.Event()  # a stream was heard that was not before
        self._answer: Answer = lambda number, query: None

    @property
    def address(self) -> str:
        """Of a region server that has answered, or of the first in the settings."""
        answered = (stream.address for stream in self._open.values() if stream.heard)
        return next(answered, self._settings.region_programs[0])

    def send(self, command: SendUp) -> None:
        stream = self._open.get(command.session)
        if stream is None:
            return
        try:
            stream.queue.put_nowait(command.message)
        except asyncio.QueueFull:
            stream.leave("the region does not take what this agent has to say")

    def reconnect(self, command: Reconnect) -> None:
        if stream := self._open.get(command.session):
            stream.leave(command.reason)

    def dial(self, command: Dial) -> None:
        """Keeps a stream there too, if there is none yet."""
        if self._group and command.address not in self._tasks and len(self._tasks) < self._settings.most_candidates:
            keeping = self._keep(command.address, for_ever=False)
            self._tasks[command.address] = self._group.create_task(keeping)

    async def renew(self, reason: str) -> None:
        """Dials again, with the certificate that is there by then: one candidate after the other, the next when the one
        before has answered, so that the node is never without a stream for it."""
        for stream in list(self._open.values()):
            if self._open.get(stream.number) is not stream:
                continue  # it ended by itself, and what follows it has the new certificate
            stream.leave(reason)
            if stream.heard:
                await self._heard_again(stream)

    async def _heard_again(self, left: _Open) -> None:
        """Until the stream that follows `left` was heard, or for so long as that should take."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEWED_S):
                while not any(s.heard and s.address == left.address and s is not left for s in self._open.values()):
                    self._heard.clear()
                    await self._heard.wait()

    async def run(self, answer: Answer) -> None:
        """Until cancelled. `answer` gets the session's number with each query."""
        self._answer = answer
        async with asyncio.TaskGroup() as self._group:
            for address in dict.fromkeys(self._settings.region_programs):
                self._tasks[address] = self._group.create_task(self._keep(address, for_ever=True))

    async def _keep(self, address: str, *, for_ever: bool) -> None:
        """One stream after the other; unless `for_ever`, until nobody answers."""
        delay_ms = self._settings.reconnect_min_ms
        while True:
            self._number += 1
            stream = _Open(self._number, address, asyncio.Queue(self._settings.send_queue))
            await self._hold(stream)
            log.info("session ended", address=address, reason=stream.reason)
            if not stream.heard and not for_ever:
                del self._tasks[address]
                return
            delay_ms = self._settings.reconnect_min_ms if stream.heard else delay_ms
            await asyncio.sleep(delay_ms * random.uniform(0.5, 1.0) / 1000)
            delay_ms = min(delay_ms * 2, self._settings.reconnect_max_ms)

    async def _hold(self, stream: _Open) -> None:
        self._open[stream.number] = stream
        self._post(Connected(stream.number))
        try:
            async with rpc.channel(stream.address, ca=self._settings.ca, client=self._files()) as channel:
                call = agent_pb2_grpc.AgentGatewayStub(channel).Session(_outgoing(stream))
                reading = asyncio.ensure_future(self._read(stream, call))
                leaving = asyncio.ensure_future(stream.left.wait())
                try:
                    await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    call.cancel()
                    stream.end()
                    reading.cancel()
                    leaving.cancel()
                    await asyncio.gather(reading, leaving, return_exceptions=True)
        finally:
            del self._open[stream.number]
            self._post(Disconnected(stream.number))

    async def _read(self, stream: _Open, call: _Call) -> None:
        try:
            async for message in call:
                if not stream.heard and message.WhichOneof("body") in _ANSWERS:
                    stream.heard = True
                    self._heard.set()
                if message.HasField("query"):
                    self._answer(stream.number, message.query)
                else:
                    self._post(RegionSaid(stream.number, message))
            stream.leave("the region closed the stream")
        except grpc.aio.AioRpcError as error:
            stream.leave(str(rpc.error_of(error)))


async def _outgoing(stream: _Open) -> AsyncIterator[agent_pb2.AgentMessage]:
    """Until the stream has ended: a call that the region ended leaves behind who still waits for something to send."""
    while message := await stream.queue.get():
        yield message
