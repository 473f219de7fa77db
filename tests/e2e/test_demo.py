"""`atoll demo`: what it promises happens, and nothing of it stays, wherever it is interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.docker import SOCKET, containers, image
from tests.support.etcd import need_etcd
from tests.support.processes import left_running

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(240)]
ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, "-c", "from atoll.cli.main import main; main()", "demo"]
CAME_S = 120.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Everything the demo writes is below `tmp_path`."""
    need_etcd()
    mine = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_") or key == "ATOLL_ETCD"}
    places = {"ATOLL_CONFIG": str(tmp_path / "config.toml"), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    return {**mine, **places}


@pytest.mark.parametrize("processes", [pytest.param(False, marks=pytest.mark.docker), True])
def test_it_serves_loses_a_node_and_proves_itself(tmp_path: Path, environment: dict[str, str], processes: bool) -> None:
    if not processes:
        image()
    command = [*DEMO, "--processes"] if processes else DEMO
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("risk-api", "6/6 serving", "fraud-jobs", "4/4 done", " 200  payments/risk-api/main/"):
        assert words in done.stdout
    told = [done.stdout.index(words) for words in ("suspect:", "lost:", "ready again", "nothing runs twice", "PASS")]
    assert told == sorted(told)
    assert "\x1b" not in done.stdout  # this is no terminal
    assert ("containers of" in done.stdout) != processes
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
    if not processes:
        assert containers(tmp_path) == []


@pytest.mark.parametrize("moment", ["1  A cluster", "etcd 3", "2  Five workloads", "lost:"])
def test_ctrl_c_leaves_nothing(tmp_path: Path, environment: dict[str, str], moment: str) -> None:
    out = tmp_path / "out"
    with out.open("wb") as file:
        process = subprocess.Popen(DEMO, env=environment, stdout=file, stderr=file)
    deadline = time.monotonic() + CAME_S
    while moment not in out.read_text() and process.poll() is None:
        assert time.monotonic() < deadline, out.read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, out.read_text()
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == [out]
    if SOCKET.exists():
        assert containers(tmp_path) == []
