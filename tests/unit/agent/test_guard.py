import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import guard
from agent.core.commands import Guard, GuardDeadline
from agent.core.lease import LeaseTerms
from agent.drivers import proc
from agent.guard_keeper import GuardKeeper
from atoll.clock import SystemClock
from tests.support.agent_core import run


@pytest.fixture
def work(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that belongs to run 1 of the agent on this folder."""
    environment = {proc.RUN_VARIABLE: str(run()), proc.NODE_VARIABLE: str(tmp_path.resolve())}
    with subprocess.Popen(["/bin/sleep", "1000"], env=environment) as process:
        yield process
        process.kill()


def test_only_what_is_late_is_killed(tmp_path: Path, work: subprocess.Popen[bytes]) -> None:
    later = {"runs": [[str(run()), guard.boottime_ms() + 60_000]]}
    assert guard.enforce(tmp_path, later) == 1
    assert work.poll() is None
    late = {"runs": [[str(run(2)), 0], [str(run()), guard.boottime_ms()]]}
    assert guard.enforce(tmp_path, late) == 1
    assert work.wait(10) == -9
    assert guard.enforce(tmp_path, late) == 0


def test_deadlines_of_another_boot_or_torn_ones_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    assert guard.read_deadlines(tmp_path) == {}
    for text in ("", "[", "[]", json.dumps({"boot_id": "another", "runs": []})):
        path.write_text(text)
        assert guard.read_deadlines(tmp_path) == {}


def test_the_keeper_writes_what_the_guard_and_the_next_agent_read(
    tmp_path: Path, work: subprocess.Popen[bytes]
) -> None:
    clock = SystemClock()
    acked_ms = clock.now_ms() - 500
    keeper = GuardKeeper(tmp_path, clock)
    assert keeper.terms() is None
    keeper.write(Guard(LeaseTerms(acked_ms, 4000), (GuardDeadline(run(), clock.now_ms() + 300),)))
    terms = GuardKeeper(tmp_path, clock).terms()
    assert terms is not None
    assert terms.fence_after_ms == 4000
    assert abs(terms.last_ack_ms - acked_ms) <= 5
    assert work.wait(20) == -9  # by the guard process that the keeper has started


def test_a_guard_without_an_agent_and_without_work_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent.guard", str(tmp_path)]
    assert subprocess.run(command, cwd=Path(guard.__file__).parents[1], timeout=30, check=False).returncode == 0


def test_one_guard_a_folder(tmp_path: Path) -> None:
    lock = guard.try_lock(tmp_path / "guard.lock")
    assert lock is not None
    command = [sys.executable, "-m", "agent.guard", str(tmp_path)]
    subprocess.run(command, cwd=Path(guard.__file__).parents[1], timeout=30, check=True)
    assert guard.try_lock(tmp_path / "guard.lock") is None
