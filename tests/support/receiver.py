"""A web server that keeps what is posted to it, and answers as a test wants."""

import asyncio
import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Posted:
    target: str
    headers: dict[str, str]  # names in lower case
    body: bytes


class Receiver:
    """`async with Receiver()`. `answers`: status lines of the next posts; afterwards all are taken."""

    def __init__(self, *answers: bytes, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.posted: list[Posted] = []
        self.answers = list(answers)
        self.port = port
        self._tls = tls

    async def __aenter__(self) -> "Receiver":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            self.posted.append(Posted(first.split()[1], headers, body))
            answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 204 No Content\r\n\r\n"
            if not answer:
                await reader.read()  # says nothing until the other side gives up
            writer.write(answer)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
