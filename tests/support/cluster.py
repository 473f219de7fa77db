"""A whole cluster of real processes for tests: what `atoll dev` starts, made to be struck and to come back.

Every program listens where it will listen again, so a restarted one is found by the others; agents know the addresses
of two candidates for their region. Heartbeats are a second apart, so that losing a node takes seconds. Everything is
known by its process id and is ended by it.
"""

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atoll import audit
from atoll.api.v1 import objects_pb2
from atoll.cli import dev, verify
from atoll.cli.dev_cluster import ETCD, HOSTS, KEEP_ALL, STATE_VARIABLE, DevCluster, Program, healthy, pem, read_ready
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from tests.support.etcd import free_ports, need_etcd

REGION = "r1"
GLOBAL = "global-1"
LEADER, STANDBY = f"{REGION}-1", f"{REGION}-2"
NODES = tuple(f"{REGION}-n{number}" for number in (1, 2, 3))
_HEARTBEAT = {"heartbeat_ms": 1_000}


@dataclass(frozen=True, slots=True)
class Replica:
    """One process that runs a replica's command; its supervisor is not one."""

    pid: int
    slot: str
    node: str
    argv: tuple[str, ...]

    @property
    def workload(self) -> str:
        return self.slot.split("/")[1]

    @property
    def alive(self) -> bool:
        """Whether this very process is still there, and is no zombie."""
        return _replica(self.pid) == self


class Cluster(DevCluster):
    """`with Cluster(folder) as cluster:` one region with the nodes NODES, and the tenant `default`."""

    def __init__(self, folder: Path) -> None:
        need_etcd()
        super().__init__(folder)
        names = (GLOBAL, LEADER, STANDBY)
        ports = [f"127.0.0.1:{port}" for port in free_ports(2 * len(names))]
        self._addresses = dict(zip(names, zip(ports[::2], ports[1::2], strict=True), strict=True))
        self.connection = Connection()

    def __enter__(self) -> Self:
        try:
            self.connection = dev.start(self, regions=1, agents=len(NODES))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self.programs:
            program.process.send_signal(signal.SIGCONT)
        self.stop()
        left = self.left()
        assert not left or kind is not None, left

    def client(self) -> AsyncClient:
        """As admin, on the loop that runs."""
        it = self.connection
        return AsyncClient(it.address, ca=it.ca, certificate=it.certificate, key=it.key, tenant=it.tenant)

    # ---- strikes

    def named(self, name: str) -> Program:
        return next(program for program in self.programs if program.name == name)

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.named(name).process
        process.kill()
        process.wait()

    def restart(self, name: str) -> None:
        """A killed program again, with the same settings and data; returns when it serves."""
        before = self.named(name)
        self.programs.remove(before)
        if before.process.stdout is not None:
            before.process.stdout.close()
        arguments = before.process.args
        assert isinstance(arguments, list)
        program = self._spawn(name, arguments)
        self._until(program, lambda: healthy(f"http://{self.etcd}") if name == ETCD else read_ready(program))

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        process = self.named(name).process
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def start_standby(self) -> None:
        """A second process of the region, beside the one that leads."""
        folder = self.folder / STANDBY
        tls = self._authority.issue_region(REGION, STANDBY, HOSTS, folder, self._now_ms)
        issuer = self.folder / REGION / "issuer"
        (folder / "state").mkdir()
        settings = {
            "region": REGION,
            "name": STANDBY,
            "etcd": [self.etcd],
            "history_s": KEEP_ALL,
            "metrics": "127.0.0.1:0",
            **pem(tls),
            "issuer_certificate": str(issuer / "issuer.crt"),
            "issuer_key": str(issuer / "issuer.key"),
            "global_plane": [self._addresses[GLOBAL][1]],
            "state_dir": str(folder / "state"),
        }
        self._start(STANDBY, "regional", settings)

    # ---- what there is

    async def leader(self, root: bytes | None = None) -> str:
        """The name of the process that leads the region; empty while none does."""
        store = await EtcdStore.connect([self.etcd])
        try:
            item, _ = await store.get(keys.leader(root or keys.region_root(REGION)))
        finally:
            await store.close()
        return objects_pb2.Leader.FromString(item.value).name if item else ""

    async def verdict(self) -> audit.Verdict:
        """The auditor's, from revision 1."""
        return await verify.audit_store((self.etcd,))

    def replicas(self) -> dict[str, list[Replica]]:
        """Every process of a replica on the nodes of this cluster, by its slot."""
        found: defaultdict[str, list[Replica]] = defaultdict(list)
        for pid in _pids():
            replica = _replica(pid, str(self.folder.resolve()))
            if replica is not None:
                found[replica.slot].append(replica)
        return dict(found)

    def left(self) -> list[str]:
        """Processes that know this cluster's folder, from their arguments or their environment; not the test's own."""
        found = []
        for pid in _pids():
            with contextlib.suppress(OSError):
                arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
                if pid != os.getpid() and str(self.folder).encode() in arguments + _environ(pid):
                    found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
        return found

    # ---- how it differs from `atoll dev`

    def _launch(self, name: str, module: str, settings: dict[str, Any]) -> Program:
        changed: dict[str, Any] = {}
        if name in self._addresses:
            changed["people"], changed["programs"] = self._addresses[name]
        if module == "regional":
            changed |= _HEARTBEAT
        if module == "agent":
            candidates = [self._addresses[LEADER], self._addresses[STANDBY]]
            changed["region_people"] = [people for people, _ in candidates]
            changed["region_programs"] = [programs for _, programs in candidates]
        return super()._launch(name, module, settings | changed)


class Overlaps:
    """Watches the processes for two that run the same slot at the same moment.

    `async with Overlaps(cluster) as overlaps:`; `overlaps.seen` holds each pair of one slot once.
    """

    PERIOD_S = 0.2

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._task: asyncio.Task[None] | None = None
        self.seen: dict[str, tuple[Replica, Replica]] = {}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _watch(self) -> None:
        while True:
            for slot, found in (await asyncio.to_thread(self._cluster.replicas)).items():
                # One look takes a while: the first may have ended before the second began.
                if len(found) > 1 and len(alive := [replica for replica in found if replica.alive]) > 1:
                    self.seen[slot] = (alive[0], alive[1])
            await asyncio.sleep(self.PERIOD_S)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _environ(pid: int) -> bytes:
    """As it was when the process began; nothing for a zombie."""
    return Path(f"/proc/{pid}/environ").read_bytes()


def _replica(pid: int, below: str = "/") -> Replica | None:
    """The replica that this process runs for an agent with its state `below`."""
    try:
        entries = _environ(pid).split(b"\0")
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return None
    said = dict(entry.decode(errors="replace").partition("=")[::2] for entry in entries)
    if "ATOLL_SLOT" not in said or not said.get(STATE_VARIABLE, "").startswith(below):
        return None
    words = tuple(word.decode(errors="replace") for word in argv)
    return Replica(pid, said["ATOLL_SLOT"], said["ATOLL_NODE"], words)
