"""The ordinary programs and an etcd as child processes on free loopback ports, all in one folder.

Everything started is known by its process id and is stopped by it, in an order that leaves nothing running: agents,
replicas, the programs of the control plane, etcd. Replicas outlive their agent by design, so they are found by the
agent's state folder in their environment.
"""

import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atoll
from atoll import errors
from atoll.clock import SystemClock
from atoll.identity import CertificateAuthority, TlsFiles
from atoll.store.binary import EtcdMissing, find_etcd, refusal

ETCD = "etcd"
READY_S = 30.0
STOP_S = 10.0
KEEP_ALL = 0  # of the store's history: a playground can be audited from its first revision
HOSTS = ("127.0.0.1", "localhost")
STATE_VARIABLE = "ATOLL_STATE"  # set by agents in the environment of what they start
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(slots=True)
class Program:
    """One child. `ready` is its ready line."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready: dict[str, str]


class DevCluster:
    """`start_…` in the order etcd, global plane, regions, agents; `stop` at any time, more than once if need be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.etcd = ""
        self.programs: list[Program] = []
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

    def start_etcd(self) -> str:
        """Its version. Raises Invalid when there is none that is good enough."""
        try:
            binary = find_etcd()
        except EtcdMissing as missing:
            raise errors.Invalid(str(missing), hint="apt install etcd-server", code="E1013") from None
        if reason := refusal(binary.version):
            raise errors.Invalid(reason, hint="atoll doctor", code="E1013")
        client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
        arguments = {
            "name": "dev",
            "data-dir": str(self.folder / "etcd"),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"dev={peer}",
        }
        program = self._spawn(ETCD, [str(binary.path), *(f"--{name}={value}" for name, value in arguments.items())])
        self.etcd = client.removeprefix("http://")
        self._until(program, lambda: healthy(client))
        return binary.version

    def start_global(self) -> Program:
        """Its ready line has the address that programs and admins dial, and the one for people."""
        tls = self._authority.issue_global("global-1", HOSTS, self.folder / "global", self._now_ms)
        settings = {"name": "global-1", "etcd": [self.etcd], "history_s": KEEP_ALL, **_listening(), **pem(tls)}
        return self._start("global-1", "global_cp", settings)

    def start_region(self, region: str, global_plane: str) -> Program:
        folder = self.folder / region
        tls = self._authority.issue_region(region, f"{region}-1", HOSTS, folder, self._now_ms)
        issuer = folder / "issuer"
        if not (issuer / "issuer.crt").exists():  # a new one would make strangers of the nodes
            self._authority.issue_region_issuer(region, issuer, self._now_ms)
        settings = {
            "region": region,
            "name": f"{region}-1",
            "etcd": [self.etcd],
            "history_s": KEEP_ALL,
            **_listening(),
            **pem(tls),
            "issuer_certificate": str(issuer / "issuer.crt"),
            "issuer_key": str(issuer / "issuer.key"),
            "global_plane": [global_plane],
            "state_dir": str(folder / "state"),
        }
        (folder / "state").mkdir(exist_ok=True)
        return self._start(f"{region}-1", "regional", settings)

    def start_agents(self, region: Program, join_tokens: dict[str, str]) -> None:
        """One for each node named, with its join token; a node that has an identity does not use it."""
        started = []
        for node, token in join_tokens.items():
            state = self.folder / node
            state.mkdir(exist_ok=True)
            self._states.append(state)
            settings = {
                "name": node,
                "region_people": [region.ready["people"]],
                "region_programs": [region.ready["programs"]],
                "join_token": token,
                "ca": str(self.folder / "ca" / "ca.crt"),
                "state_dir": str(state),
                "driver": "process",
                "metrics": "127.0.0.1:0",
            }
            started.append(self._launch(node, "agent", settings))
        for program in started:
            self._until(program, functools.partial(read_ready, program))

    def dead(self) -> Program | None:
        """A child that ended by itself."""
        return next((program for program in self.programs if program.process.poll() is not None), None)

    def stop(self) -> None:
        """Ends every child and every replica, by its process id; SIGKILL where asking did not help."""
        nodes = {state.name for state in self._states}
        agents = [program.process for program in self.programs if program.name in nodes]
        etcd = [program.process for program in self.programs if program.name == ETCD]
        _end(agents)
        _end_replicas(self._states)
        _end([program.process for program in self.programs if program.process not in agents + etcd])
        _end(etcd)
        self.programs.clear()

    def _start(self, name: str, module: str, settings: dict[str, Any]) -> Program:
        program = self._launch(name, module, settings)
        self._until(program, functools.partial(read_ready, program))
        return program

    def _launch(self, name: str, module: str, settings: dict[str, Any]) -> Program:
        path = self.folder / f"{name}.toml"
        path.touch(mode=0o600)  # an agent's join token is in it
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        return self._spawn(name, [sys.executable, "-m", module, "--config", str(path)])

    def _spawn(self, name: str, command: list[str]) -> Program:
        log = self.folder / "logs" / f"{name}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ETCD_", "ATOLL_"))}
        home = str(Path(atoll.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (home, inherited.get("PYTHONPATH", ""))))
        with log.open("ab") as errors_to:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if name != ETCD else errors_to,
                stderr=errors_to,
                start_new_session=True,  # Ctrl-C is for us; we stop them in order
                env={**inherited, "PYTHONPATH": path},
            )
        program = Program(name, process, log, {})
        self.programs.append(program)
        return program

    def _until(self, program: Program, ready: Callable[[], bool]) -> None:
        """Waits for the program to serve. Raises Unavailable with the end of its log."""
        deadline = time.monotonic() + READY_S
        while not ready():
            ended = program.process.poll() is not None
            if ended or time.monotonic() > deadline:
                why = (
                    f"ended with code {program.process.returncode}" if ended else f"is not ready after {READY_S:.0f} s"
                )
                tail = "\n  ".join(program.log.read_text(errors="replace").splitlines()[-5:])
                raise errors.Unavailable(f"{program.name} {why}\n  {tail}", hint=f"less {program.log}")
            time.sleep(0.02)


def _listening() -> dict[str, str]:
    """Every program says in its ready line which port it got."""
    return dict.fromkeys(("people", "programs", "metrics"), "127.0.0.1:0")


def pem(tls: TlsFiles) -> dict[str, str]:
    return {"certificate": str(tls.certificate), "key": str(tls.key), "ca": str(tls.ca)}


def read_ready(program: Program) -> bool:
    """Takes the ready line, when it has come."""
    out = program.process.stdout
    assert out is not None
    if not select.select([out], [], [], 0)[0]:
        return False
    line = out.readline()
    with contextlib.suppress(ValueError):
        program.ready.update(json.loads(line))
    return bool(program.ready)


def healthy(url: str) -> bool:
    try:
        with _NO_PROXY.open(f"{url}/health", timeout=1) as answer:
            return bool(json.load(answer).get("health") == "true")
    except (OSError, ValueError):
        return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """Asks all, waits for all, then kills what is left."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _end_replicas(states: list[Path]) -> None:
    """SIGTERM to what agents of these folders left running, replicas and guards, then SIGKILL."""
    markers = tuple(mark.encode() for state in states for mark in (f"{STATE_VARIABLE}={state}", str(state)))
    for number, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 2.0)):
        left = _marked(markers)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = _marked(markers)
        if not left:
            return


def _marked(markers: tuple[bytes, ...]) -> list[int]:
    """Processes with one of these among their arguments or in their environment. Zombies have neither."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and markers:
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if not set(markers).isdisjoint(words.split(b"\0")):
                    found.append(int(entry.name))
    return found
