"""The image without a registry: the same bytes each time, loaded into a real engine; clear when it cannot."""

from pathlib import Path

import docker
import pytest

from atoll import errors
from atoll.cli import scratch_image
from tests.support.docker import need_busybox, need_docker


def test_the_same_bytes_each_time() -> None:
    need_busybox()
    assert scratch_image.archive() == scratch_image.archive()


@pytest.mark.docker
def test_an_engine_takes_it_and_runs_it() -> None:
    socket = need_docker()
    tag = scratch_image.build(socket)
    client = docker.APIClient(base_url=f"unix://{socket}", version="auto")
    before = client.inspect_image(tag)["Id"]
    scratch_image.build(socket)
    assert client.inspect_image(tag)["Id"] == before
    container = client.create_container(tag, ["sh", "-c", "ls /tmp && echo hello | tr a-z A-Z"])
    try:
        client.start(container)
        assert client.wait(container)["StatusCode"] == 0
        assert client.logs(container) == b"HELLO\n"
    finally:
        client.remove_container(container, force=True)
        client.close()


def test_without_a_busybox_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scratch_image, "BUSYBOX", tmp_path / "busybox")
    with pytest.raises(errors.Invalid, match="no static busybox") as failure:
        scratch_image.archive()
    assert (failure.value.code, failure.value.hint) == ("E1018", "apt install busybox-static")


def test_without_an_engine_it_says_so(tmp_path: Path) -> None:
    need_busybox()
    with pytest.raises(errors.Unavailable, match="no Docker engine answers"):
        scratch_image.build(tmp_path / "docker.sock")
