"""A whole cluster of real processes for tests: what `atoll dev` starts, made to be struck and to come back.

Every program listens where it will listen again, so a restarted one is found by the others. Heartbeats are a second
apart, so that losing a node takes seconds. Everything is known by its process id and is ended by it.
"""

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from atoll import audit
from atoll.api.v1 import objects_pb2
from atoll.cli import playground, verify
from atoll.cli.children import STATE_VARIABLE
from atoll.cli.dev_cluster import DevCluster, NodePlan
from atoll.sdk.client import AsyncClient
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from tests.support.etcd import need_etcd
from tests.support.freeze import freeze


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
    """`with Cluster(folder) as cluster:` regions with `agents` nodes each, and the tenant `default`."""

    def __init__(
        self,
        folder: Path,
        regions: Sequence[str] = ("r1",),
        *,
        agents: int = 3,
        candidates: int = 1,
        at_start: int = 9,
        members: int = 1,
        nodes: Callable[[str, int], list[NodePlan]] = playground.nodes_of,
        heartbeat_ms: int = 1_000,
        **region_settings: int,
    ) -> None:
        need_etcd()
        super().__init__(
            folder,
            regions,
            candidates=candidates,
            at_start=at_start,
            members=members,
            region_settings={"heartbeat_ms": heartbeat_ms, **region_settings},
        )
        self._agents = agents
        self._nodes = nodes

    def __enter__(self) -> Self:
        try:
            playground.start(self, self._agents, nodes=self._nodes)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        left = self.left()
        assert not left or kind is not None, left

    def client(self) -> AsyncClient:
        """As admin, on the loop that runs."""
        return playground.client_of(self.connection)

    # ---- strikes

    def kill(self, name: str) -> None:
        """kill -9."""
        process = self.named(name).process
        process.kill()
        process.wait()

    def restart(self, name: str) -> None:
        """A killed program again, with the same settings and data; returns when it serves."""
        self.await_ready(self.relaunch(name))

    @contextlib.contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        process = self.named(name).process
        freeze(process.pid)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def start_standby(self, region: str) -> None:
        """A second process of the region, beside the one that leads."""
        self.await_ready(self.launch_region(region, self.region_names(region)[1]))

    # ---- what there is

    async def leader(self, root: bytes) -> str:
        """The name of the process that leads this store; empty while none does."""
        store = await EtcdStore.connect(self.etcd)
        try:
            item, _ = await store.get(keys.leader(root))
        finally:
            await store.close()
        return objects_pb2.Leader.FromString(item.value).name if item else ""

    async def verdict(self) -> audit.Verdict:
        """The auditor's, from revision 1."""
        return await verify.audit_store(self.etcd, quiet=True)

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
