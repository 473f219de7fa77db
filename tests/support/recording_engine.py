"""A unix socket where an engine would listen: answers just enough for a start, and records every byte it was sent.

Its answers are held to a real engine's by tests/unit/agent/drivers/test_engine.py.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

ID = "f" * 64
VERSION = "1.41"


@dataclass(frozen=True)
class Recorded:
    method: str
    path: str  # without the version
    query: dict[str, list[str]]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RecordingEngine:
    """`async with RecordingEngine(path) as engine`: `engine.requests` has all of them.

    `silent`: paths that get no answer. `instead`: answers other than the usual ones, by method and path.
    """

    socket: Path
    requests: list[Recorded] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    instead: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, str(self.socket))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()

    def creations(self) -> list[Recorded]:
        return [r for r in self.requests if (r.method, r.path) == ("POST", "/containers/create")]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                request_line, *lines = head.decode().split("\r\n")
                method, target, _ = request_line.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                url = urlsplit(target)
                path = url.path.removeprefix(f"/v{VERSION}")
                self.requests.append(Recorded(method, path, parse_qs(url.query), body))
                if path in self.silent:
                    await reader.read()
                    break
                status, answer = self.instead.get((method, path)) or answer_to(method, path)
                text = b"" if answer is None else json.dumps(answer).encode()
                reply = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
                writer.write(reply.encode() + text)
                if path == "/events":
                    await reader.read()
                    break
        writer.close()


_EXACT: dict[tuple[str, str], Callable[[], tuple[int, Any]]] = {
    ("GET", "/version"): lambda: (200, {"ApiVersion": VERSION, "MinAPIVersion": "1.12", "Version": "20.10.0"}),
    ("GET", "/containers/json"): lambda: (200, []),
    ("GET", "/events"): lambda: (200, None),
    ("GET", "/images/json"): lambda: (200, [{"Created": 1, "RepoTags": ["some/image:1"], "RepoDigests": None}]),
    ("POST", "/containers/create"): lambda: (201, {"Id": ID, "Warnings": []}),
    ("GET", f"/containers/{ID}/json"): lambda: (
        200,
        {"Id": ID, "Path": "/bin/true", "Config": {"Env": []}, "HostConfig": {}, "State": {"Status": "running"}},
    ),
    ("HEAD", f"/containers/{ID}/archive"): lambda: (200, None),
    ("POST", f"/containers/{ID}/start"): lambda: (204, None),
}


def answer_to(method: str, path: str) -> tuple[int, Any]:
    known = _EXACT.get((method, path))
    return known() if known else (404, {"message": "No such container"})
