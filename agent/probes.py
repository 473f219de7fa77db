"""Single checks of a run: http, tcp, command; each with a deadline, so many at once and no more. A command's deadline
is its driver's, which knows when it began.

When to check and what an answer means is decided in core/health. Ports are asked at the run's own loopback address, or
at the one that all runs share.
"""

import asyncio

from agent.addresses import Addresses
from agent.core.commands import ProbeReplica
from agent.core.events import ProbeAnswered
from agent.drivers.driver import Driver
from atoll.api.v1 import objects_pb2
from atoll.errors import Unavailable

_STATUS_LINE_BYTES = 1024


class Probes:
    def __init__(self, driver: Driver, addresses: Addresses, at_once: int) -> None:
        self._driver = driver
        self._addresses = addresses
        self._places = asyncio.Semaphore(at_once)

    async def check(self, probe: ProbeReplica) -> ProbeAnswered:
        """Never raises for a check that failed: that is an answer. One that could not be made is told as such."""
        timeout_s = None if probe.check.WhichOneof("check") == "command" else probe.timeout_ms / 1000
        ok: bool | None
        async with self._places:
            try:
                async with asyncio.timeout(timeout_s):
                    ok, message = await self._answer(probe)
            except Unavailable as unavailable:
                ok, message = None, unavailable.message
            except TimeoutError:
                ok, message = False, f"no answer within {probe.timeout_ms} ms"
            except OSError as error:
                ok, message = False, error.strerror or str(error)
        return ProbeAnswered(probe.probe_id, ok, message)

    async def _answer(self, probe: ProbeReplica) -> tuple[bool, str]:
        host = self._addresses.probed(probe.run)
        match probe.check.WhichOneof("check"):
            case "http":
                return await _http(host, probe.check.http)
            case "tcp":
                return await _tcp(host, probe.check.tcp.port)
            case "command":
                return await self._driver.exec_check(probe.run, list(probe.check.command.command), probe.timeout_ms)
            case _:
                return True, ""


async def _tcp(host: str, port: int) -> tuple[bool, str]:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()
    return True, ""


async def _http(host: str, check: objects_pb2.HttpCheck) -> tuple[bool, str]:
    """GET; any status from 200 to 399 is well."""
    path = check.path or "/"
    if not path.startswith("/") or any(c <= " " or c == "\x7f" for c in path):
        return False, f"the path {path!r} cannot be asked for"
    reader, writer = await asyncio.open_connection(host, check.port, limit=_STATUS_LINE_BYTES)
    try:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{check.port}\r\nUser-Agent: atoll\r\nConnection: close\r\n\r\n"
        writer.write(request.encode())
        line = await reader.readline()
    except ValueError:
        return False, "the answer is not HTTP"
    finally:
        writer.close()
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
        return False, "the answer is not HTTP"
    return 200 <= int(parts[1]) < 400, f"status {int(parts[1])}"
