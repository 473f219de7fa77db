"""Real etcd members for tests, on free loopback ports and in data folders of their own: killed, paused, restarted.

Everything here blocks (a signal at once, a start for about a second); call what waits from a coroutine through
`asyncio.to_thread`. What was started is ended by its process id, at the latest when the interpreter exits.
"""

import atexit
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from atoll.store.binary import EtcdMissing, find_etcd
from atoll.store.endpoints import ClientTls
from tests.support.freeze import freeze

REQUIRE = "ATOLL_REQUIRE_ETCD"


def need_etcd() -> Path:
    """The binary's path. Without one: a failure where ATOLL_REQUIRE_ETCD=1, else a skip."""
    try:
        return find_etcd().path
    except EtcdMissing as missing:
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Member:
    name: str
    folder: Path
    client_port: int
    peer_port: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class EtcdCluster:
    """`with EtcdCluster(members=3) as cluster:`; members are named by their index."""

    def __init__(
        self, members: int = 1, *, fsync: bool = True, flags: Sequence[str] = (), tls: ClientTls | None = None
    ) -> None:
        """Without `fsync` the data is in memory (/dev/shm): for tests that start many. `flags` go to each member.
        With `tls` clients need a certificate of its CA, and the members show it as theirs."""
        self._binary = need_etcd()
        self._tls = tls
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if tls:
            context = ssl.create_default_context(cafile=str(tls.ca))
            context.load_cert_chain(tls.certificate, tls.key)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)
        parent = None if fsync or not Path("/dev/shm").is_dir() else "/dev/shm"
        self.folder = Path(tempfile.mkdtemp(prefix="atoll-etcd-", dir=parent))
        self._flags = tuple(flags)
        self._token = uuid.uuid4().hex
        self.members: list[Member] = []
        self._make_members(members)
        atexit.register(self.stop)

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self.members)

    def __enter__(self) -> "EtcdCluster":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, deadline_s: float = 30.0) -> None:
        """Every member that does not run; returns when each is healthy, which needs a leader."""
        first = all(member.process is None for member in self.members)
        for index, member in enumerate(self.members):
            if not member.running:
                self._spawn(index)
        try:
            self.wait_healthy(deadline_s=deadline_s)
        except RuntimeError as failed:
            if not first or "address already in use" not in str(failed):
                raise
            self._kill_all()  # somebody took a port between our look and etcd's bind
            self._make_members(len(self.members))
            self.start(deadline_s)

    def restart(self, index: int, deadline_s: float = 30.0) -> None:
        """Starts a killed member on its old data and waits until it is healthy."""
        self._spawn(index)
        self.wait_healthy(index, deadline_s=deadline_s)

    def wait_healthy(self, *indices: int, deadline_s: float = 30.0) -> None:
        end = time.monotonic() + deadline_s
        for index in indices or range(len(self.members)):
            while not self._healthy(index):
                member = self.members[index]
                if not member.running or time.monotonic() > end:
                    raise RuntimeError(f"etcd {member.name} is not healthy:\n{self.log(index)[-2000:]}")
                time.sleep(0.02)

    def kill(self, index: int) -> None:
        """kill -9."""
        process = self._process(index)
        process.kill()
        process.wait()

    def pause(self, index: int) -> None:
        freeze(self._process(index).pid)

    def resume(self, index: int) -> None:
        self._process(index).send_signal(signal.SIGCONT)

    def leader(self, deadline_s: float = 10.0) -> int:
        """The leading member's index, as a majority of the members says."""
        end = time.monotonic() + deadline_s
        while time.monotonic() < end:
            said = [status for i in range(len(self.members)) if (status := self._status(i))]
            for index, of_it, leader in said:
                if of_it == leader and 2 * sum(s[2] == leader for s in said) > len(self.members):
                    return index
            time.sleep(0.02)
        raise RuntimeError(f"no leader within {deadline_s} s")

    def log(self, index: int) -> str:
        return (self.folder / f"m{index}.log").read_text(errors="replace")

    def stop(self) -> None:
        """Kills every member and removes the data."""
        atexit.unregister(self.stop)
        self._kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_members(self, count: int) -> None:
        """All anew, on free ports and without data."""
        for member in self.members:
            shutil.rmtree(member.folder, ignore_errors=True)
        ports = free_ports(2 * count)
        self.members = [Member(f"m{i}", self.folder / f"m{i}", ports[2 * i], ports[2 * i + 1]) for i in range(count)]

    def _kill_all(self) -> None:
        for index, member in enumerate(self.members):
            if member.running:
                self.kill(index)

    def _url(self, index: int) -> str:
        return ("https://" if self._tls else "http://") + self.members[index].endpoint

    def _process(self, index: int) -> subprocess.Popen[bytes]:
        process = self.members[index].process
        assert process is not None, f"member {index} was never started"
        return process

    def _spawn(self, index: int) -> None:
        member = self.members[index]
        client = self._url(index)
        arguments = {
            "name": member.name,
            "data-dir": str(member.folder),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": member.peer_url,
            "initial-advertise-peer-urls": member.peer_url,
            "initial-cluster": ",".join(f"{m.name}={m.peer_url}" for m in self.members),
            "initial-cluster-token": self._token,
            "initial-cluster-state": "new",
            "logger": "zap",
            "log-level": "warn",
        }
        if self._tls:
            arguments |= {
                "cert-file": str(self._tls.certificate),
                "key-file": str(self._tls.key),
                "trusted-ca-file": str(self._tls.ca),
                "client-cert-auth": "true",
            }
        command = [str(self._binary), *(f"--{name}={value}" for name, value in arguments.items()), *self._flags]
        with (self.folder / f"m{index}.log").open("ab") as log:
            member.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _healthy(self, index: int) -> bool:
        answer = self._ask(index, "/health")
        return answer is not None and answer.get("health") == "true"

    def _status(self, index: int) -> tuple[int, str, str] | None:
        """(index, its own id, its leader's id)."""
        if not self.members[index].running:
            return None
        answer = self._ask(index, "/v3/maintenance/status", b"{}")
        return (index, answer["header"]["member_id"], answer.get("leader", "")) if answer else None

    def _ask(self, index: int, path: str, body: bytes | None = None) -> dict[str, Any] | None:
        request = urllib.request.Request(self._url(index) + path, body)
        try:
            with self._opener.open(request, timeout=1.0) as answer:
                decoded: dict[str, Any] = json.load(answer)
                return decoded
        except (OSError, ValueError):
            return None
