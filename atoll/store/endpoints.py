"""Which etcd member to ask next: one channel for each, the last good one first, a failed one left out for a while.

gRPC's own balancing is not used: it would hide which member a write went to, and may try another one by itself.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from atoll.store.store import StoreUnavailable

_QUARANTINE_S = 2.0
_OPTIONS = (
    ("grpc.enable_retries", 0),  # a write sent twice may be done twice
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),  # a page of 10,000 keys is more than the default 4 MiB
    ("grpc.max_send_message_length", -1),  # the store counts before it sends
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class ClientTls(Protocol):
    """PEM files: the client's certificate and key, and the CA that etcd's certificate is checked against."""

    @property
    def certificate(self) -> Path: ...
    @property
    def key(self) -> Path: ...
    @property
    def ca(self) -> Path: ...


@dataclass(eq=False, slots=True)
class Endpoint:
    address: str
    channel: grpc.aio.Channel
    version: str = ""  # as it said when asked last; empty while it never answered
    failure: str = ""  # why it did not answer when asked for its status last
    avoided_until_s: float = 0.0


class Endpoints:
    def __init__(self, addresses: Sequence[str], tls: ClientTls | None) -> None:
        self.all = tuple(Endpoint(address, _channel(address, tls)) for address in addresses)
        self._preferred = 0
        self._closed = False

    def pick(self) -> Endpoint:
        """The preferred member; when it failed of late, the next that did not, else the one that failed longest ago.
        Raises StoreUnavailable once closed."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        now_s = time.monotonic()
        for step in range(len(self.all)):
            index = (self._preferred + step) % len(self.all)
            if self.all[index].avoided_until_s <= now_s:
                self._preferred = index
                return self.all[index]
        return min(self.all, key=lambda endpoint: endpoint.avoided_until_s)

    def avoid(self, endpoint: Endpoint) -> None:
        """It failed: leave it out for a while."""
        endpoint.avoided_until_s = time.monotonic() + _QUARANTINE_S

    async def close(self) -> None:
        self._closed = True
        for endpoint in self.all:
            await endpoint.channel.close()


def _channel(address: str, tls: ClientTls | None) -> grpc.aio.Channel:
    if tls is None:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes(),
        private_key=tls.key.read_bytes(),
        certificate_chain=tls.certificate.read_bytes(),
    )
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
