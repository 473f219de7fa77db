import os
from pathlib import Path

from agent.config import Settings
from agent.inventory import capacity
from atoll.api.v1 import objects_pb2


def settings(folder: Path, **changes: int) -> Settings:
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
    told = capacity(settings(tmp_path, cpu_milli=1, memory_mib=2, disk_mib=3, gpu_milli=4))
    assert told == objects_pb2.Resources(cpu_milli=1, memory_mib=2, disk_mib=3, gpu_milli=4)
