"""What `doctor` says of an engine that answers, of none, and of something else at its socket."""

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
    server = answers(path, b"HTTP/1.0 200 OK\r\n\r\nOK")
    found = findings.docker()
    server.join()
    assert (found.good, found.advice) == (True, "")


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
