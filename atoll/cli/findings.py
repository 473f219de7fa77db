"""What this machine has of what Atoll needs: Python, etcd, Docker, cgroup, file descriptors, clock, free ports.

Each finding says why it is good enough, or what follows when it is not. Looks, and changes nothing.
"""

import ctypes
import mmap
import os
import platform
import re
import resource
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from atoll.store.binary import VARIABLE, EtcdMissing, find_etcd, refusal

DOCKER_SOCKET = "/var/run/docker.sock"
PORTS = {7070: "global, people", 7071: "global, programs", 7170: "region, people", 7171: "region, programs"}
OLDEST_PYTHON = (3, 11)
LOOK_S = 2.0
LEAST_CORES, MOST_WORKERS = 3, 8  # for a region, its etcd and one worker at least
SHARED_BYTES = 64 << 20  # more than a region of 50,000 nodes takes
FEW_DESCRIPTORS = 4_096
OWN_DESCRIPTORS = 256  # of a program, beside one for each node
CGROUP = Path("/sys/fs/cgroup")
TIMEX_BYTES, TIMEX_UNSYNCHRONIZED = 512, 5  # of struct timex, rounded up; TIME_ERROR
WITHOUT_DOCKER = "commands run as processes; tasks with an image wait (DriverMissing): apt install docker.io"


@dataclass(frozen=True, slots=True)
class Finding:
    """`good`: None where it is not needed."""

    name: str
    good: bool | None
    found: str
    advice: str = ""


def look() -> list[Finding]:
    return [python(), etcd(), docker(), cgroup(), descriptors(), clock(), workers(), *ports()]


def python() -> Finding:
    good = sys.version_info >= OLDEST_PYTHON
    return Finding("Python", good, f"{platform.python_version()} at {sys.executable}", "3.11 or later is needed")


def etcd() -> Finding:
    try:
        binary = find_etcd()
    except EtcdMissing as missing:
        advice = f"apt install etcd-server, or name the binary in ${VARIABLE}"
        return Finding("etcd", False, str(missing), advice)
    reason = refusal(binary.version)
    return Finding(
        "etcd", reason is None, f"{binary.version} at {binary.path}", reason or "3.4.22, 3.5.6 or later is needed"
    )


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
            head = b""
            while b"\r\n\r\n" not in head and len(head) < 8_192 and (more := engine.recv(4_096)):
                head += more
    except OSError as error:
        return Finding("Docker", None, f"no engine answers at {path} ({error.strerror or error})", WITHOUT_DOCKER)
    if not head.startswith((b"HTTP/1.0 200", b"HTTP/1.1 200")):
        return Finding("Docker", None, f"what answers at {path} is no Docker engine", WITHOUT_DOCKER)
    version = re.search(rb"\r\nServer: Docker/([0-9.]+)", head)
    found = f"engine {version[1].decode()} answers at {path}" if version else f"an engine answers at {path}"
    return Finding("Docker", True, found, "tasks with an image run as containers")


def cgroup() -> Finding:
    """From where an agent reads how much of the machine it may give away."""
    if (CGROUP / "cgroup.controllers").exists():
        return Finding("cgroup", True, f"version 2 at {CGROUP}", "an agent offers no more than its limits")
    advice = "an agent offers the whole machine; in a container of its own set cpu_milli and memory_mib"
    return Finding("cgroup", None, "no version 2", advice)


def descriptors() -> Finding:
    """A regional process holds one for each agent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return Finding("descriptors", True, "no limit", "a region takes one for each node")
    found = f"{soft:,} (at most {'no limit' if hard == resource.RLIM_INFINITY else f'{hard:,}'})"
    nodes = max(0, soft - OWN_DESCRIPTORS)
    if soft >= FEW_DESCRIPTORS:
        return Finding("descriptors", True, found, f"enough for a region of {nodes:,} nodes")
    return Finding("descriptors", None, found, f"a region of more than {nodes:,} nodes needs `ulimit -n 65536`")


def clock() -> Finding:
    """Whether the kernel says that something keeps the wall clock right. No promise rests on it; certificates do."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))  # reads only
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return Finding("clock", None, "the kernel does not say", "certificates and tokens end by the wall clock")
    if state == TIMEX_UNSYNCHRONIZED:
        return Finding(
            "clock", None, "not synchronized", "certificates and tokens end by it; on several machines run chrony"
        )
    return Finding("clock", True, "synchronized", "certificates and tokens end when they should")


def workers() -> Finding:
    """Whether scheduler workers could run: they share memory without a name, and take a core each while they work."""
    cores = len(os.sched_getaffinity(0))
    if refused := _why_not_shared():
        advice = "leave `workers` of a region at 1, the default: it schedules in its own process"
        return Finding("workers", None, f"no memory can be shared ({refused})", advice)
    found = f"{cores} {'core' if cores == 1 else 'cores'}, memory can be shared"
    if cores < LEAST_CORES:
        advice = f"leave `workers` of a region at 1, the default: they help from {LEAST_CORES} cores on"
        return Finding("workers", None, found, advice)
    most = min(cores - 1, MOST_WORKERS)
    return Finding("workers", True, found, f"a region of thousands of nodes may have `workers = {most}`; default 1")


def _why_not_shared() -> str:
    """As a region shares it with its workers; empty when it can."""
    try:
        file = os.memfd_create("atoll-doctor", os.MFD_CLOEXEC)
        try:
            os.ftruncate(file, SHARED_BYTES)
            mmap.mmap(file, SHARED_BYTES).close()
        finally:
            os.close(file)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def ports() -> list[Finding]:
    findings = []
    for port, use in PORTS.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                findings.append(Finding(f"port {port}", True, f"free ({use})", "for a cluster of your own"))
            except OSError:
                findings.append(
                    Finding(f"port {port}", None, f"taken ({use})", "atoll dev takes other ports by itself")
                )
    return findings
