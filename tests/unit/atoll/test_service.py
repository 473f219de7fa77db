"""The shell of programs, as its operator sees it: a process with signals, exit codes, one line on stdout, JSON logs."""

import json
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WAIT_S = 20.0
PROGRAM = """
import asyncio, os, sys
from dataclasses import dataclass
from atoll import service
from atoll.errors import *

@dataclass(frozen=True)
class Settings:
    "What this program takes."
    mode: str
    metrics: str = ""

async def main(stop):
    if mode == "busy port":
        raise Unavailable("cannot listen on 127.0.0.1:7070")
    stop.ready(people="127.0.0.1:1", programs="127.0.0.1:2")
    if mode == "returns":
        return
    if mode == "in order":
        await stop.wait()
        sys.stderr.write("cleaned up after " + stop.reason)
        return
    if mode == "stuck":
        await stop.wait()
        await asyncio.sleep(3600)
    async def break_down():
        require(mode != "invariant", "I3 sums differ")
        raise KeyError("atoll-user.00.c2VjcmV0")
    if mode == "stray":
        globals()["mode"] = "invariant"
        task = asyncio.ensure_future(break_down())
        await asyncio.wait({task})
        del task
        await asyncio.sleep(3600)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(break_down())
        tasks.create_task(asyncio.sleep(3600))

settings = service.settings("atoll-test", Settings, "ATOLL_TEST_")
mode = settings.mode
service.run(main, program="atoll-test", metrics=settings.metrics, stop_grace_s=0.2)
"""


class Started:
    def __init__(self, folder: Path, settings: str) -> None:
        (folder / "program.py").write_text(textwrap.dedent(PROGRAM))
        (folder / "settings.toml").write_text(settings)
        self.process = subprocess.Popen(
            [sys.executable, folder / "program.py", "--config", folder / "settings.toml"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).resolve().parents[3])},
        )

    def ready(self) -> dict[str, str]:
        assert self.process.stdout
        line: dict[str, str] = json.loads(self.process.stdout.readline())
        return line

    def end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, errors


Start = Callable[[str], Started]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Started] = []

    def begin(settings: str) -> Started:
        started.append(Started(tmp_path, settings))
        return started[-1]

    yield begin
    for program in started:
        program.process.kill()
        program.process.wait()


def test_it_says_where_it_serves_and_exports_metrics(start: Start) -> None:
    program = start('mode = "in order"\nmetrics = "127.0.0.1:0"')
    ready = program.ready()
    metrics = ready.pop("metrics")
    assert ready == {"ready": "atoll-test", "people": "127.0.0.1:1", "programs": "127.0.0.1:2"}
    page = urllib.request.urlopen(f"http://{metrics}/metrics", timeout=WAIT_S).read()
    assert b"process_cpu_seconds_total" in page
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(start: Start, number: signal.Signals) -> None:
    program = start('mode = "in order"')
    program.ready()
    program.process.send_signal(number)
    code, errors = program.end()
    assert (code, f"cleaned up after {number.name}" in errors) == (0, True)


def test_a_program_that_does_not_stop_in_time_is_ended(start: Start) -> None:
    program = start('mode = "stuck"')
    program.ready()
    program.process.send_signal(signal.SIGTERM)
    assert program.end()[0] == 124


@pytest.mark.parametrize(
    ("mode", "code", "told"),
    [
        ("returns", 0, ""),
        ("busy port", 6, "E5001: cannot listen on 127.0.0.1:7070"),
        ("invariant", 70, "I3 sums differ"),
        ("stray", 70, "I3 sums differ"),
        ("defect", 70, "KeyError"),
    ],
)
def test_how_it_ends(start: Start, mode: str, code: int, told: str) -> None:
    returned, errors = start(f'mode = "{mode}"').end()
    assert returned == code, errors
    assert told in errors
    for line in errors.splitlines():
        assert json.loads(line)["program"] == "atoll-test"


def test_no_secret_is_logged(start: Start) -> None:
    _, errors = start('mode = "defect"').end()
    assert "[redacted]" in errors
    assert "c2VjcmV0" not in errors


def test_wrong_settings_are_told_in_plain_words(start: Start) -> None:
    code, errors = start('modes = "x"').end()
    assert code == 2
    assert "modes: is not a setting: did you mean 'mode'?" in errors
    assert "mode: is missing" in errors
    assert "Traceback" not in errors
