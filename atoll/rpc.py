"""Channels and servers: TLS on every port, who calls, limits, deadlines, and errors on their way over the wire.

A server has two ports with the same services: `programs`, where a client certificate of this cluster is demanded, and
`people`, where a bearer token in the metadata tells who calls. Its own certificate is taken anew from its files when
they change (atoll.certificates). One interceptor stands before every servicer: it
authenticates, holds the caller to its rate, authorizes (`atoll.authorization`), bounds the call's time, and turns
what the servicer raises into a status. No call outlives the credential it was made with. An AtollError travels whole,
in trailing metadata; any other exception is logged under an id, and only that id is told.
"""

import asyncio
import contextlib
import functools
import inspect
import math
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import structlog
from prometheus_client import Counter

from atoll import authorization, tokens
from atoll.api.v1.objects_pb2 import UserToken
from atoll.certificates import ServerCertificates
from atoll.clock import Clock
from atoll.errors import (
    AtollError,
    Busy,
    Invalid,
    InvariantBroken,
    NotAllowed,
    NotAuthenticated,
    OutcomeUnknown,
    Unavailable,
)
from atoll.identity import Identity, TlsFiles, identity_from_certificate
from atoll.status import error_of, refuse, status_of

__all__ = ["Context", "Limits", "Server", "channel", "error_of", "identity_of", "limits", "refuse"]

Context = grpc.aio.ServicerContext[Any, Any]
log = structlog.get_logger()

CALLS = Counter("atoll_rpc_calls", "Calls answered, by method and status code", ["method", "code"])

_CHANNEL_OPTIONS = (
    ("grpc.enable_retries", 0),  # a write is never sent twice behind its caller's back
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.keepalive_time_ms", 11_000),  # longer than heartbeats are apart: no ping where they flow
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 16 << 20),
)
TOKEN_LOOK_S = 2.0  # how often an open stream's token is looked up again


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server takes from its callers."""

    message_bytes: int = 1 << 20
    streams_per_connection: int = 256
    calls_per_s: float = 1_000.0  # of one identity, sustained
    calls_burst: int = 2_000
    unary_s: float = 60.0
    handshake_ms: int = 10_000  # then a connection that says nothing is closed
    keepalive_at_least_ms: int = 5_000


def limits(settings: Any) -> Limits:
    """Those of a program's settings, where each is named `rpc_` and as here."""
    return Limits(**{limit.name: getattr(settings, f"rpc_{limit.name}") for limit in fields(Limits)})


def channel(address: str, *, ca: Path, client: TlsFiles | None = None, token: str = "") -> grpc.aio.Channel:
    """A TLS channel to `address`, as a program (`client`) or a person (`token`). Raises Invalid for unusable files.

    The token goes with every call; it is never sent before the server has proven itself against `ca`.
    """
    key, certificate = (_read(client.key), _read(client.certificate)) if client else (None, None)
    roots = _read(ca)
    if b"-----BEGIN CERTIFICATE-----" not in roots:
        raise Invalid(f"{ca} holds no certificate", code="E1014")
    credentials = grpc.ssl_channel_credentials(roots, private_key=key, certificate_chain=certificate)
    if token:
        credentials = grpc.composite_channel_credentials(credentials, grpc.access_token_call_credentials(token))
    return grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS)


class Server:
    """Serves the added servicers on both ports. `users` finds a user token's record by its id."""

    def __init__(
        self, tls: TlsFiles, users: Callable[[str], UserToken | None], clock: Clock, limits: Limits = Limits()
    ) -> None:
        self._certificates = ServerCertificates(tls)
        self._limits = limits
        self._border = _Border(identity_from_certificate(_read(tls.certificate)), users, clock, limits)
        self._services: list[tuple[Callable[[Any, grpc.aio.Server], None], Any]] = []
        self._server: grpc.aio.Server | None = None
        self.people_address = ""
        self.programs_address = ""

    def add(self, add_servicer: Callable[[Any, grpc.aio.Server], None], servicer: Any) -> None:
        """Registers a servicer with its generated `add_…Servicer_to_server`. Before `start`."""
        self._services.append((add_servicer, servicer))

    async def start(self, people: str, programs: str) -> None:
        """Listens on both addresses; port 0 picks a free one. Raises Unavailable when a port is taken."""
        server = grpc.aio.server(interceptors=(self._border,), options=_server_options(self._limits))
        for add_servicer, servicer in self._services:
            add_servicer(servicer, server)
        try:
            self.people_address = _listen(server, people, self._certificates.credentials(mutual=False))
            self.programs_address = _listen(server, programs, self._certificates.credentials(mutual=True))
        except Unavailable:
            await server.stop(None)
            raise
        await server.start()
        self._server = server

    async def stop(self, grace_s: float) -> None:
        """Takes no new calls, lets running ones end within `grace_s`, then cancels them."""
        if self._server:
            await self._server.stop(grace_s)


_caller: ContextVar[Identity | None] = ContextVar("caller", default=None)


def identity_of(context: Context) -> Identity:
    """Who makes this call. Only inside a servicer's method, and not of the anonymous one."""
    caller = _caller.get()
    if caller is None:
        raise NotAuthenticated("this call needs a token or a client certificate")
    return caller


class _Border(grpc.aio.ServerInterceptor):
    """Stands before every servicer."""

    def __init__(
        self, served_by: Identity, users: Callable[[str], UserToken | None], clock: Clock, limits: Limits
    ) -> None:
        self._served_by = served_by
        self._users = users
        self._clock = clock
        self._limits = limits
        self._rates = _Rates(limits.calls_per_s, limits.calls_burst)
        self._identity_of_pem = functools.lru_cache(maxsize=1_024)(identity_from_certificate)

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata
        behavior = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream

        async def serve(request: Any, context: Context) -> Any:
            call = _Call(method, metadata, context, handler.request_streaming, handler.response_streaming)
            return await self._serve(call, request, behavior)

        kind = f"{_arity(handler.request_streaming)}_{_arity(handler.response_streaming)}_rpc_method_handler"
        rebuild = getattr(grpc, kind)
        return cast(
            "grpc.RpcMethodHandler[Any, Any]", rebuild(serve, handler.request_deserializer, handler.response_serializer)
        )

    async def _serve(self, call: "_Call", request: Any, behavior: Callable[..., Any]) -> Any:
        code = grpc.StatusCode.CANCELLED
        try:
            identity = self._authenticate(call)
            self._rates.take(_rate_key(identity, call.context), self._clock.now_ms())
            authorization.authorize(identity, call.method, None if call.request_streaming else request, self._served_by)
            _caller.set(identity)
            response = await self._in_time(identity, call, request, behavior)
            code = grpc.StatusCode.OK
            return response
        except grpc.aio.AbortError:
            code = call.context.code()
            raise
        except AtollError as error:
            code = status_of(error)
            await refuse(call.context, error)
        except NotImplementedError:
            code = grpc.StatusCode.UNIMPLEMENTED
            await call.context.abort(code, call.method)
        except Exception as error:  # noqa: BLE001 - the border of a call: only an id is told, and the server lives on
            code = grpc.StatusCode.INTERNAL
            await refuse(call.context, _defect(call.method, error))
        finally:
            CALLS.labels(call.method, getattr(code, "name", str(code))).inc()

    def _authenticate(self, call: "_Call") -> Identity | None:
        """From the client certificate, else from the bearer token; None for nobody."""
        identity = self._by_certificate(call.context) or self._by_token(call.metadata)
        if identity and identity.expires_ms <= self._clock.now_ms():
            raise NotAuthenticated("the certificate or token has expired")
        return identity

    def _by_certificate(self, context: Context) -> Identity | None:
        for pem in context.auth_context().get("x509_pem_cert", ()):
            return self._identity_of_pem(pem)
        return None

    def _by_token(self, metadata: Any) -> Identity | None:
        headers = [value for key, value in metadata or () if key == "authorization"]
        if not headers:
            return None
        scheme, _, text = headers[0].partition(" ")
        token = tokens.parse_user(text) if scheme == "Bearer" and len(headers) == 1 else None
        record = self._users(token.id) if token else None
        if token is None or record is None or not token.matches(record.hash):
            raise NotAuthenticated("this token is not known here")
        mistake = authorization.mistake_in_grant(record.role, record.tenant)
        if mistake:
            raise NotAllowed(f"the token of {record.name!r} grants nothing: its role {mistake}")
        return Identity(record.role, record.name, record.tenant, expires_ms=record.expires_ms)

    async def _in_time(
        self, identity: Identity | None, call: "_Call", request: Any, behavior: Callable[..., Any]
    ) -> Any:
        """The servicer's answer, unless the call's time or the caller's credential runs out before."""
        credential_s = (identity.expires_ms - self._clock.now_ms()) / 1000 if identity else math.inf
        bound_s = math.inf if call.response_streaming else self._limits.unary_s
        limit_s = min(credential_s, bound_s)
        try:
            async with asyncio.timeout(None if limit_s == math.inf else limit_s) as scope:
                if call.response_streaming:
                    with self._while_admitted(call, scope):
                        return await _stream(behavior(request, call.context), call.context)
                return await behavior(request, call.context)
        except TimeoutError:
            if not scope.expired():
                raise
            self._authenticate(call)  # says so when the token was revoked meanwhile
            if credential_s < bound_s:
                raise NotAuthenticated("the certificate or token has expired") from None
            raise OutcomeUnknown(f"no answer within {bound_s:g} s") from None

    @contextlib.contextmanager
    def _while_admitted(self, call: "_Call", scope: asyncio.Timeout) -> Iterator[None]:
        """A person's stream ends soon after its token was revoked: nothing else asks again who is listening."""
        loop = asyncio.get_running_loop()
        going_on = not self._by_certificate(call.context)

        def look() -> None:
            if not going_on:
                return
            try:
                self._by_token(call.metadata)
            except AtollError:
                scope.reschedule(loop.time())
            else:
                loop.call_later(TOKEN_LOOK_S, look)

        if going_on:
            loop.call_later(TOKEN_LOOK_S, look)
        try:
            yield
        finally:
            going_on = False


@dataclass(frozen=True, slots=True)
class _Call:
    """What the border knows of one call beside its request."""

    method: str
    metadata: Any
    context: Context
    request_streaming: bool
    response_streaming: bool


class _Rates:
    """A token bucket for each caller. Bounded: the caller that was quiet longest is forgotten first."""

    def __init__(self, per_s: float, burst: int, callers: int = 50_000) -> None:
        self._per_ms = per_s / 1000
        self._burst = float(burst)
        self._callers = callers
        self._left: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def take(self, caller: Hashable, now_ms: int) -> None:
        """One call of `caller`; raises Busy when its bucket is empty."""
        left, since_ms = self._left.pop(caller, (self._burst, now_ms))
        left = min(self._burst, left + (now_ms - since_ms) * self._per_ms)
        self._left[caller] = (left - 1 if left >= 1 else left, now_ms)
        if len(self._left) > self._callers:
            self._left.popitem(last=False)
        if left < 1:
            raise Busy("too many calls", retry_after_ms=max(1, round((1 - left) / self._per_ms)))


def _rate_key(identity: Identity | None, context: Context) -> Hashable:
    if identity is None:
        return context.peer().rpartition(":")[0]  # the host
    return identity.role, identity.tenant, identity.region, identity.name


async def _stream(answer: Any, context: Context) -> None:
    """Runs a streaming method to its end, be it a generator or a coroutine that writes by itself. A generator is
    closed here and now when the call ends early, so that its clean-up does not wait for the garbage collector.
    """
    if inspect.isawaitable(answer):
        await answer
        return
    async with contextlib.aclosing(answer):
        async for message in answer:
            await context.write(message)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Invalid(f"a certificate or key cannot be read: {error}", code="E1014") from error


def _arity(streaming: bool) -> str:
    return "stream" if streaming else "unary"


def _server_options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),  # a second process on the same port must fail, not share it
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_concurrent_streams", limits.streams_per_connection),
        ("grpc.server_handshake_timeout_ms", limits.handshake_ms),
        ("grpc.http2.min_ping_interval_without_data_ms", limits.keepalive_at_least_ms),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # What a connection costs, and a region has 10,000: by default 16 KiB for what is being encrypted, and a log.
        ("grpc.tsi.max_frame_size", 2_048),
        ("grpc.enable_channelz", 0),
    ]


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> str:
    host = address.rpartition(":")[0]
    try:
        return f"{host}:{server.add_secure_port(address, credentials)}"
    except RuntimeError as error:
        raise Unavailable(f"cannot listen on {address!r}: {error}", code="E5003") from error


def _defect(method: str, error: Exception) -> AtollError:
    """What the caller may know of a defect: an id, under which the log has the rest."""
    error_id = secrets.token_hex(8)
    log.error("defect in a call", method=method, error_id=error_id, exc_info=error)
    if isinstance(error, InvariantBroken):  # the program's shell ends the process
        asyncio.get_running_loop().call_exception_handler({"message": f"in {method}", "exception": error})
    return AtollError("the server failed at this call; its log has the reason", request_id=error_id)
