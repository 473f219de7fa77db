"""Whatever a task says, what reaches the engine never holds a field that could leave the container.

Checked on the bytes that a unix socket in the engine's place receives.
"""

import asyncio
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agent.config import DockerSettings
from agent.core.events import DriverStarted, DriverStartFailed
from agent.core.runs import Rank, RunName
from agent.drivers.docker import DockerDriver
from agent.drivers.driver import Notice, RunSpec
from atoll.api.v1 import objects_pb2
from atoll.model.slots import AttemptId, SlotName
from tests.support.recording_engine import ID, RecordingEngine

NASTY = (
    "--privileged", "host", "/var/run/docker.sock", "/:/host", "SYS_ADMIN", "container:1", "ns:/proc/1/ns/net",
    "/dev/mem", '","HostConfig":{"Privileged":true},"x":"', "Privileged", "seccomp=unconfined",
    "label=disable", "\0", "../..",
)  # fmt: skip
TEXT = st.one_of(st.sampled_from(NASTY), st.text(max_size=20))
LABELS = st.lists(st.builds(objects_pb2.Label, key=TEXT, value=TEXT), max_size=4)
AMOUNT = st.integers(-(2**63), 2**63 - 1) | st.integers(0, 10_000)
RESOURCES = st.builds(objects_pb2.Resources, cpu_milli=AMOUNT, memory_mib=AMOUNT, disk_mib=AMOUNT, gpu_milli=AMOUNT)
SANE = st.builds(objects_pb2.Resources, cpu_milli=st.integers(0, 4_000), memory_mib=st.integers(1, 4_096))
PORTS = st.builds(objects_pb2.Port, name=TEXT, number=st.integers(1, 65_535) | st.integers(-(2**31), 2**31 - 1))
TASKS = st.builds(
    objects_pb2.Task,
    name=TEXT,
    driver=st.sampled_from([objects_pb2.DRIVER_UNSPECIFIED, objects_pb2.DRIVER_DOCKER, objects_pb2.DRIVER_PROCESS]),
    image=TEXT,
    command=st.lists(TEXT, max_size=3),
    args=st.lists(TEXT, max_size=3),
    env=LABELS,
    ports=st.lists(PORTS, max_size=2),
    resources=st.builds(objects_pb2.ResourceRequirements, requests=RESOURCES | SANE, limits=RESOURCES | SANE),
    node_selector=LABELS,
    termination_grace_s=AMOUNT,
    strategy=TEXT,
)

BODY = {
    "Image", "Env", "Labels", "ExposedPorts", "AttachStdin", "AttachStdout", "AttachStderr", "OpenStdin", "Tty",
    "HostConfig", "Entrypoint", "Cmd",
}  # fmt: skip
FREE = {"Memory", "MemorySwap", "NanoCpus", "CpuShares", "PidsLimit", "PortBindings", "LogConfig"}
FIXED: dict[str, Any] = {
    "NetworkMode": "bridge", "IpcMode": "private", "CgroupnsMode": "private", "PidMode": "", "UTSMode": "",
    "UsernsMode": "", "Privileged": False, "CapAdd": [], "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"],
    "Devices": [], "Binds": [], "Mounts": [], "RestartPolicy": {"Name": "no"}, "AutoRemove": False, "Init": True,
}  # fmt: skip
CALLS = re.compile(
    rf"GET /(version|containers/json|images/json|events)|POST /containers/create|POST /containers/{ID}/start"
    rf"|(GET|HEAD|DELETE) /containers/[^/]+(/json|/logs|/archive)?"
)

UNSHRUNK = (Phase.explicit, Phase.reuse, Phase.generate)  # an example takes long: it is shown as it was found


@settings(max_examples=60, deadline=None, phases=UNSHRUNK, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TASKS, min_size=1, max_size=6), st.lists(st.tuples(TEXT, TEXT), max_size=4))
def test_no_task_reaches_out_of_its_container(
    tasks: list[objects_pb2.Task], environment: list[tuple[str, str]]
) -> None:
    asyncio.run(_start_all(tasks, tuple(environment)))


async def _start_all(tasks: list[objects_pb2.Task], environment: tuple[tuple[str, str], ...]) -> None:
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    with tempfile.TemporaryDirectory() as folder:
        async with RecordingEngine(Path(folder) / "engine.sock") as engine:
            driver = DockerDriver(
                Path(folder),
                notices.put_nowait,
                DockerSettings(socket=engine.socket),
                node="n1",
                address="127.0.0.1",
                log_bytes=1 << 20,
                finished_runs=10,
            )
            for number, task in enumerate(tasks):
                run = RunName(SlotName("acme", "web", "main", number), Rank(1, AttemptId(7, number)))
                driver.start(run, RunSpec(task, environment))
            async with asyncio.timeout(30):
                answers = [await notices.get() for _ in tasks]
            driver.close()
    started = [answer for answer in answers if isinstance(answer, DriverStarted)]
    assert len(engine.creations()) == len(started)
    assert {int(r.query["name"][0].split("-")[-1].split(".")[0]) for r in engine.creations()} == {
        answer.run.rank.attempt.n for answer in started
    }
    assert all(isinstance(answer, DriverStarted | DriverStartFailed) for answer in answers)
    for request in engine.requests:
        assert CALLS.fullmatch(f"{request.method} {request.path}"), request
    for request in engine.creations():
        _judge(request.json)


def _judge(body: dict[str, Any]) -> None:
    assert set(body) <= BODY
    host = body["HostConfig"]
    assert set(host) == FREE | set(FIXED)
    assert {name: host[name] for name in FIXED} == FIXED
    assert host["Memory"] > 0
    assert host["MemorySwap"] == host["Memory"]
    assert host["NanoCpus"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Type"] == "json-file"
    for bindings in host["PortBindings"].values():
        assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]
        assert all(1 <= int(binding["HostPort"]) <= 65_535 for binding in bindings)
    assert not (body["Tty"] or body["OpenStdin"] or body["AttachStdin"])
