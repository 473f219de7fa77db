"""What this node can give: processors, memory, disk and GPUs, as measured, or as the settings say instead."""

import os
import re
import shutil
from pathlib import Path

from agent.config import Settings
from atoll.api.v1 import objects_pb2

_MIB = 1 << 20
_CGROUP = Path("/sys/fs/cgroup")
_NVIDIA = Path("/proc/driver/nvidia/gpus")
_DEVICES = Path("/dev")
_GPU_MILLI = 1000
_UNKNOWN_MODEL = "nvidia"


def capacity(settings: Settings) -> objects_pb2.Resources:
    """The settings win over what was measured, dimension by dimension."""
    return objects_pb2.Resources(
        cpu_milli=settings.cpu_milli or _cpu_milli(),
        memory_mib=settings.memory_mib or max(0, _memory_mib() - settings.reserved_memory_mib),
        disk_mib=settings.disk_mib or shutil.disk_usage(settings.state_dir).total // _MIB,
        gpu_milli=len(gpus(settings)) * _GPU_MILLI,
    )


def gpus(settings: Settings) -> list[objects_pb2.Gpu]:
    """Sorted by number."""
    if settings.gpus or not settings.detect_gpus:
        return [objects_pb2.Gpu(number=number, model=model) for number, model in enumerate(settings.gpus)]
    found = detected(_NVIDIA, _DEVICES)
    return [objects_pb2.Gpu(number=number, model=model) for number, model in sorted(found.items())]


def detected(driver: Path, devices: Path) -> dict[int, str]:
    """Models by number, as NVIDIA's driver shows them: device nodes, and what it tells of each."""
    names = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    numbers = [int(name) for name in names if name.isdigit()]
    found = dict.fromkeys(numbers, _UNKNOWN_MODEL)
    for told in driver.glob("*/information"):
        lines = dict(line.split(":", 1) for line in _text(told).splitlines() if ":" in line)
        number, model = lines.get("Device Minor", "").strip(), lines.get("Model", "").strip()
        if number.isdigit() and int(number) in found and model:
            found[int(number)] = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-._")[:63] or _UNKNOWN_MODEL
    return found


def _cpu_milli() -> int:
    """Processors this process may use, or less when its cgroup has a quota."""
    processors = len(os.sched_getaffinity(0)) * 1000
    quota = (_text(_CGROUP / "cpu.max") or "max 100000").split()
    if quota[0].isdigit() and int(quota[1]):
        return min(processors, int(quota[0]) * 1000 // int(quota[1]))
    return processors


def _memory_mib() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) // 1024
            break
    else:
        total = 0
    limit = _text(_CGROUP / "memory.max")
    return min(total, int(limit) // _MIB) if limit.isdigit() else total


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
