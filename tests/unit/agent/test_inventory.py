import os
from pathlib import Path
from typing import Any

from agent.config import Settings
from agent.inventory import capacity, detected, gpus
from atoll.api.v1 import objects_pb2


def settings(folder: Path, **changes: Any) -> Settings:
    return Settings(name="n1", region_programs=("r:1",), ca=folder / "ca", state_dir=folder, **changes)


def test_what_is_measured_is_there(tmp_path: Path) -> None:
    found = capacity(settings(tmp_path))
    assert 0 < found.cpu_milli <= (os.cpu_count() or 1) * 1000
    assert found.memory_mib > 0
    assert found.disk_mib > 0
    assert found.gpu_milli == 0


def test_what_is_reserved_is_not_offered_and_settings_win(tmp_path: Path) -> None:
    whole = capacity(settings(tmp_path)).memory_mib
    assert capacity(settings(tmp_path, reserved_memory_mib=1)).memory_mib == whole - 1
    assert capacity(settings(tmp_path, reserved_memory_mib=2**40)).memory_mib == 0
    told = capacity(settings(tmp_path, cpu_milli=1, memory_mib=2, disk_mib=3, gpus=("T4", "A100")))
    assert told == objects_pb2.Resources(cpu_milli=1, memory_mib=2, disk_mib=3, gpu_milli=2_000)


def test_gpus_are_those_of_the_settings_or_what_the_driver_shows(tmp_path: Path) -> None:
    told = gpus(settings(tmp_path, gpus=("T4", "A100")))
    assert [(gpu.number, gpu.model) for gpu in told] == [(0, "T4"), (1, "A100")]
    assert gpus(settings(tmp_path, detect_gpus=False)) == []
    for name in ("nvidia0", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    (tmp_path / "proc" / "0000:3b:00.0").mkdir(parents=True)
    said = "Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 5\nDevice Minor: \t 2\n"
    (tmp_path / "proc" / "0000:3b:00.0" / "information").write_text(said)
    assert detected(tmp_path / "proc", tmp_path) == {0: "nvidia", 2: "NVIDIA-A100-SXM4-40GB"}
