"""A watch on etcd that survives lost connections and delivers whole revisions, each once, in order.

Decides when a revision is complete and when a silent stream is dead. Invariants: a batch is delivered only when all
of its revision has arrived; after a lost stream the next one starts behind the last batch delivered, on another
member; nothing is buffered beyond one response being joined and a few waiting ones, so a slow reader slows etcd.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import grpc

from atoll.api.etcd import etcd_pb2
from atoll.store import etcd_wire
from atoll.store.binary import parse_version
from atoll.store.endpoints import Endpoint, Endpoints
from atoll.store.store import Batch, Compacted, StoreError, prefix_end

_WAITING_RESPONSES = 16
_PAUSE_S = 0.1  # between two streams
_METHOD = "/etcdserverpb.Watch/Watch"
_HAS_LEADER = (("hasleader", "true"),)  # a member cut off from its leader must end the stream, not fall silent
_PROGRESS_ON_REQUEST = etcd_pb2.WatchRequest(progress_request=etcd_pb2.WatchProgressRequest())


@dataclass(frozen=True, slots=True)
class Watched:
    prefix: bytes
    previous: bool
    idle_s: float  # silence after which a sign of life is asked for; as much again and the stream is dead


class _Lost(Exception):
    """This stream is over; another may go on where it ended."""


class Assembler:
    """Joins the fragments of responses into whole revisions. `following` is the first revision not yet delivered."""

    def __init__(self, following: int) -> None:
        self.following = following
        self._events: list[etcd_pb2.Event] = []

    def feed(self, events: Iterable[etcd_pb2.Event], *, fragment: bool) -> list[Batch]:
        """The revisions that are now complete: while a response goes on (`fragment`), all but its newest one.
        What was delivered before (etcd may repeat after a reconnect) is dropped."""
        self._events.extend(event for event in events if event.kv.mod_revision >= self.following)
        if not self._events:
            return []
        newest = self._events[-1].kv.mod_revision if fragment else 0
        batches = [
            Batch(revision, tuple(etcd_wire.change(event) for event in group))
            for revision, group in groupby(self._events, key=lambda event: event.kv.mod_revision)
            if revision != newest
        ]
        self._events = [event for event in self._events if event.kv.mod_revision == newest]
        if batches:
            self.following = batches[-1].revision + 1
        return batches

    def drop_incomplete(self) -> None:
        """The stream is lost: what it had begun comes again."""
        self._events.clear()


def orders_requested_progress(version: str) -> bool:
    """Whether an answer to a progress request comes after the events it speaks of (etcd 3.4.25, 3.5.8 and later).
    From older members it is a sign of life and no more; their own periodic notifications are in order."""
    parsed = parse_version(version)
    return parsed is not None and (parsed >= (3, 5, 8) or (3, 4, 25) <= parsed < (3, 5, 0))


async def batches(endpoints: Endpoints, watched: Watched, start_revision: int) -> AsyncGenerator[Batch, None]:
    """Without end. Raises Compacted, and StoreError when the watch is not allowed."""
    assembler = Assembler(start_revision)
    while True:
        endpoint = endpoints.pick()
        try:
            async with aclosing(_one_stream(endpoint, watched, assembler)) as stream:
                async for batch in stream:
                    yield batch
        except _Lost:
            endpoints.avoid(endpoint)
            assembler.drop_incomplete()
        await asyncio.sleep(_PAUSE_S)


async def _one_stream(endpoint: Endpoint, watched: Watched, assembler: Assembler) -> AsyncGenerator[Batch, None]:
    """Ends only by raising: _Lost, Compacted, StoreError."""
    call = endpoint.channel.stream_stream(
        _METHOD,
        request_serializer=etcd_pb2.WatchRequest.SerializeToString,
        response_deserializer=etcd_pb2.WatchResponse.FromString,
    )(metadata=_HAS_LEADER)
    # call.read() ends the call when it is cancelled, so no timeout may touch it: a task of its own reads.
    arrived: asyncio.Queue[etcd_pb2.WatchResponse | None] = asyncio.Queue(_WAITING_RESPONSES)
    pump = asyncio.create_task(_pump(call, arrived), name="etcd watch")
    try:
        await _write(call, _create(watched, assembler.following), watched.idle_s)
        while True:
            response = await _next(call, arrived, watched.idle_s)
            if response.canceled:
                _raise_cancelled(response)
            for batch in assembler.feed(response.events, fragment=response.fragment):
                yield batch
            if _is_progress(response, endpoint.version) and response.header.revision >= assembler.following:
                assembler.following = response.header.revision + 1
                yield Batch(response.header.revision)
    finally:
        call.cancel()
        pump.cancel()
        with suppress(asyncio.CancelledError):
            await pump


async def _pump(call: Any, arrived: "asyncio.Queue[etcd_pb2.WatchResponse | None]") -> None:
    """Everything the call brings, then None."""
    try:
        while (response := await call.read()) is not grpc.aio.EOF:
            await arrived.put(response)
    except asyncio.CancelledError:  # of the call, by a closing channel, or else of this task
        if (task := asyncio.current_task()) and task.cancelling():
            raise
    except (grpc.RpcError, asyncio.InvalidStateError):
        pass
    await arrived.put(None)


async def _next(
    call: Any, arrived: "asyncio.Queue[etcd_pb2.WatchResponse | None]", idle_s: float
) -> etcd_pb2.WatchResponse:
    """The next response; asks for a sign of life once when idle. Raises _Lost."""
    for asked in (False, True):
        try:
            async with asyncio.timeout(idle_s):
                response = await arrived.get()
        except TimeoutError:
            if not asked:
                await _write(call, _PROGRESS_ON_REQUEST, idle_s)
            continue
        if response is None:
            break
        return response
    raise _Lost


async def _write(call: Any, request: etcd_pb2.WatchRequest, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await call.write(request)
    except (grpc.RpcError, asyncio.InvalidStateError, TimeoutError) as error:
        raise _Lost from error


def _create(watched: Watched, start_revision: int) -> etcd_pb2.WatchRequest:
    return etcd_pb2.WatchRequest(
        create_request=etcd_pb2.WatchCreateRequest(
            key=watched.prefix,
            range_end=prefix_end(watched.prefix),
            start_revision=start_revision,
            progress_notify=True,
            prev_kv=watched.previous,
            fragment=True,
        )
    )


def _raise_cancelled(response: etcd_pb2.WatchResponse) -> None:
    if response.compact_revision:
        raise Compacted(response.compact_revision)
    if "permission denied" in response.cancel_reason:
        raise StoreError(f"watch refused: {response.cancel_reason}")
    raise _Lost


def _is_progress(response: etcd_pb2.WatchResponse, version: str) -> bool:
    """A response without events. One to our request carries no watch's id (-1)."""
    if response.created or response.events or response.fragment:
        return False
    return response.watch_id >= 0 or orders_requested_progress(version)
