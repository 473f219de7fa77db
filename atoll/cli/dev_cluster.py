"""The ordinary programs and an etcd as child processes on free loopback ports, all in one folder.

Ports are taken before anything starts, so every program knows the addresses of every other from the beginning, and
finds it there again after a restart. Everything started is stopped in an order that leaves nothing running: agents,
replicas, the programs of the control plane, etcd.
"""

import functools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atoll import errors
from atoll.cli import children, containers
from atoll.cli.children import Program
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority, TlsFiles
from atoll.sdk.contexts import Connection
from atoll.store.binary import EtcdMissing, find_etcd, refusal

ETCD = "etcd"
KEEP_ALL = 0  # of the store's history: a playground can be audited from its first revision
HOSTS = ("127.0.0.1", "localhost")
RUN_NETWORK = "127.64.0.0/10"  # the nodes share one machine: each run has an address of its own here
TENANT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One agent. `settings` go into its file as they are: cpu_milli, memory_mib …"""

    name: str
    pool: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


class DevCluster:
    """`start_…` in the order etcd, control plane, agents; `stop` at any time, more than once if need be.

    `candidates`: how many processes may stand for leader of the global plane and of each region; the first `at_start`
    of them are started with the rest. `region_settings` go into the file of every regional scheduler.
    """

    def __init__(
        self,
        folder: Path,
        regions: Sequence[str] = ("r1",),
        *,
        candidates: int = 1,
        at_start: int = 9,
        members: int = 1,
        region_settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.regions = tuple(regions)
        self.programs: list[Program] = []
        self._candidates = range(1, candidates + 1)
        self._at_start = at_start
        self._region_settings = dict(region_settings or {})
        self._states: list[Path] = []
        self._now_ms = SystemClock().now_ms()
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        known = (folder / "ca" / "ca.key").exists()
        self._authority = (
            CertificateAuthority(folder / "ca")
            if known
            else CertificateAuthority.create(folder / "ca", "dev", self._now_ms)
        )
        self.admin: TlsFiles = self._authority.issue_admin("dev", folder / "admin", self._now_ms)
        planes = [*self.global_names(), *(name for region in self.regions for name in self.region_names(region))]
        ports = [f"127.0.0.1:{port}" for port in children.free_ports(2 * len(planes) + 2 * members)]
        self.addresses = {name: (ports.pop(), ports.pop()) for name in planes}  # for people, for programs
        names = [ETCD] if members == 1 else [f"{ETCD}-{number}" for number in range(1, members + 1)]
        self._etcd = {name: (ports.pop(), ports.pop()) for name in names}  # for clients, for the other members

    # ---- names and addresses

    def global_names(self) -> list[str]:
        return [f"global-{number}" for number in self._candidates]

    def region_names(self, region: str) -> list[str]:
        return [f"{region}-{number}" for number in self._candidates]

    @property
    def etcd_names(self) -> list[str]:
        return list(self._etcd)

    @property
    def etcd(self) -> tuple[str, ...]:
        """Every member, for clients."""
        return tuple(client for client, _ in self._etcd.values())

    @property
    def connection(self) -> Connection:
        """As admin, to every candidate of the global plane."""
        return Connection(
            " ".join(self.addresses[name][1] for name in self.global_names()),
            ca=str(self.admin.ca),
            certificate=str(self.admin.certificate),
            key=str(self.admin.key),
            tenant=TENANT,
            etcd_endpoints=" ".join(self.etcd),
        )

    def named(self, name: str) -> Program:
        return next(program for program in self.programs if program.name == name)

    # ---- start

    def start_etcd(self) -> str:
        """Its version. Raises Invalid when there is none that is good enough."""
        try:
            binary = find_etcd()
        except EtcdMissing as missing:
            raise errors.Invalid(str(missing), hint="apt install etcd-server", code="E1013") from None
        if reason := refusal(binary.version):
            raise errors.Invalid(reason, hint="atoll doctor", code="E1013")
        all_peers = ",".join(f"{name}=http://{peer}" for name, (_, peer) in self._etcd.items())
        for name, (client, peer) in self._etcd.items():
            arguments = {
                "name": name,
                "data-dir": str(self.folder / name),
                "listen-client-urls": f"http://{client}",
                "advertise-client-urls": f"http://{client}",
                "listen-peer-urls": f"http://{peer}",
                "initial-advertise-peer-urls": f"http://{peer}",
                "initial-cluster": all_peers,
            }
            command = [str(binary.path), *(f"--{key}={value}" for key, value in arguments.items())]
            self._spawn(name, command, prints_ready=False)
        for name in self._etcd:
            self.await_ready(self.named(name))
        return binary.version

    def start_control_plane(self) -> None:
        """The first candidate of the global plane and of each region, all at once; returns when each serves."""
        self._start_candidates(slice(1))

    def start_standbys(self) -> None:
        """The others. Once the first ones lead, it is these that stand by."""
        self._start_candidates(slice(1, self._at_start))

    def _start_candidates(self, which: slice) -> None:
        started = [self.launch_global(name) for name in self.global_names()[which]]
        for region in self.regions:
            started += [self.launch_region(region, name) for name in self.region_names(region)[which]]
        for program in started:
            self.await_ready(program)

    def launch_global(self, name: str) -> Program:
        tls = self._authority.issue_global(name, HOSTS, self.folder / name, self._now_ms)
        settings = {"name": name, "etcd": self.etcd, "history_s": KEEP_ALL, **self._listening(name), **pem(tls)}
        return self._launch(name, "global_cp", settings)

    def launch_region(self, region: str, name: str) -> Program:
        folder = self.folder / name
        tls = self._authority.issue_region(region, name, HOSTS, folder, self._now_ms)
        issuer = self.issuer(region)
        (folder / "state").mkdir(exist_ok=True)
        settings = {
            "region": region,
            "name": name,
            "etcd": self.etcd,
            "history_s": KEEP_ALL,
            **self._listening(name),
            **pem(tls),
            "issuer_certificate": str(issuer.certificate),
            "issuer_key": str(issuer.key),
            "global_plane": [self.addresses[plane][1] for plane in self.global_names()],
            "state_dir": str(folder / "state"),
            "headroom_percent": 0,  # of a few small nodes nothing would be left
            **self._region_settings,
        }
        return self._launch(name, "regional", settings)

    def issuer(self, region: str) -> TlsFiles:
        """What signs the nodes of `region`: kept, for another one would make strangers of them."""
        folder = self.folder / f"{region}-issuer"
        if not (folder / "issuer.crt").exists():
            return self._authority.issue_region_issuer(region, folder, self._now_ms)
        return TlsFiles(folder / "issuer.crt", folder / "issuer.key", folder / "ca.crt")

    def launch_agent(self, region: str, node: NodePlan, join_token: str, driver: str = "process") -> Program:
        """With its join token; a node that has an identity does not use it."""
        state = self.folder / node.name
        state.mkdir(exist_ok=True)
        self._states.append(state)
        candidates = [self.addresses[name] for name in self.region_names(region)]
        settings = {
            "name": node.name,
            "region_people": [people for people, _ in candidates],
            "region_programs": [programs for _, programs in candidates],
            "join_token": join_token,
            "ca": str(self.folder / "ca" / "ca.crt"),
            "state_dir": str(state),
            "driver": driver,
            "run_network": RUN_NETWORK,
            "metrics": "127.0.0.1:0",
            **node.settings,
        }
        return self._launch(node.name, "agent", settings)

    def launch_fleet(self, region: str, nodes: int) -> Program:
        """Simulated nodes of one region, in one process. It is ready when all are connected, which may take minutes."""
        issuer = self.issuer(region)
        settings = {
            "region": region,
            "region_programs": [self.addresses[name][1] for name in self.region_names(region)],
            "ca": str(self.folder / "ca" / "ca.crt"),
            "issuer_certificate": str(issuer.certificate),
            "issuer_key": str(issuer.key),
            "state_dir": str(self.folder / f"{region}-fleet"),
            "nodes": nodes,
        }
        return self._launch(f"{region}-fleet", "simulation.fleet", settings)

    # ---- while it runs

    def await_ready(self, program: Program) -> None:
        """Until it serves. Raises Unavailable with the end of its log."""
        if program.name in self._etcd:
            client, _ = self._etcd[program.name]
            children.wait_for(program, lambda: children.healthy(f"http://{client}"))
        else:
            children.wait_for(program, functools.partial(children.read_ready, program))

    def relaunch(self, name: str) -> Program:
        """A program that has ended, again, with the same settings and data."""
        before = self.named(name)
        self.programs.remove(before)
        if before.process.stdout is not None:
            before.process.stdout.close()
        return self._spawn(name, before.command, prints_ready=before.prints_ready)

    @property
    def agents(self) -> frozenset[str]:
        """The names of those started so far."""
        return frozenset(state.name for state in self._states)

    def ended(self) -> list[Program]:
        """Children that ended by themselves, or by somebody else's hand."""
        return [program for program in self.programs if program.process.poll() is not None]

    def stop(self) -> None:
        """Ends every child and every replica, by its process id; SIGKILL where asking did not help."""
        nodes = self.agents
        children.end([program for program in self.programs if program.name in nodes])
        children.end_replicas(self._states)
        containers.remove(self._states)
        children.end([program for program in self.programs if program.name not in nodes | set(self._etcd)])
        children.end([program for program in self.programs if program.name in self._etcd])
        children.end_marked([f"{children.OWNER_VARIABLE}={self.folder}"])
        self.programs.clear()

    def _listening(self, name: str) -> dict[str, str]:
        people, programs = self.addresses[name]
        return {"people": people, "programs": programs, "metrics": "127.0.0.1:0"}

    def _launch(self, name: str, module: str, settings: dict[str, Any]) -> Program:
        path = self.folder / f"{name}.toml"
        path.touch(mode=0o600)  # an agent's join token is in it
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        return self._spawn(name, [sys.executable, "-m", module, "--config", str(path)])

    def _spawn(self, name: str, command: Sequence[str], *, prints_ready: bool = True) -> Program:
        program = children.spawn(name, command, self.folder, prints_ready=prints_ready)
        self.programs.append(program)
        return program


def pem(tls: TlsFiles) -> dict[str, str]:
    return {"certificate": str(tls.certificate), "key": str(tls.key), "ca": str(tls.ca)}
