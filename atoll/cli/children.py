"""Child processes of a playground: started, waited for, struck and ended by their process id, and by nothing else.

Each child carries the playground's folder in its environment, so that one that was started in the very moment of a
Ctrl-C is found as well. Replicas outlive their agent by design; they are found by the agent's state folder in their
environment.
"""

import contextlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import atoll
from atoll import errors

READY_S = 30.0
STOP_S = 10.0
PORTS = range(20_000, 32_000)  # below those of outgoing connections
OWNER_VARIABLE = "PLAYGROUND_OF_ATOLL"  # in the environment of every child
STATE_VARIABLE = "ATOLL_STATE"  # set by agents in the environment of what they start
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(slots=True)
class Program:
    """One child. `ready` is its ready line; empty for a program that prints none."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready: dict[str, str]
    prints_ready: bool = True

    @property
    def command(self) -> list[str]:
        arguments = self.process.args
        assert isinstance(arguments, list)
        return [str(argument) for argument in arguments]


def spawn(name: str, command: Sequence[str], folder: Path, *, prints_ready: bool = True) -> Program:
    """Starts a child whose log is in `folder`. Its settings come from its arguments, never from our environment."""
    log = folder / "logs" / f"{name}.log"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("ETCD_", "ATOLL_"))}
    home = str(Path(atoll.__file__).parent.parent)
    path = os.pathsep.join(filter(None, (home, inherited.get("PYTHONPATH", ""))))
    with log.open("ab") as errors_to:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if prints_ready else errors_to,
            stderr=errors_to,
            start_new_session=True,  # Ctrl-C is for us; we stop them in order
            env={**inherited, "PYTHONPATH": path, OWNER_VARIABLE: str(folder)},
        )
    return Program(name, process, log, {}, prints_ready)


def wait_for(program: Program, ready: Callable[[], bool], within_s: float = READY_S) -> None:
    """Until the program serves. Raises Unavailable with the end of its log."""
    deadline = time.monotonic() + within_s
    while not ready():
        ended = program.process.poll() is not None
        if ended or time.monotonic() > deadline:
            code = program.process.returncode
            why = f"ended with code {code}" if ended else f"is not ready after {within_s:.0f} s"
            tail = "\n  ".join(program.log.read_text(errors="replace").splitlines()[-5:])
            raise errors.Unavailable(f"{program.name} {why}\n  {tail}", hint=f"less {program.log}")
        time.sleep(0.02)


def read_ready(program: Program) -> bool:
    """Takes the ready line, when it has come."""
    out = program.process.stdout
    assert out is not None
    if not select.select([out], [], [], 0)[0]:
        return False
    line = out.readline()
    with contextlib.suppress(ValueError):
        program.ready.update(json.loads(line))
    return bool(program.ready)


def healthy(url: str) -> bool:
    """Whether the etcd member at `url` serves."""
    try:
        with _NO_PROXY.open(f"{url}/health", timeout=1) as answer:
            return bool(json.load(answer).get("health") == "true")
    except (OSError, ValueError):
        return False


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different, and none that the kernel gives to who asks for any."""
    with contextlib.ExitStack() as held:
        found: list[int] = []
        while len(found) < count:
            one = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", random.choice(PORTS)))
                found.append(int(one.getsockname()[1]))
        return found


def end(programs: Sequence[Program]) -> None:
    """Asks all, waits for all, then kills what is left. A paused one is woken first."""
    for program in programs:
        program.process.send_signal(signal.SIGCONT)
        program.process.terminate()
    deadline = time.monotonic() + STOP_S
    for program in programs:
        try:
            program.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            program.process.kill()
            program.process.wait()
        if program.process.stdout is not None:
            program.process.stdout.close()


def end_replicas(states: Sequence[Path]) -> None:
    """What agents of these folders left running, replicas and guards."""
    end_marked([mark for state in states for mark in (f"{STATE_VARIABLE}={state}", str(state))])


def end_marked(marks: Sequence[str]) -> None:
    """SIGTERM to every process with one of `marks` as an argument or in its environment, then SIGKILL."""
    sought = frozenset(mark.encode() for mark in marks)
    for number, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, 2.0)):
        left = _marked(sought)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = _marked(sought)
        if not left:
            return


def _marked(sought: frozenset[bytes]) -> list[int]:
    """Zombies have neither arguments nor an environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and sought:
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if not sought.isdisjoint(words.split(b"\0")):
                    found.append(int(entry.name))
    return found
