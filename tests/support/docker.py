"""The machine's Docker engine for tests: found or skipped with the reason, and what a test leaves there is removed."""

import os
from functools import cache
from pathlib import Path

import docker
import docker.errors
import pytest
import requests

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
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(why)
        pytest.skip(why)
    return SOCKET


@cache
def _image() -> str:
    return scratch_image.build(SOCKET)


def image() -> str:
    """The tag of a small image in the machine's engine."""
    need_docker()
    return _image()
