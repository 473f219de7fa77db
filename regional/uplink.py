"""The stream to the global plane, dialled by the region's leader: shares, slices and tokens down, reports up.

Decides nothing. Everything on it is absolute and sent again after a welcome, so a message that cannot be sent is
dropped. Invariant: the region works on while the global plane is away; the core hears GlobalLost and, at the next
welcome, GlobalWelcomed. Calls of users that the global plane forwards are answered here, with its authority.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from typing import Protocol

import grpc
import structlog
from prometheus_client import Counter, Gauge

from atoll import rpc
from atoll.api.v1 import regional_pb2, regional_pb2_grpc
from atoll.errors import AtollError, Busy
from atoll.identity import TlsFiles
from atoll.status import detail_of
from regional.config import Settings
from regional.core.events import (
    Event,
    GlobalListed,
    GlobalLost,
    GlobalWelcomed,
    ShareArrived,
    SliceArrived,
    TokensTold,
)
from regional.core.uplink_route import Route

UP = Gauge("atoll_region_uplink_up", "1 while the global plane has welcomed this region.")
DROPPED = Counter("atoll_region_uplink_dropped", "Reports dropped while the uplink was down.")

_log = structlog.get_logger()


class Answerer(Protocol):
    """Regional methods by name, for a caller the global plane has already authorized."""

    def answer(self, method: str, request: bytes) -> AsyncGenerator[bytes, None]: ...


class _Elsewhere(Exception):
    """The address dialled is a standby; its leader is at `address` (empty: it does not know)."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.address = address


class Uplink:
    def __init__(self, settings: Settings, tls: TlsFiles, answerer: Answerer, post: Callable[[Event], None]) -> None:
        self._settings = settings
        self._tls = tls
        self._answerer = answerer
        self._post = post
        self._line: _Line | None = None

    def send(self, message: regional_pb2.UplinkMessage) -> None:
        if self._line is None or not self._line.welcomed:
            DROPPED.inc()
            return
        self._line.send(message)

    def leave(self, reason: str) -> None:
        """Ends the session there is; another process of the global plane is dialled next."""
        if self._line is not None:
            self._line.leave(reason)

    async def run(self, hello: Callable[[], regional_pb2.RegionHello]) -> None:
        """Keeps one session with the global plane, at one address after the other, until cancelled."""
        if not self._settings.global_plane:
            return
        route, clock = self._route(), asyncio.get_running_loop().time
        while True:
            address = route.next(int(clock() * 1000))
            line = self._line = _Line(self._settings, self._answerer, self._post)
            try:
                reason = await self._dial(line, address, hello())
                pause_ms = route.ended(address, int(clock() * 1000), welcomed=line.welcomed, silent=line.silent)
            except _Elsewhere as elsewhere:
                reason, pause_ms = f"{address} is a standby", route.refused(elsewhere.address)
            finally:
                self._line = None
                UP.set(0)
                if line.welcomed:
                    self._post(GlobalLost("the uplink has ended"))
            _log.info("uplink down", address=address, reason=reason)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause_ms / 1000)

    def _route(self) -> Route:
        settings = self._settings
        return Route(
            settings.global_plane,
            left_out_ms=settings.uplink_silence_ms,
            first_ms=settings.uplink_backoff_ms,
            standby_ms=settings.uplink_standby_ms,
            longest_ms=settings.uplink_backoff_max_ms,
        )

    async def _dial(self, line: "_Line", address: str, hello: regional_pb2.RegionHello) -> str:
        """One session; why it ended. Raises _Elsewhere."""
        try:
            channel = rpc.channel(address, ca=self._settings.ca, client=self._tls)
        except AtollError as error:
            return str(error)  # a certificate that cannot be read now may be there at the next dial
        try:
            call = regional_pb2_grpc.UplinkStub(channel).Session(line.outgoing(hello))
            return await line.run(call)
        except grpc.aio.AioRpcError as error:
            return str(rpc.error_of(error))
        finally:
            await channel.close()


class _Line:
    """One session: its outgoing queue, its heartbeats and the forwarded calls in progress."""

    def __init__(self, settings: Settings, answerer: Answerer, post: Callable[[Event], None]) -> None:
        self._settings = settings
        self._answerer = answerer
        self._post = post
        self._queue: asyncio.Queue[regional_pb2.UplinkMessage | None] = asyncio.Queue(settings.uplink_queue_messages)
        self._left: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._acked = asyncio.Event()
        self._forwards: dict[int, asyncio.Task[None]] = {}
        self.welcomed = False
        self.silent = False

    def send(self, message: regional_pb2.UplinkMessage) -> None:
        """A full queue ends the session: after the next welcome everything is sent again."""
        if self._queue.full():
            self.leave("the outgoing queue is full")
        else:
            self._queue.put_nowait(message)

    async def outgoing(self, hello: regional_pb2.RegionHello) -> AsyncIterator[regional_pb2.UplinkMessage]:
        """Until the session has ended: a call leaves behind who still waits for something to send."""
        yield regional_pb2.UplinkMessage(hello=hello)
        while message := await self._queue.get():
            yield message

    async def run(self, call: AsyncIterable[regional_pb2.DownlinkMessage]) -> str:
        """Until one of: the stream ends, silence, overflow. Raises what the stream raises, _Elsewhere."""
        parts = [
            asyncio.create_task(self._receive(call)),
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._left_for()),
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            return next(part for part in parts if part in done).result()
        finally:
            for task in (*parts, *self._forwards.values()):
                task.cancel()
            if not self._queue.full():
                self._queue.put_nowait(None)

    def leave(self, reason: str) -> None:
        """Ends the session. The first reason is kept."""
        if not self._left.done():
            self._left.set_result(reason)

    async def _left_for(self) -> str:
        return await self._left

    async def _beat(self) -> str:
        """Heartbeats until the global plane has been silent for too long."""
        seq = 0
        while True:
            seq += 1
            self._acked.clear()
            if self.welcomed:
                self.send(regional_pb2.UplinkMessage(heartbeat=regional_pb2.RegionHeartbeat(seq=seq)))
            try:
                async with asyncio.timeout(self._settings.uplink_silence_ms / 1000):
                    await self._acked.wait()
            except TimeoutError:
                self.silent = True
                return f"the global plane was silent for {self._settings.uplink_silence_ms} ms"
            await asyncio.sleep(self._settings.uplink_heartbeat_ms / 1000)

    async def _receive(self, call: AsyncIterable[regional_pb2.DownlinkMessage]) -> str:
        async for message in call:
            self._acked.set()
            self._take(message)
        return "the global plane ended the session"

    def _take(self, message: regional_pb2.DownlinkMessage) -> None:
        match message.WhichOneof("body"):
            case "welcome":
                self.welcomed = True
                UP.set(1)
                self._post(GlobalWelcomed(message.welcome))
            case "share":
                self._post(ShareArrived(message.share))
            case "slice_stamp":
                self._post(SliceArrived(message.slice_stamp))
            case "listed":
                self._post(GlobalListed(message.listed))
            case "tokens":
                self._post(TokensTold(message.tokens))
            case "forward":
                self._forward(message.forward)
            case "not_leader":
                raise _Elsewhere(message.not_leader.address)
            case _:
                pass  # a heartbeat's ack, or a newer global plane's word

    def _forward(self, forward: regional_pb2.Forward) -> None:
        running = self._forwards.get(forward.id)
        if forward.cancel:
            if running:
                running.cancel()
            return
        if running or len(self._forwards) >= self._settings.uplink_forwards:
            self._answer_last(forward, Busy("too many forwarded calls in progress"))
            return
        task = asyncio.create_task(self._answer(forward))
        self._forwards[forward.id] = task
        task.add_done_callback(lambda _: self._forwards.pop(forward.id, None))

    async def _answer(self, forward: regional_pb2.Forward) -> None:
        try:
            async with contextlib.aclosing(self._answerer.answer(forward.method, forward.request)) as responses:
                async for response in responses:
                    part = regional_pb2.ForwardAnswer(id=forward.id, response=response)
                    await self._queue.put(regional_pb2.UplinkMessage(answer=part))
        except AtollError as error:
            self._answer_last(forward, error)
        else:
            self._answer_last(forward, None)

    def _answer_last(self, forward: regional_pb2.Forward, error: AtollError | None) -> None:
        last = regional_pb2.ForwardAnswer(id=forward.id, last=True)
        if error:
            last.error_code, last.error_message = error.code, error.message
            last.error_detail.CopyFrom(detail_of(error))
            last.error_detail.leader_people = last.error_detail.leader_programs = ""  # this region's, not the caller's
        self.send(regional_pb2.UplinkMessage(answer=last))
