"""What `doctor` says of an engine that answers, of none, and of something else at its socket; and of the machine."""

import errno
import os
import resource
import socket
import threading
from pathlib import Path

import pytest

from atoll.cli import findings


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where doctor looks for an engine."""
    made = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{made}")
    return made


def answers(path: Path, text: bytes) -> threading.Thread:
    """A server of one connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def serve() -> None:
        with listener, listener.accept()[0] as caller:
            caller.recv(100)
            caller.sendall(text)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def test_an_engine_that_answers_is_good(path: Path) -> None:
    server = answers(path, b"HTTP/1.0 200 OK\r\nServer: Docker/20.10.24+dfsg1 (linux)\r\n\r\nOK")
    found = findings.docker()
    server.join()
    assert (found.good, found.found) == (True, f"engine 20.10.24 answers at {path}")


@pytest.mark.parametrize("text", [b"HTTP/1.0 500 No\r\n\r\n", b"+PONG\r\n"])
def test_what_is_no_engine_is_told_with_what_works_without(path: Path, text: bytes) -> None:
    server = answers(path, text)
    found = findings.docker()
    server.join()
    assert (found.good, found.advice) == (None, findings.WITHOUT_DOCKER)
    assert "no Docker engine" in found.found


def test_without_an_engine_it_is_a_note(path: Path) -> None:
    found = findings.docker()
    assert (found.good, found.advice) == (None, findings.WITHOUT_DOCKER)
    assert f"no engine answers at {path}" in found.found


def test_an_engine_elsewhere_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    assert findings.docker().good is None


def test_every_finding_says_what_follows() -> None:
    found = findings.look()
    looked_at = {"Python", "etcd", "Docker", "cgroup", "descriptors", "clock", "workers"}
    assert looked_at < {finding.name for finding in found}
    assert all(finding.found and finding.advice for finding in found)


@pytest.mark.parametrize(("limit", "good", "nodes"), [(1_024, None, "768"), (20_000, True, "19,744")])
def test_descriptors_are_counted_in_nodes(
    monkeypatch: pytest.MonkeyPatch, limit: int, good: bool | None, nodes: str
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, resource.RLIM_INFINITY))
    found = findings.descriptors()
    assert found.good is good
    assert f"{nodes} nodes" in found.advice


def test_a_machine_without_cgroup_2_is_told_what_an_agent_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(findings, "CGROUP", tmp_path)
    assert findings.cgroup().good is None
    (tmp_path / "cgroup.controllers").touch()
    assert findings.cgroup().good is True


@pytest.mark.parametrize(
    ("cores", "good", "words"), [(1, None, "at 1"), (2, None, "at 1"), (3, True, "= 2"), (64, True, "= 8")]
)
def test_workers_need_cores_that_nothing_else_needs(
    monkeypatch: pytest.MonkeyPatch, cores: int, good: bool | None, words: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    found = findings.workers()
    assert found.good is good and words in found.advice and f"{cores} core" in found.found


def test_workers_need_memory_that_can_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, flags: int) -> int:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "memfd_create", refused)
    found = findings.workers()
    assert found.good is None and "not permitted" in found.found and "at 1" in found.advice
