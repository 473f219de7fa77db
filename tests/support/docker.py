"""The machine's Docker engine for tests: found or skipped with the reason, and what a test leaves there is removed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import docker
import docker.errors
import pytest
import requests

from atoll import errors
from atoll.cli import scratch_image

SOCKET = Path("/var/run/docker.sock")
REQUIRE = "ATOLL_REQUIRE_DOCKER"


@cache
def _missing() -> str:
    """Why there is no engine to test with; empty when there is one."""
    try:
        client = docker.APIClient(base_url=f"unix://{SOCKET}", version="auto", timeout=10)
        client.ping()
        client.close()
    except (docker.errors.DockerException, requests.RequestException) as error:
        return f"no Docker engine at {SOCKET}: {error}"
    return ""


def need_docker() -> Path:
    """The engine's socket. Without one: a failure where ATOLL_REQUIRE_DOCKER=1, else a skip."""
    if why := _missing():
        _absent(why)
    return SOCKET


def need_busybox() -> None:
    """What the image is built of. Without it: as without an engine."""
    if not scratch_image.BUSYBOX.exists():
        _absent(f"no {scratch_image.BUSYBOX}: apt install busybox-static")


def _absent(why: str) -> NoReturn:
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(why)
    pytest.skip(why)


@cache
def _image() -> str:
    return scratch_image.build(SOCKET)


def image() -> str:
    """The tag of a small image in the machine's engine."""
    need_docker()
    try:
        return _image()
    except errors.Invalid as error:
        return _absent(f"{error}: {error.hint}")


@contextmanager
def client(socket: Path = SOCKET) -> Iterator[Any]:
    made = docker.APIClient(base_url=f"unix://{socket}", version="auto", timeout=30)
    try:
        yield made
    finally:
        made.close()


def containers(folder: Path, socket: Path = SOCKET) -> list[dict[str, Any]]:
    """All that agents with their state below this folder have in the engine, found without a driver's help."""
    with client(socket) as engine:
        listed = engine.containers(all=True, filters={"label": "atoll.state"})
    own = str(folder.resolve())
    return [item for item in listed if f"{item['Labels']['atoll.state']}/".startswith(f"{own}/")]


def running(folder: Path, socket: Path = SOCKET) -> list[dict[str, Any]]:
    return [item for item in containers(folder, socket) if item["State"] == "running"]


def remove_all(folder: Path, socket: Path = SOCKET) -> None:
    """What a test of this folder has left."""
    for item in containers(folder, socket):
        with client(socket) as engine:
            try:
                engine.remove_container(item["Id"], v=True, force=True)
            except docker.errors.NotFound:
                continue
