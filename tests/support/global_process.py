"""The global plane as a child process on free ports: started, killed, started again."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio

from atoll import rpc
from atoll.api.v1 import global_pb2_grpc, regional_pb2_grpc
from tests.support.etcd import free_ports
from tests.support.pki import Pki

START_S = 20.0


class GlobalProcess:
    """`async with GlobalProcess(...)`. The ports stay the same over a restart."""

    def __init__(self, folder: Path, pki: Pki, etcd: tuple[str, ...], name: str = "g1", **settings: object) -> None:
        people, programs = free_ports(2)
        tls = pki.global_plane(name)
        self.pki = pki
        self.people, self.programs = f"127.0.0.1:{people}", f"127.0.0.1:{programs}"
        self.config = folder / f"{name}.toml"
        values: dict[str, object] = {
            "name": name,
            "etcd": list(etcd),
            "people": self.people,
            "programs": self.programs,
            "metrics": "",
            "certificate": str(tls.certificate),
            "key": str(tls.key),
            "ca": str(tls.ca),
            "election_ttl_s": 2,
            **settings,
        }
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
        self._log = folder / f"{name}.log"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "GlobalProcess":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns at its ready line."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "global_cp", "--config", str(self.config),
                stdout=asyncio.subprocess.PIPE, stderr=log, stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        assert self._process.stdout is not None
        async with asyncio.timeout(START_S):
            line = await self._process.stdout.readline()
        assert line, self.log()
        assert json.loads(line)["ready"] == "atoll-global"

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(START_S):
                    await self._process.wait()
            except TimeoutError:
                await self.kill()
        return self._process.returncode or 0

    def log(self) -> str:
        return self._log.read_text(errors="replace")


class Client:
    """Stubs of both services over one channel: as admin by certificate, or as a user by token."""

    def __init__(self, process: GlobalProcess, token: str = "") -> None:
        ca = process.pki.ca
        if token:
            self.channel = rpc.channel(process.people, ca=ca, token=token)
        else:
            self.channel = rpc.channel(process.programs, ca=ca, client=process.pki.admin())
        self.api = global_pb2_grpc.GlobalStub(self.channel)
        self.regional = regional_pb2_grpc.RegionalStub(self.channel)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()


async def until(condition: Callable[[], Awaitable[object] | object], deadline_s: float = 20.0) -> None:
    """Waits for a condition; a transport or standby error counts as not yet."""
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                result = condition()
                if isinstance(result, Awaitable):
                    result = await result
                if result:
                    return
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            await asyncio.sleep(0.02)
