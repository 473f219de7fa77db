"""Posts notices to the addresses that jobs name. Decides nothing but whether an address may be dialled.

The name is resolved here and the very address that was looked at is dialled, so that no second answer of a name server
leads elsewhere: it must be a public one, or of `webhook_networks`, or stand in `webhooks` as a number. No redirect is
followed, no proxy asked, and of the answer only the status line is read. One try is over after `webhook_timeout_s`.

The headers are those of Standard Webhooks: webhook-id, webhook-timestamp and, for a tenant with a file in
`webhook_secrets`, webhook-signature: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog
from prometheus_client import Counter

from atoll.clock import Clock
from atoll.model.urls import Url, parse_url
from global_cp.config import Settings
from global_cp.core.commands import Notify
from global_cp.core.events import Event, Notified
from global_cp.core.notify_rules import why_not

SENT = Counter("atoll_webhooks", "Notices posted, by how it went.", ["outcome"])
GONE = 410  # the receiver wants no more of it
_STATUS_LINE_BYTES = 1_024
_PREFIX = "whsec_"  # of secrets in base64
_log = structlog.get_logger()
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV6_UNICAST = ipaddress.IPv6Network("2000::/3")


class Refused(Exception):
    """Why an address is not dialled, or did not take the notice. `final`: it never will."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class Webhooks:
    def __init__(self, settings: Settings, clock: Clock, post: Callable[[Event], None]) -> None:
        self._settings = settings
        self._clock = clock
        self._post = post
        self._networks = [ipaddress.ip_network(network) for network in settings.webhook_networks]
        self._wanted: asyncio.Queue[Notify] = asyncio.Queue()  # bounded by the core: notify_at_once

    def send(self, command: Notify) -> None:
        self._wanted.put_nowait(command)

    async def run(self) -> None:
        """Until cancelled."""
        tls = ssl.create_default_context(cafile=self._settings.webhook_ca)
        async with asyncio.TaskGroup() as tries:
            while True:
                tries.create_task(self._try(await self._wanted.get(), tls))

    async def _try(self, command: Notify, tls: ssl.SSLContext) -> None:
        error, final = "", False
        try:
            async with asyncio.timeout(self._settings.webhook_timeout_s):
                await self._deliver(command, tls)
        except TimeoutError:
            error = f"no answer within {self._settings.webhook_timeout_s:g} s"
        except Refused as refused:
            error, final = str(refused), refused.final
        except (OSError, ValueError, asyncio.IncompleteReadError) as failed:
            error = str(failed) or type(failed).__name__
        SENT.labels("failed" if error else "delivered").inc()
        if error:
            _log.warning("a notice was not delivered", tenant=command.tenant, id=command.id, error=error)
        self._post(Notified(command.number, error, final))

    async def _deliver(self, command: Notify, tls: ssl.SSLContext) -> None:
        if refused := why_not(command.url, self._settings.webhooks):
            raise Refused(refused)
        url = parse_url(command.url)
        request = self._request(command, url)
        address = await self._address(url)
        secure = url.scheme == "https"
        reader, writer = await asyncio.open_connection(
            str(address),
            url.port,
            limit=_STATUS_LINE_BYTES,
            ssl=tls if secure else None,
            server_hostname=url.host if secure else None,
        )
        try:
            writer.write(request)
            await writer.drain()
            _judge(await reader.readline())
        finally:
            writer.transport.abort()

    async def _address(self, url: Url) -> Address:
        """The first address of the host that may be dialled."""
        try:
            return ipaddress.ip_address(url.host)  # stands in `webhooks` as a number
        except ValueError:
            pass
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(info[4][0]) for info in found]
        for address in addresses:
            if self._may_dial(address):
                return address
        told = ", ".join(map(str, dict.fromkeys(addresses)))
        raise Refused(f"{url.host} is {told}: not public, and not of the setting webhook_networks")

    def _may_dial(self, address: Address) -> bool:
        plain = _reached(address)
        return _is_public(plain) or any(one in network for network in self._networks for one in (plain, address))

    def _request(self, command: Notify, url: Url) -> bytes:
        at = self._clock.now_ms() // 1_000
        lines = [
            f"POST {url.target} HTTP/1.1",
            f"Host: {url.authority}",
            "User-Agent: atoll",
            "Content-Type: application/json",
            f"Content-Length: {len(command.body)}",
            "Connection: close",
            f"webhook-id: {command.id}",
            f"webhook-timestamp: {at}",
        ]
        if secret := self._secret(command.tenant):
            lines.append(f"webhook-signature: {signature(secret, command.id, at, command.body)}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + command.body

    def _secret(self, tenant: str) -> bytes:
        """Read each time, so that one that is changed counts at once. Empty: the tenant has none."""
        folder = self._settings.webhook_secrets
        return secret_in(folder / tenant) if folder is not None else b""


def _reached(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, which is where gateways and kernels take it; else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_public(address: Address) -> bool:
    """Of IPv6 only what is allotted to the Internet: `is_global` takes what no table mentions for global."""
    allotted = address.version == 4 or address in _IPV6_UNICAST
    return allotted and address.is_global and not address.is_multicast


def secret_in(file: Path) -> bytes:
    """Empty when there is no such file. What is wrong with one is told without its path and its content."""
    try:
        text = file.read_text(encoding="utf-8").strip()
        secret = (
            base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else text.encode()
        )
    except FileNotFoundError:
        return b""
    except (OSError, UnicodeDecodeError):
        raise Refused(f"the secret in {file.name} cannot be read") from None
    except ValueError:
        raise Refused(f"the secret in {file.name} begins with {_PREFIX} and is not base64") from None
    if not secret:
        raise Refused(f"the secret in {file.name} is empty")
    return secret


def signature(secret: bytes, notice_id: str, at_s: int, body: bytes) -> str:
    signed = f"{notice_id}.{at_s}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def _judge(line: bytes) -> None:
    """Of the status line. Raises Refused unless it says that the notice was taken."""
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise Refused("the answer is not HTTP")
    status = int(parts[1])
    if 300 <= status < 400:
        raise Refused(f"status {status}: redirects are not followed")
    if not 200 <= status < 300:
        raise Refused(f"status {status}", final=status == GONE)
