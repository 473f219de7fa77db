"""From a manifest to running processes and back: the real programs, started by the real command line."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from atoll import audit
from atoll.cli import dev, verify
from atoll.cli.dev_cluster import DevCluster, Program
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection
from atoll.sdk.specs import Workload
from tests.support.etcd import need_etcd

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


def left_running(folder: Path) -> list[str]:
    """Processes that know this folder, from their arguments or their environment; not those of the test."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes()
                if str(folder).encode() in arguments + (entry / "environ").read_bytes():
                    found.append(arguments.replace(b"\0", b" ").decode(errors="replace"))
    return found


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
                command = [*ATOLL, "dev", "--agents", "1", "--dir", str(tmp_path / "data")]
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
        assert "hello/0  bound on r1-n1" in atoll("why", "hello/0")
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


class Faulty:
    """A cluster whose programs can be struck and come back where they were."""

    def __init__(self, folder: Path) -> None:
        self.cluster = DevCluster(folder)
        self.connection: Connection = dev.start(self.cluster, regions=1, agents=2)
        for program in self.cluster.programs:  # who comes back must come back at the same address
            path = folder / f"{program.name}.toml"
            if path.exists() and program.ready.get("people"):
                text = path.read_text()
                for port in ("people", "programs"):
                    text = text.replace(f'{port} = "127.0.0.1:0"', f'{port} = "{program.ready[port]}"')
                path.write_text(text)

    def named(self, name: str) -> Program:
        return next(program for program in self.cluster.programs if program.name == name)

    def kill(self, name: str) -> None:
        """kill -9, and a new process at once."""
        victim = self.named(name)
        victim.process.kill()
        victim.process.wait()
        with victim.log.open("ab") as log:
            victim.process = subprocess.Popen(victim.process.args, stdout=log, stderr=log, start_new_session=True)

    def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP for so long: longer than a leader may trust itself."""
        victim = self.named(name).process
        victim.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            victim.send_signal(signal.SIGCONT)

    def verdict(self) -> audit.Verdict:
        return asyncio.run(verify.audit_store((self.cluster.etcd,)))


def running(mark: str) -> int:
    """Processes `sleep <mark>`."""
    count = 0
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            count += entry.name.isdecimal() and (entry / "cmdline").read_bytes() == f"sleep\0{mark}\0".encode()
    return count


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    need_etcd()
    world = Faulty(tmp_path_factory.mktemp("faulty"))
    try:
        yield world
    finally:
        world.cluster.stop()


@pytest.mark.parametrize("fault", ["kill", "pause"])
@pytest.mark.parametrize("victim", ["r1-n1", "r1-1", "global-1"])
def test_a_fault_while_work_is_placed_loses_nothing_and_runs_nothing_twice(
    faulty: Faulty, victim: str, fault: str
) -> None:
    mark = f"{os.getpid()}{len(victim)}.{len(fault)}"
    name = f"{victim}-{fault}"
    spec = Workload(name=name, command=("sleep", mark), replicas=12, cpu="10m", memory="16Mi")

    async def apply(client: AsyncClient) -> None:
        await client.workloads.apply(spec)

    async def settle(client: AsyncClient) -> None:
        await client.workloads.wait(name, timeout=90)

    dev.connected(faulty.connection, apply)
    if fault == "kill":
        faulty.kill(victim)
    else:
        faulty.pause(victim, 5.0)
    dev.connected(faulty.connection, settle)
    until(lambda: running(mark) == 12, f"{running(mark)} processes of 12 replicas")
    verdict = faulty.verdict()
    assert not verdict.violations, [str(violation) for violation in verdict.violations]
