"""The client: channels to the servers of one service, and the nouns on them."""

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import grpc.aio

from atoll import errors, rpc, tokens
from atoll.api.v1 import global_pb2_grpc, regional_pb2_grpc
from atoll.clock import SystemClock
from atoll.credentials import why_unusable
from atoll.identity import TlsFiles
from atoll.sdk import contexts
from atoll.sdk.calls import Caller
from atoll.sdk.contexts import Connection
from atoll.sdk.inventory import Events, Queue, Regions, Slots, Tenants, Tokens
from atoll.sdk.nodes import Nodes
from atoll.sdk.policies import Policies
from atoll.sdk.servers import Servers
from atoll.sdk.workloads import Workloads


class AsyncClient:
    """`async with AsyncClient() as c:` dials the current context; arguments replace its parts. `address` may name
    several servers of one service (a leader and its standbys), separated by spaces or commas.

    Belongs to the event loop it is made in. A server that cannot be reached within `reach_s` is Unavailable, before any
    call's own deadline. Raises Invalid when there is nothing to dial or a file cannot be read, and NotAuthenticated
    when the token is none.
    """

    def __init__(
        self,
        address: str = "",
        *,
        context: str = "",
        ca: str | Path = "",
        token: str = "",
        certificate: str | Path = "",
        key: str | Path = "",
        tenant: str = "",
        reach_s: float = 15.0,
    ) -> None:
        given = Connection(address, str(ca), token, str(certificate), str(key), tenant)
        self.connection = _complete(given, context)
        chosen = self.connection
        client = TlsFiles(Path(chosen.certificate), Path(chosen.key), Path(chosen.ca)) if chosen.certificate else None
        if client and (why := why_unusable(client, SystemClock().now_ms())):
            raise errors.NotAuthenticated(why, hint="atoll ca issue admin NAME --into FOLDER", code="E4002")
        self._servers = Servers(
            chosen.addresses,
            lambda address: rpc.channel(address, ca=Path(chosen.ca), client=client, token=chosen.token),
            programs=client is not None,
        )
        caller = Caller(self._servers, reach_s)
        channel = cast("grpc.aio.Channel", self._servers)  # what a stub asks of one
        everywhere = global_pb2_grpc.GlobalStub(channel)
        region = regional_pb2_grpc.RegionalStub(channel)
        self.workloads = Workloads(caller, everywhere, chosen.tenant)
        self.tenants = Tenants(caller, everywhere)
        self.regions = Regions(caller, everywhere)
        self.policies = Policies(caller, everywhere)
        self.nodes = Nodes(caller, region)
        self.slots = Slots(caller, region, chosen.tenant)
        self.queue = Queue(caller, region, chosen.tenant)
        self.events = Events(caller, everywhere, region, chosen.tenant)
        self.tokens = Tokens(caller, everywhere, region)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._servers.close()


def _complete(given: Connection, context: str) -> Connection:
    """`given`, completed by the context unless it says all by itself."""
    base = Connection() if given.address and given.ca and not context else contexts.connection(context)
    credentials = ("token", "certificate", "key")
    if any(getattr(given, name) for name in credentials):
        base = replace(base, token="", certificate="", key="")
    merged = replace(base, **{name: value for name in Connection.__slots__ if (value := getattr(given, name))})
    missing = [name for name in ("address", "ca") if not getattr(merged, name)]
    if merged.certificate and not merged.key:
        missing.append("key")
    if missing:
        raise errors.Invalid(
            f"nowhere to connect to: no {' and no '.join(missing)}",
            hint="atoll dev, or atoll context set NAME --address HOST:PORT --ca FILE --token TOKEN",
            code="E1012",
        )
    for address in merged.addresses:
        host, _, port = address.rpartition(":")
        if not host or "/" in host or not (port.isascii() and port.isdecimal() and 0 < int(port[:6]) <= 65_535):
            raise errors.Invalid(f"the address {address[:80]!r} is not HOST:PORT", code="E1012")
    if merged.token and tokens.parse_user(merged.token) is None:
        raise errors.NotAuthenticated("this is no user token: those are atoll-user.ID.SECRET", hint="atoll auth login")
    return merged
