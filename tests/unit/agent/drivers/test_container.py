"""What a task becomes, field by field, and what an engine's words mean."""

import dataclasses

import pytest

from agent.core.runs import run_name
from agent.drivers import container
from agent.drivers.driver import RunSpec
from atoll.api.v1 import objects_pb2
from tests.support.agent_core import run

NODE = container.Node("n1", "/var/lib/atoll", "10.0.0.5", processors=2, most_pids=64, log_bytes=1 << 20)


def task(**fields: object) -> objects_pb2.Task:
    made = objects_pb2.Task(image="web:1", **fields)  # type: ignore[arg-type]
    made.resources.requests.CopyFrom(objects_pb2.Resources(cpu_milli=500, memory_mib=64))
    return made


def test_a_task_becomes_a_bounded_container() -> None:
    made = task(command=["serve"], args=["-v"], ports=[objects_pb2.Port(name="http", number=8080)])
    made.resources.limits.memory_mib = 128
    body = container.create_request(run(), RunSpec(made, (("COLOUR", "blue"),)), NODE)
    host = body["HostConfig"]
    assert (body["Image"], body["Entrypoint"], body["Cmd"]) == ("web:1", ["serve"], ["-v"])
    assert body["Env"] == ["COLOUR=blue", f"ATOLL_RUN={run()}", "ATOLL_STATE=/var/lib/atoll"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["CpuShares"]) == (
        128 << 20,
        128 << 20,
        5 * 10**8,
        512,
    )
    assert body["ExposedPorts"] == {"8080/tcp": {}}
    assert host["PortBindings"] == {
        "8080/tcp": [{"HostIp": "10.0.0.5", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8080"}]
    }
    assert container.run_of(body["Labels"]) == run()


def test_without_a_command_the_images_own_runs() -> None:
    body = container.create_request(run(), RunSpec(task(), ()), NODE)
    assert "Entrypoint" not in body
    assert "Cmd" not in body


def test_gpus_are_asked_of_an_engine_that_hands_them_out() -> None:
    offering = dataclasses.replace(NODE, gpus=True)
    asked = container.create_request(run(), RunSpec(task(), (), gpus=(0, 3)), offering)["HostConfig"]["DeviceRequests"]
    assert asked == [{"Driver": "nvidia", "DeviceIDs": ["0", "3"], "Capabilities": [["gpu"]]}]
    without = container.create_request(run(), RunSpec(task(), ()), offering)
    assert "DeviceRequests" not in without["HostConfig"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in without["Env"]
    assert "DeviceRequests" not in container.create_request(run(), RunSpec(task(), (), gpus=(0,)), NODE)["HostConfig"]


def test_names_differ_between_agents_and_lead_back_to_the_run() -> None:
    other = container.Node("n2", "/elsewhere", "", processors=2, most_pids=64, log_bytes=1)
    name = container.name_of(run(), NODE)
    assert name != container.name_of(run(), other)
    assert run_name(name.rpartition(".")[0]) == run()


@pytest.mark.parametrize(
    ("status", "message", "word"),
    [
        (404, "No such image: web:1", "ImageMissing"),
        (400, "invalid reference format", "ImageInvalid"),
        (500, "Bind for 127.0.0.1:80 failed: port is already allocated", "PortTaken"),
        (500, "listen tcp4 127.0.0.1:80: bind: address already in use", "PortTaken"),
        (500, 'could not select device driver "nvidia" with capabilities: [[gpu]]', "GpuUnavailable"),
        (404, "exec: 'x': no such file or directory in the image", "CommandNotFound"),
        (400, 'OCI runtime create failed: exec: "x": executable file not found in $PATH', "CommandNotFound"),
        (500, "something else", "EngineRefused"),
    ],
)  # fmt: skip
def test_every_refusal_begins_with_a_stable_word(status: int, message: str, word: str) -> None:
    assert container.why_not_started(status, message, task()).split(":")[0] == word


@pytest.mark.parametrize(
    ("state", "reason", "message"),
    [
        ({"ExitCode": 0}, "Completed", ""),
        ({"ExitCode": 3}, "Failed", ""),
        ({"ExitCode": 137}, "Failed", "ended by signal 9"),
        ({"ExitCode": 137, "OOMKilled": True}, "OutOfMemory", "it used more than its 64 MiB of memory"),
        ({"ExitCode": 0, "OOMKilled": True}, "Completed", ""),
        ({}, "Failed", ""),
    ],
)
def test_ends_have_their_reasons(state: dict[str, object], reason: str, message: str) -> None:
    told = container.exit_of(state, 64 << 20, 5)
    assert (told.reason, told.message, told.at_ms) == (reason, message, 5)


@pytest.mark.parametrize(
    "broken",
    [
        objects_pb2.Task(command=["x"]),
        objects_pb2.Task(image="web:1"),
        task(driver=objects_pb2.DRIVER_PROCESS),
        task(ports=[objects_pb2.Port(name="p", number=0)]),
    ],
)
def test_what_no_container_can_be_is_refused(broken: objects_pb2.Task) -> None:
    with pytest.raises(container.Refused):
        container.create_request(run(), RunSpec(broken, ()), NODE)


def test_images_are_named_in_one_spelling_and_bounded_newest_first() -> None:
    listed = [
        {"Created": 2, "RepoTags": ["nginx:1.27", "<none>:<none>"], "RepoDigests": ["nginx@sha256:ab"]},
        {"Created": 1, "RepoTags": None},
        {"Created": 3, "RepoTags": ["acme/web:2", "x" * 300]},
    ]
    assert container.images_of(listed) == ("acme/web:2", "nginx:1.27", "nginx@sha256:ab")
    many = [{"Created": at, "RepoTags": [f"i{at:03}:1"]} for at in range(300)]
    assert container.images_of(many) == tuple(f"i{at:03}:1" for at in range(44, 300))
