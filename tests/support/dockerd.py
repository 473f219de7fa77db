"""A Docker engine of a test's own, to be killed, paused and started again. The machine's engine knows nothing of it.

It has its own data, socket and containerd, no bridge and no rules in the firewall; both are ended by their ids.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import docker
import pytest
import requests

from tests.support.docker import need_docker, remove_all
from tests.support.freeze import freeze

READY_S = 90.0  # one that was killed first ends what it finds, and takes its time


class Dockerd:
    """`with Dockerd() as engine`: started; `engine.socket`."""

    def __init__(self) -> None:
        need_docker()
        if os.geteuid() != 0 or shutil.which("dockerd") is None:
            pytest.skip("an engine of one's own needs root and dockerd")
        self.folder = Path(tempfile.mkdtemp(prefix="atoll-dockerd-"))
        self.socket = self.folder / "docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._below: subprocess.Popen[bytes] | None = None  # containerd: containers outlive the engine's process

    def __enter__(self) -> Self:
        config = self.folder / "containerd.toml"
        config.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
        command = ["containerd", "--config", str(config), "--address", str(self.folder / "containerd.sock")]
        command += ["--root", str(self.folder / "root"), "--state", str(self.folder / "state")]
        self._below = self._spawn(command)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None or self._process.poll() is not None:
            self.start()
        self.resume()
        remove_all(Path("/"), self.socket)
        for process in (self._running(), self._below):
            assert process is not None
            process.terminate()
            process.wait(30)
        self._unmount()
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Returns when it answers."""
        # A network of its own: with --bridge=none an engine removes the docker0 that it finds.
        command = [
            "unshare",
            "--net",
            "dockerd",
            f"--host=unix://{self.socket}",
            f"--containerd={self.folder}/containerd.sock",
        ]
        command += [f"--{name}={self.folder}/{name}" for name in ("data-root", "exec-root", "pidfile")]
        command += ["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        (self.folder / "pidfile").unlink(missing_ok=True)  # of one that was killed
        self._process = self._spawn(command)
        end = time.monotonic() + READY_S
        while not self.answers():
            assert self._process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "dockerd does not answer"
            time.sleep(0.05)

    def answers(self) -> bool:
        try:
            client = docker.APIClient(base_url=f"unix://{self.socket}", version="auto", timeout=5)
            client.close()
        except (docker.errors.DockerException, requests.RequestException):
            return False
        return True

    def kill(self) -> None:
        """kill -9."""
        self._running().kill()
        self._running().wait()

    def pause(self) -> None:
        freeze(self._running().pid)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    @contextmanager
    def deaf_below(self) -> Iterator[None]:
        """The engine answers, but what it needs to start a container (its containerd) is paused."""
        assert self._below is not None
        freeze(self._below.pid)
        try:
            yield
        finally:
            self._below.send_signal(signal.SIGCONT)

    def _unmount(self) -> None:
        """An engine leaves what one before it, that was killed, had mounted."""
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for path in reversed(mounted):
            if Path(path).is_relative_to(self.folder):
                subprocess.run(["umount", path], check=True)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process
