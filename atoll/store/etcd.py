"""The etcd store: the Store protocol over etcd's v3 gRPC API.

Decides which member to ask, how long, and what an answer or an error proves. A write goes to one member, once, and
what is not proven refused or applied is Unknown (etcd_wire.py). Reads and lease calls, which do no harm when done
twice, go on to the next member inside their deadline. Nothing here leans on gRPC's retries or balancing. The store's
parts: endpoints.py picks members, etcd_watch.py watches, etcd_wire.py translates.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol, TypeVar

import grpc
from google.protobuf.message import DecodeError, EncodeError

from atoll.api.etcd import etcd_pb2
from atoll.store import etcd_watch, etcd_wire
from atoll.store.binary import refusal
from atoll.store.endpoints import ClientTls, Endpoint, Endpoints
from atoll.store.limits import refusal_of_form
from atoll.store.store import (
    PAGE_SIZE,
    Batch,
    Compacted,
    KeyValue,
    Lease,
    LeaseGone,
    NotSent,
    Outcome,
    Read,
    Refusal,
    Refused,
    Status,
    StoreError,
    StoreUnavailable,
    Txn,
    Unknown,
)

_KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
_PAUSE_S = 0.1  # after every member was asked in vain
_MEMBER_SHARE_S = 2.0  # of the time to connect
_WATCH_IDLE_S = 5.0
_T = TypeVar("_T")


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...


class EtcdStore:
    """Made by `connect`. Safe for any number of concurrent calls of one event loop."""

    def __init__(self, endpoints: Endpoints, *, watch_idle_s: float = _WATCH_IDLE_S) -> None:
        self._endpoints = endpoints
        self._watch_idle_s = watch_idle_s

    @classmethod
    async def connect(
        cls,
        endpoints: Sequence[str],
        *,
        tls: ClientTls | None = None,
        deadline_s: float = 10.0,
        watch_idle_s: float = _WATCH_IDLE_S,
    ) -> "EtcdStore":
        """A store over the cluster at `endpoints` (host:port or URL), once a member has answered.
        Raises StoreUnavailable; StoreError when a member that answered has a refused version; ValueError for a
        malformed endpoint."""
        if not endpoints:
            raise ValueError("no etcd endpoint given")
        addresses = [etcd_wire.address_of(endpoint, tls=tls is not None) for endpoint in endpoints]
        store = cls(Endpoints(addresses, tls), watch_idle_s=watch_idle_s)
        try:
            await store._first_answer(deadline_s)
            for endpoint in store._endpoints.all:
                if endpoint.version and (reason := refusal(endpoint.version)):
                    raise StoreError(f"{endpoint.address}: {reason}")
        except StoreError:
            await store.close()
            raise
        return store

    async def _first_answer(self, deadline_s: float) -> None:
        """Waits until a member answers; a silent one among them costs one share of the time."""
        end_s = time.monotonic() + deadline_s
        while True:
            try:
                await self.status(deadline_s=min(_MEMBER_SHARE_S, deadline_s))
            except StoreUnavailable:
                if time.monotonic() + _PAUSE_S >= end_s:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                return

    # ---- writes

    async def transact(self, txn: Txn, *, deadline_s: float = 2.0) -> Outcome:
        if refused := refusal_of_form(txn):
            return refused
        try:
            request = etcd_wire.txn_request(txn).SerializeToString()
        except (TypeError, ValueError, EncodeError) as error:
            return Refused(Refusal.INVALID, f"could not be encoded: {error}")
        try:
            endpoint = self._endpoints.pick()
        except StoreUnavailable as closed:
            return NotSent(str(closed))
        try:
            answer = await _unary(endpoint, "/etcdserverpb.KV/Txn", request, deadline_s)
            return etcd_wire.txn_outcome(txn, etcd_pb2.TxnResponse.FromString(answer))
        except StoreUnavailable as closed:
            return Unknown(str(closed))
        except (DecodeError, ValueError) as error:
            return Unknown(f"undecodable answer: {error}")
        except grpc.aio.AioRpcError as error:
            self._avoid_when_unreachable(endpoint, error)
            return etcd_wire.outcome_of_error(error.code(), error.details() or "")

    # ---- reads

    async def get(self, key: bytes, *, deadline_s: float = 5.0) -> tuple[KeyValue | None, int]:
        response = await self._range(etcd_pb2.RangeRequest(key=key), deadline_s)
        return next(map(etcd_wire.key_value, response.kvs), None), response.header.revision

    async def range(
        self,
        key: bytes,
        range_end: bytes,
        *,
        revision: int = 0,
        limit: int = PAGE_SIZE,
        keys_only: bool = False,
        deadline_s: float = 5.0,
    ) -> Read:
        request = etcd_pb2.RangeRequest(
            key=key, range_end=range_end, revision=revision, limit=limit, keys_only=keys_only
        )
        response = await self._range(request, deadline_s)
        items = tuple(map(etcd_wire.key_value, response.kvs))
        return Read(items, revision or response.header.revision, response.more)

    async def _range(self, request: etcd_pb2.RangeRequest, deadline_s: float) -> etcd_pb2.RangeResponse:
        encoded = request.SerializeToString()
        try:
            answer = await self._ask("/etcdserverpb.KV/Range", encoded, deadline_s)
        except grpc.aio.AioRpcError as error:
            raise _error_of(error, oldest=request.revision + 1) from error
        return etcd_pb2.RangeResponse.FromString(answer)

    @asynccontextmanager
    async def watch(
        self, prefix: bytes, *, start_revision: int, previous: bool = False
    ) -> AsyncGenerator[AsyncIterator[Batch], None]:
        watched = etcd_watch.Watched(prefix, previous, self._watch_idle_s)
        async with aclosing(etcd_watch.batches(self._endpoints, watched, start_revision)) as batches:
            yield batches

    # ---- leases: doing one of these twice does no harm, so they go on to the next member like reads

    async def grant(self, ttl_s: int, *, deadline_s: float = 2.0) -> Lease:
        request = etcd_pb2.LeaseGrantRequest(TTL=ttl_s)
        response = etcd_pb2.LeaseGrantResponse.FromString(
            await self._call("/etcdserverpb.Lease/LeaseGrant", request, deadline_s)
        )
        return Lease(response.ID, response.TTL)

    async def keep_alive(self, lease_id: int, *, deadline_s: float = 2.0) -> int:
        encoded = etcd_pb2.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()

        async def attempt(endpoint: Endpoint, timeout_s: float) -> bytes:
            method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = endpoint.channel.stream_stream(_KEEP_ALIVE)
            call = method(timeout=timeout_s)
            try:
                await call.write(encoded)
                answer = await call.read()
            finally:
                call.cancel()
            if not isinstance(answer, bytes):
                raise StoreUnavailable("the member ended the stream without an answer")
            return answer

        try:
            response = etcd_pb2.LeaseKeepAliveResponse.FromString(await self._in_turn(attempt, deadline_s))
        except grpc.aio.AioRpcError as error:
            raise _error_of(error) from error
        if response.TTL <= 0:
            raise LeaseGone(f"lease {lease_id:x} is gone")
        return response.TTL

    async def revoke(self, lease_id: int, *, deadline_s: float = 2.0) -> None:
        try:
            await self._call("/etcdserverpb.Lease/LeaseRevoke", etcd_pb2.LeaseRevokeRequest(ID=lease_id), deadline_s)
        except LeaseGone:
            return

    # ---- upkeep

    async def compact(self, revision: int, *, deadline_s: float = 5.0) -> None:
        encoded = etcd_pb2.CompactionRequest(revision=revision).SerializeToString()
        try:
            await self._ask("/etcdserverpb.KV/Compact", encoded, deadline_s)
        except grpc.aio.AioRpcError as error:
            raise _error_of(error, oldest=revision) from error

    async def status(self, *, deadline_s: float = 5.0) -> Status:
        asked = [self._status_of(endpoint, deadline_s) for endpoint in self._endpoints.all]
        answers = [answer for answer in await asyncio.gather(*asked) if answer is not None]
        if not answers:
            why = "; ".join(f"{endpoint.address}: {endpoint.failure}" for endpoint in self._endpoints.all)
            raise StoreUnavailable(f"no etcd member answered within {deadline_s:g} s: {why}")
        newest = max(answers, key=lambda answer: answer.header.revision)
        return Status(newest.version, newest.header.revision, newest.dbSize, len(answers))

    async def close(self) -> None:
        await self._endpoints.close()

    # ---- the ways to a member

    async def _status_of(self, endpoint: Endpoint, deadline_s: float) -> etcd_pb2.StatusResponse | None:
        request = etcd_pb2.StatusRequest().SerializeToString()
        try:
            answer = await _unary(endpoint, "/etcdserverpb.Maintenance/Status", request, deadline_s)
        except grpc.aio.AioRpcError as error:
            endpoint.failure = (error.details() or error.code().name).rpartition("last error: ")[2]
            return None
        except StoreUnavailable as closed:
            endpoint.failure = str(closed)
            return None
        status = etcd_pb2.StatusResponse.FromString(answer)
        endpoint.version = status.version
        return status

    async def _call(self, method: str, request: _Message, deadline_s: float) -> bytes:
        try:
            return await self._ask(method, request.SerializeToString(), deadline_s)
        except grpc.aio.AioRpcError as error:
            raise _error_of(error) from error

    async def _ask(self, method: str, request: bytes, deadline_s: float) -> bytes:
        return await self._in_turn(lambda endpoint, timeout_s: _unary(endpoint, method, request, timeout_s), deadline_s)

    async def _in_turn(self, attempt: Callable[[Endpoint, float], Awaitable[_T]], deadline_s: float) -> _T:
        """The first answer of a member, one after the other, within the deadline; a silent member gets its share of
        what is left. Raises the error a member is sure of, or the last one when time is over."""
        end_s = time.monotonic() + deadline_s
        untried = len(self._endpoints.all)
        while True:
            endpoint = self._endpoints.pick()
            left_s = end_s - time.monotonic()
            try:
                return await attempt(endpoint, max(left_s / max(untried, 1), 0.001))
            except grpc.aio.AioRpcError as error:
                self._avoid_when_unreachable(endpoint, error)
                if _is_final(error) or time.monotonic() + _PAUSE_S >= end_s:
                    raise
            untried -= 1
            if untried <= 0:
                await asyncio.sleep(_PAUSE_S)

    def _avoid_when_unreachable(self, endpoint: Endpoint, error: grpc.aio.AioRpcError) -> None:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            self._endpoints.avoid(endpoint)


async def _unary(endpoint: Endpoint, method: str, request: bytes, timeout_s: float) -> bytes:
    callable_: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = endpoint.channel.unary_unary(method)
    try:
        return await callable_(request, timeout=timeout_s)
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) and task.cancelling():
            raise
        raise StoreUnavailable("the store was closed") from None  # which cancels the call, not the caller


def _is_final(error: grpc.aio.AioRpcError) -> bool:
    code, message = error.code(), error.details() or ""
    return code is grpc.StatusCode.OUT_OF_RANGE or etcd_wire.is_refused_for_good(code, message)


def _error_of(error: grpc.aio.AioRpcError, *, oldest: int = 0) -> StoreError:
    """What it means to who asked; `oldest`: no older revision is there, should it be a compaction."""
    code, message = error.code(), error.details() or ""
    if etcd_wire.is_compacted(code, message):
        return Compacted(oldest)
    if etcd_wire.is_lease_gone(code, message):
        return LeaseGone(message)
    if etcd_wire.is_future(code, message) or etcd_wire.is_refused_for_good(code, message):
        return StoreError(message)
    return StoreUnavailable(f"{code.name}: {message}")
