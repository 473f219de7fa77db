"""From a manifest to running processes and back: the real programs, started by the real command line."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.etcd import need_etcd
from tests.support.processes import left_running

pytestmark = [pytest.mark.etcd, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]
ATOLL = [sys.executable, "-c", "from atoll.cli.main import main; main()"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Everything a command writes is below `tmp_path`."""
    need_etcd()
    mine = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_") or key == "ATOLL_ETCD"}
    places = {"ATOLL_CONFIG": str(tmp_path / "config.toml"), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    return {**mine, **places}


def until(condition: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_one_command_from_a_manifest_to_verified_processes(tmp_path: Path, environment: dict[str, str]) -> None:
    command = [*ATOLL, "dev", "--once", "-f", str(ROOT / "examples/hello.yaml")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "serving 3/3" in done.stderr
    assert "hello/2" in done.stdout
    assert "hold at revision" in done.stdout
    assert left_running(tmp_path) == []
    assert list(tmp_path.iterdir()) == []  # the data too is gone


class TestForeground:
    """`atoll dev --dir`: used through its context, ended with Ctrl-C, started again on its data."""

    @pytest.fixture
    def up(self, tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
        started: list[subprocess.Popen[bytes]] = []

        def start() -> subprocess.Popen[bytes]:
            log = tmp_path / f"dev-{len(started)}.log"
            with log.open("wb") as out:
                command = [*ATOLL, "dev", "--regions", "1", "--agents", "1", "--bare", "--dir", str(tmp_path / "data")]
                process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
            started.append(process)
            until(lambda: b"Ctrl-C stops" in log.read_bytes() or process.poll() is not None, "dev did not come up")
            assert process.poll() is None, log.read_text()
            return process

        yield start
        for process in started:
            if process.poll() is None:
                process.terminate()
                process.wait(60)

    def test_a_session(
        self, tmp_path: Path, environment: dict[str, str], up: Callable[[], subprocess.Popen[bytes]]
    ) -> None:
        def atoll(*arguments: str, code: int = 0) -> str:
            done = subprocess.run([*ATOLL, *arguments], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == code, done.stdout + done.stderr
            return done.stdout

        first = up()
        atoll("run", "hello", "--replicas", "2", "--cpu", "10m", "--", "sh", "-c", "echo up; exec sleep 1000")
        assert "2/2" in atoll("get", "workloads")
        assert atoll("logs", "hello/1") == "up\n"
        assert "hello/0  bound on eu-west-n1" in atoll("why", "hello/0")
        assert atoll("events", "--object", "workload/default/hello")
        atoll("run", "huge", "--memory", "1Ti", "--", "x", code=2)
        first.send_signal(signal.SIGINT)
        first.wait(60)
        assert left_running(tmp_path) == []
        assert "[context" not in (tmp_path / "config.toml").read_text()

        second = up()
        atoll("wait", "hello", "--timeout", "60s")
        assert atoll("delete", "hello", "--yes") == "workload/hello deleting\n"
        assert atoll("get", "workloads") == ""
        second.send_signal(signal.SIGTERM)
        second.wait(60)
        assert left_running(tmp_path) == []
