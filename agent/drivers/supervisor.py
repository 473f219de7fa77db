"""The small parent of one run: a script of its own, standard library only, that outlives the agent.

    python -I -S supervisor.py RUN_FOLDER REPORT_FD

It starts the command of `spec.json`, copies its output into two files of bounded size, and writes `exit.json` when the
command has ended and every process below it is dead. So the exit code is known even when no agent was there to see it.
SIGTERM is passed on to the command's process group; SIGUSR1 kills everything. As a child subreaper it keeps even
daemonised descendants below itself; should it be killed, its command dies with it.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CHUNK = 65536
RESERVED = 4096
SWEEP_S = 0.01


def prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def write_record(path: str, record: dict[str, object]) -> None:
    """Atomic and durable: a job's exit must survive the host. Takes the room that was reserved for it."""
    data = json.dumps(record).encode()
    with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT, 0o600), "wb", buffering=0) as file:
        done = 0
        while done < len(data):
            done += file.write(data[done:])
        file.truncate(done)
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def reserve(path: str) -> None:
    """Room for a record of this name, so that a disk that is full by then does not cost it."""
    with open(path + ".new", "wb") as file:
        file.write(b" " * RESERVED)
        file.flush()
        os.fsync(file.fileno())


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat: with the boot id it tells a process from a later one with its number."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        return int(file.read().rpartition(")")[2].split()[19])


def descendants(root: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
                parents.setdefault(parent, []).append(int(name))
    found, todo = [], [root]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


class Output:
    """`log` and, behind it, `log.1`: each at most half of the bound."""

    def __init__(self, folder: str, limit_bytes: int) -> None:
        self._path = os.path.join(folder, "log")
        self._half = max(limit_bytes // 2, CHUNK)
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size

    def write(self, data: bytes) -> None:
        if self._size + len(data) > self._half:
            os.close(self._file)
            os.rename(self._path, self._path + ".1")
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            self._size = 0
        with contextlib.suppress(OSError):  # a full disk costs output, never the run
            self._size += os.write(self._file, data)


def spawn(spec: dict[str, object], output: int) -> tuple[int, str]:
    """(pid of the command, why it could not start)."""
    errors, report = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(127)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if memory := int(str(spec["memory_bytes"])):
                resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
            os.chdir(str(spec["folder"]))
            for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            argv: list[str] = spec["argv"]  # type: ignore[assignment]
            environment: dict[str, str] = spec["environment"]  # type: ignore[assignment]
            try:
                os.execvpe(argv[0], argv, environment)
            except (FileNotFoundError, PermissionError) as error:
                os.write(report, f"CommandNotFound: {argv[0]!r} cannot be started: {error.strerror}".encode())
        except (OSError, ValueError) as error:
            os.write(report, str(error).encode())
        finally:
            os._exit(127)
    os.close(report)
    os.close(output)
    failure = os.read(errors, CHUNK).decode()
    os.close(errors)
    return pid, failure


def supervise(pid: int, output: int, log: Output, wakeups: int) -> tuple[int, bool]:
    """(wait status of the command, whether SIGUSR1 came). Passes signals on until the command has ended."""
    poller = select.poll()
    poller.register(wakeups, select.POLLIN)
    poller.register(output, select.POLLIN)
    killed = False
    while True:
        for ready, _ in poller.poll():
            if ready == output:
                data = os.read(output, CHUNK)
                if data:
                    log.write(data)
                else:
                    poller.unregister(output)
                continue
            numbers = os.read(wakeups, CHUNK)
            if signal.SIGTERM in numbers:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGTERM)
            if signal.SIGUSR1 in numbers:
                killed = True
                kill_all()
            while True:
                ended, status = reap()
                if ended == pid:
                    return status, killed
                if not ended:
                    break


def reap() -> tuple[int, int]:
    try:
        return os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0


def kill_all() -> None:
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def sweep() -> None:
    """Until no descendant is left; a killed one may fork once more before it dies."""
    while True:
        kill_all()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(SWEEP_S)


def main() -> None:
    folder, report = sys.argv[1], int(sys.argv[2])
    os.set_inheritable(report, False)
    with open(os.path.join(folder, "spec.json"), encoding="utf-8") as file:
        spec = json.load(file)
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot_id = file.read().strip()
    wakeups, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    own = os.getpid()
    started: dict[str, object] = {
        "pid": own,
        "start_ticks": start_ticks(own),
        "boot_id": boot_id,
        "at_ms": time.time_ns() // 1_000_000,
    }
    try:
        reserve(os.path.join(folder, "exit.json"))
        write_record(os.path.join(folder, "started.json"), started)
        log = Output(folder, spec["log_bytes"])
    except OSError as error:
        os.write(report, f"failed StorageFailed: its folder cannot be written: {error}".encode())
        return
    output, into = os.pipe2(os.O_CLOEXEC)
    pid, failure = spawn(spec, into)
    if failure:
        os.waitpid(pid, 0)
        os.write(report, f"failed {failure}".encode())
        return
    os.write(report, b"started")
    os.close(report)
    status, killed = supervise(pid, output, log, wakeups)
    sweep()
    os.set_blocking(output, False)
    with contextlib.suppress(BlockingIOError):
        while data := os.read(output, CHUNK):
            log.write(data)
    code = os.waitstatus_to_exitcode(status)
    record: dict[str, object] = {
        "code": code if code >= 0 else 128 - code,
        "killed": killed,
        "at_ms": time.time_ns() // 1_000_000,
    }
    write_record(os.path.join(folder, "exit.json"), record)


if __name__ == "__main__":
    main()
