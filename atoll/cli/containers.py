"""Containers in a playground: whether there can be any, from which image, and that none is left.

The image is built from scratch and given to the engine (scratch_image); no registry is asked.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from atoll import errors, manifest
from atoll.api.v1 import objects_pb2
from atoll.cli import scratch_image

SOCKET = Path("/var/run/docker.sock")
LABEL_STATE = "atoll.state"  # of the agent that made a container
ANSWER_S = 3.0
CALL_S = 30.0


def image() -> tuple[str, str]:
    """The image's name; or why there are no containers."""
    if not SOCKET.exists():
        return "", "no container engine answers"
    import docker
    import docker.errors
    import requests

    try:
        client = docker.APIClient(base_url=f"unix://{SOCKET}", version="auto", timeout=ANSWER_S)
        client.close()
        return scratch_image.build(SOCKET), ""
    except (docker.errors.DockerException, requests.RequestException, OSError):
        return "", "no container engine answers"
    except (errors.Invalid, errors.Unavailable) as error:
        return "", f"{error.message}; {error.hint}" if error.hint else error.message


def in_containers(documents: Sequence[manifest.Document], name: str) -> list[manifest.Document]:
    """The documents, with this image for every task that names none."""
    changed = []
    for document in documents:
        message = document.message
        if isinstance(message, objects_pb2.Workload):
            workload = objects_pb2.Workload()
            workload.CopyFrom(message)
            for task in workload.spec.tasks:
                task.image = task.image or name
            document = replace(document, message=workload)
        changed.append(document)
    return changed


def remove(states: Sequence[Path]) -> None:
    """Every container of agents with these state folders. Does nothing where no engine answers."""
    if not states or not SOCKET.exists():
        return
    import docker
    import docker.errors
    import requests

    try:
        client = docker.APIClient(base_url=f"unix://{SOCKET}", version="auto", timeout=CALL_S)
    except (docker.errors.DockerException, requests.RequestException, OSError):
        return
    try:
        for state in states:
            label = f"{LABEL_STATE}={state.resolve()}"
            for found in client.containers(all=True, filters={"label": label}):
                try:
                    client.remove_container(found["Id"], force=True)
                except docker.errors.APIError as gone:
                    if gone.status_code not in (404, 409):  # somebody else removes it
                        raise
    finally:
        client.close()
