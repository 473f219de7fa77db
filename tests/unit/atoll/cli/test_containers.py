"""What a playground ran is removed, and nothing of anybody else."""

from pathlib import Path

import pytest

from atoll.cli import containers
from tests.support import docker


@pytest.mark.docker
def test_containers_of_these_state_folders_go_and_no_others(tmp_path: Path) -> None:
    tag = docker.image()
    states = (tmp_path / "n1", tmp_path / "n10")
    with docker.client() as client:
        made = [
            client.create_container(tag, ["true"], labels={containers.LABEL_STATE: str(state.resolve())})["Id"]
            for state in states
        ]
        try:
            containers.remove([states[0]])
            assert [one["Id"] for one in docker.containers(tmp_path)] == [made[1]]
        finally:
            docker.remove_all(tmp_path)
