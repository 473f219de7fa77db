"""The request that makes a container of a task, and what an engine's answers mean. Pure.

The request is a closed schema: every field of it is written here, and a task reaches it only as image, command,
arguments, environment, ports and amounts, and the numbers of GPUs that the region gave it. Privilege, host namespaces,
other devices, added capabilities, mounts, and with them the engine's own socket, cannot be expressed. Bounds on memory,
processors, processes and output are always set.

A container is known by its labels; its name is the run's with a mark of the agent's state folder behind it, because
agents of two regions may share one engine.
"""

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.core.runs import Exit, RunName, run_name
from agent.drivers.container_kill import container_name
from agent.drivers.driver import RunSpec
from agent.drivers.proc import NODE_VARIABLE, RUN_VARIABLE
from atoll.api.v1 import objects_pb2
from atoll.model.images import LONGEST_IMAGE, MOST_IMAGES, canonical

LABEL_STATE = "atoll.state"  # the agent's state folder
LABEL_RUN = "atoll.run"  # slot and attempt, see runs.RunName
MIB = 1 << 20
MOST_MIB = 1 << 30  # a pebibyte: more is no bound
LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
LIVING = ("running", "paused", "restarting", "removing")
LEAST_CPU_MILLI = 10  # below it no kernel grants a share of a period
LEAST_SHARES, MOST_SHARES = 2, 262_144


@dataclass(frozen=True, slots=True)
class Node:
    """What requests need to know of this node."""

    name: str
    state: str  # the resolved state folder
    address: str
    processors: int
    most_pids: int
    log_bytes: int
    gpus: bool = False  # its engine hands out GPUs


class Refused(ValueError):
    """The task asks for what no container here can be."""


def create_request(run: RunName, spec: RunSpec, node: Node, own_address: str = "") -> dict[str, Any]:
    """The body of POST /containers/create. `own_address`: where its ports are published, when it has one of its own.

    Raises Refused."""
    task = spec.task
    if task.driver not in (objects_pb2.DRIVER_UNSPECIFIED, objects_pb2.DRIVER_DOCKER):
        raise Refused("the task is not for the docker driver")
    if not task.image:
        raise Refused("a container needs an image")
    asked, limits = task.resources.requests, task.resources.limits
    if not (0 < asked.memory_mib <= MOST_MIB and 0 <= limits.memory_mib <= MOST_MIB):
        raise Refused(f"a container needs a bound on its memory, of 1 to {MOST_MIB} MiB")
    if asked.cpu_milli < 0 or limits.cpu_milli < 0:
        raise Refused("an amount of processors is negative")
    if any(not 1 <= port.number <= 65_535 for port in task.ports):
        raise Refused("a port is out of range: 1 to 65535")
    environment = {**dict(spec.environment), RUN_VARIABLE: str(run), NODE_VARIABLE: node.state}
    if node.gpus and not spec.gpus:
        environment["NVIDIA_VISIBLE_DEVICES"] = "void"  # images say "all" of themselves
    ports = {f"{port.number}/tcp": port.number for port in task.ports}
    request: dict[str, Any] = {
        "Image": task.image,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Labels": _labels(run, node),
        "ExposedPorts": {port: {} for port in ports},
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": _host_config(task, ports, node, own_address),
    }
    if node.gpus and spec.gpus:
        request["HostConfig"]["DeviceRequests"] = [_device_request(spec.gpus)]
    if task.command:
        request["Entrypoint"] = list(task.command)
    if task.args or task.command:  # a command of ours never gets the image's arguments
        request["Cmd"] = list(task.args)
    return request


def _labels(run: RunName, node: Node) -> dict[str, str]:
    return {
        LABEL_STATE: node.state,
        LABEL_RUN: str(run),
        "atoll.node": node.name,
        "atoll.slot": str(run.slot),
        "atoll.attempt": str(run.rank.attempt),
    }


def _host_config(task: objects_pb2.Task, ports: Mapping[str, int], node: Node, own_address: str) -> dict[str, Any]:
    asked, limits = task.resources.requests, task.resources.limits
    hosts = [own_address] if own_address else _hosts(node.address)
    memory = (limits.memory_mib or asked.memory_mib) * MIB
    cpu_milli = min(max(limits.cpu_milli or asked.cpu_milli, LEAST_CPU_MILLI), node.processors * 1000)
    return {
        "Memory": memory,
        "MemorySwap": memory,  # as much as Memory: no swap
        "NanoCpus": cpu_milli * 1_000_000,
        "CpuShares": min(max(asked.cpu_milli * 1024 // 1000, LEAST_SHARES), MOST_SHARES),
        "PidsLimit": node.most_pids,
        "PortBindings": {port: _bindings(number, hosts) for port, number in ports.items()},
        "NetworkMode": "bridge",
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "Privileged": False,
        "CapAdd": [],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "Devices": [],
        "Binds": [],
        "Mounts": [],
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "Init": True,  # passes SIGTERM on, and buries orphans
        "LogConfig": {"Type": "json-file", "Config": _log_options(node.log_bytes)},
    }


def _device_request(gpus: Sequence[int]) -> dict[str, Any]:
    """NVIDIA's container toolkit gives the container these devices and no others."""
    return {"Driver": "nvidia", "DeviceIDs": [str(number) for number in gpus], "Capabilities": [["gpu"]]}


def _log_options(log_bytes: int) -> dict[str, str]:
    """Two files, each half of the bound."""
    return {"max-size": str(max(log_bytes // 2, 1 << 16)), "max-file": "2"}


def _hosts(address: str) -> list[str]:
    """The node's address and the loopback, where probes look; every address when the node's is only a name."""
    try:
        wanted = {LOOPBACK, str(ipaddress.ip_address(address))}
    except ValueError:
        wanted = {EVERYWHERE}
    return [EVERYWHERE] if EVERYWHERE in wanted else sorted(wanted)


def _bindings(number: int, hosts: Sequence[str]) -> list[dict[str, str]]:
    return [{"HostIp": host, "HostPort": str(number)} for host in hosts]


def name_of(run: RunName, node: Node) -> str:
    return container_name(str(run), node.state)


def images_of(listed: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the images that the engine lists, the newest of them where there are too many; sorted."""
    newest = sorted(listed, key=lambda image: -int(image.get("Created") or 0))
    written = (name for image in newest for key in ("RepoTags", "RepoDigests") for name in image.get(key) or ())
    names = dict.fromkeys(canonical(name) for name in written if "<none>" not in name)
    return tuple(sorted([name for name in names if len(name) <= LONGEST_IMAGE][:MOST_IMAGES]))


def run_of(labels: Mapping[str, str]) -> RunName | None:
    return run_name(labels.get(LABEL_RUN, ""))


def lives(status: str) -> bool:
    """Whether a container of this status may run anything."""
    return status in LIVING


def exit_of(state: Mapping[str, Any], memory_bytes: int, at_ms: int) -> Exit:
    """How a container ended, from its inspected state."""
    code, error = int(state.get("ExitCode", -1)), str(state.get("Error", ""))
    if state.get("OOMKilled") and code:
        return Exit(code, "OutOfMemory", f"it used more than its {memory_bytes // MIB} MiB of memory", at_ms)
    return Exit(code, "Completed" if code == 0 else "Failed", error or _signal(code), at_ms)


def gone(at_ms: int, code: int | None = None) -> Exit:
    """Of a container that was removed by somebody else; `code` when an event told it."""
    if code is None:
        return Exit(-1, "Unknown", "its container is gone: removed from outside, or never created", at_ms)
    return Exit(code, "Completed" if code == 0 else "Failed", "its container was removed from outside", at_ms)


def _signal(code: int) -> str:
    return f"ended by signal {code - 128}" if code > 128 else ""


def why_not_started(status: int, message: str, task: objects_pb2.Task) -> str:
    """An engine's refusal in a sentence that begins with a stable word."""
    text = " ".join(message.split())
    low = text.lower()
    if "port is already allocated" in low or "address already in use" in low:
        ports = ", ".join(str(port.number) for port in task.ports)
        return f"PortTaken: a port of {ports} is taken on this node: {text}"
    if "invalid reference format" in low or "repository name must be" in low or "invalid tag format" in low:
        return f"ImageInvalid: {task.image!r} is not the name of an image: {text}"
    if "no such image" in low:
        return f"ImageMissing: {task.image}: {text}"
    if "could not select device driver" in low:
        return f"GpuUnavailable: the engine has no NVIDIA container toolkit: {text}"
    if "executable file not found" in low or "no such file or directory" in low or "permission denied" in low:
        return f"CommandNotFound: {text}"
    return f"EngineRefused: {text} ({status})"
