"""What this machine has of what Atoll needs: etcd, Docker, Python, free ports. Looks, and changes nothing."""

import os
import platform
import socket
import sys
from dataclasses import dataclass

from atoll.store.binary import VARIABLE, EtcdMissing, find_etcd, refusal

DOCKER_SOCKET = "/var/run/docker.sock"
PORTS = {7070: "global, people", 7071: "global, programs", 7170: "region, people", 7171: "region, programs"}
OLDEST_PYTHON = (3, 11)
LOOK_S = 2.0
WITHOUT_DOCKER = "commands run as processes; tasks with an image wait (DriverMissing): apt install docker.io"


@dataclass(frozen=True, slots=True)
class Finding:
    """`good`: None where it is not needed."""

    name: str
    good: bool | None
    found: str
    advice: str = ""


def look() -> list[Finding]:
    return [python(), etcd(), docker(), *ports()]


def python() -> Finding:
    good = sys.version_info >= OLDEST_PYTHON
    return Finding("Python", good, f"{platform.python_version()} at {sys.executable}", "" if good else "3.11 or later")


def etcd() -> Finding:
    try:
        binary = find_etcd()
    except EtcdMissing as missing:
        advice = f"apt install etcd-server, or name the binary in ${VARIABLE}"
        return Finding("etcd", False, str(missing), advice)
    reason = refusal(binary.version)
    return Finding("etcd", reason is None, f"{binary.version} at {binary.path}", reason or "")


def docker() -> Finding:
    """Asks the engine's socket whether it answers. Tasks without an image need none: so it is never bad."""
    host = os.environ.get("DOCKER_HOST", f"unix://{DOCKER_SOCKET}")
    path = host.removeprefix("unix://")
    if path == host:
        return Finding("Docker", None, f"DOCKER_HOST is {host}, which is not looked at", "agents use a local socket")
    try:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.settimeout(LOOK_S)
            engine.connect(path)
            engine.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            answered = engine.recv(64).startswith((b"HTTP/1.0 200", b"HTTP/1.1 200"))
    except OSError as error:
        return Finding("Docker", None, f"no engine answers at {path} ({error.strerror or error})", WITHOUT_DOCKER)
    if not answered:
        return Finding("Docker", None, f"what answers at {path} is no Docker engine", WITHOUT_DOCKER)
    return Finding("Docker", True, f"an engine answers at {path}")


def ports() -> list[Finding]:
    findings = []
    for port, use in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                findings.append(Finding(f"port {port}", None, f"free ({use})"))
            except OSError:
                findings.append(
                    Finding(f"port {port}", None, f"taken ({use})", "atoll dev takes other ports by itself")
                )
    return findings
