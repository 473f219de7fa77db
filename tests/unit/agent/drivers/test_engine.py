"""The recording socket answers as an engine does, and an engine that is not there or refuses is told apart."""

import asyncio
from pathlib import Path

import pytest

from agent.config import DockerSettings
from agent.core.events import DriverStarted
from agent.drivers.docker import DockerDriver
from agent.drivers.driver import Notice, RunSpec
from agent.drivers.engine import Engine, EngineDown, EngineRefused
from atoll.api.v1 import objects_pb2
from atoll.cli import scratch_image
from tests.support import docker
from tests.support.agent_core import run
from tests.support.recording_engine import ID, Recorded, RecordingEngine, answer_to


async def recorded_start(folder: Path) -> list[Recorded]:
    """What reaches the socket when a run is started."""
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    async with RecordingEngine(folder / "engine.sock") as engine:
        settings = DockerSettings(socket=engine.socket)
        driver = DockerDriver(
            folder, notices.put_nowait, settings, node="n1", address="127.0.0.1", log_bytes=1 << 20, finished_runs=1
        )
        task = objects_pb2.Task(image=scratch_image.TAG, command=["sleep"], args=["1000"])
        task.resources.requests.CopyFrom(objects_pb2.Resources(cpu_milli=500, memory_mib=16))
        driver.start(run(), RunSpec(task, ()))
        async with asyncio.timeout(20):
            assert await notices.get() == DriverStarted(run())
        driver.close()
        return [request for request in engine.requests if request.path != "/events"]


@pytest.mark.docker
async def test_a_real_engine_answers_the_same_requests_with_the_same_status(tmp_path: Path) -> None:
    docker.image()
    requests = await recorded_start(tmp_path)
    assert {r.path for r in requests} >= {"/containers/create", f"/containers/{ID}/start", f"/containers/{ID}/archive"}
    real = ""
    try:
        with docker.client() as client:
            for request in requests:
                url = f"{client.base_url}/v{client.api_version}{request.path.replace(ID, real)}"
                headers = {"Content-Type": "application/json"} if request.body else {}
                answer = client.request(
                    request.method, url, params=request.query, data=request.body, headers=headers, timeout=30
                )
                status, body = answer_to(request.method, request.path)
                assert answer.status_code == status, (request, answer.text)
                if request.path == "/containers/create":
                    real = answer.json()["Id"]
                if isinstance(body, dict):
                    assert set(body) <= set(answer.json())
    finally:
        docker.remove_all(tmp_path)


async def test_no_engine_is_down_and_nothing_was_sent(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "none.sock", call_s=1.0, calls_at_once=1, pulls_at_once=1)
    with pytest.raises(EngineDown) as first:
        await engine.inspect("x")
    assert not first.value.sent
    assert "does not answer" in engine.down
    engine.close()


async def test_a_silent_engine_is_down_within_the_timeout_and_may_have_heard(tmp_path: Path) -> None:
    changes: list[str] = []
    held: list[asyncio.StreamWriter] = []

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    server = await asyncio.start_unix_server(silent, str(tmp_path / "engine.sock"))
    engine = Engine(tmp_path / "engine.sock", call_s=0.2, calls_at_once=1, pulls_at_once=1)
    engine.changed = lambda: changes.append(engine.down)
    with pytest.raises(EngineDown) as first:
        await engine.start("x")
    assert first.value.sent
    with pytest.raises(EngineDown) as second:  # not asked at all
        await engine.start("x")
    assert not second.value.sent
    assert len(held) == 1
    assert len(changes) == 1
    for writer in held:
        writer.close()
    server.close()
    engine.close()


async def test_a_refusal_is_an_answer(tmp_path: Path) -> None:
    async with RecordingEngine(tmp_path / "engine.sock") as recorder:
        engine = Engine(recorder.socket, call_s=5.0, calls_at_once=1, pulls_at_once=1)
        with pytest.raises(EngineRefused) as refused:
            await engine.signal("nobody", "SIGTERM")
        assert (refused.value.status, engine.down) == (404, "")
        assert await engine.inspect("nobody") is None
        engine.close()


async def test_an_answer_that_is_not_understood_is_a_refusal(tmp_path: Path) -> None:
    async with RecordingEngine(tmp_path / "engine.sock") as recorder:
        recorder.instead = {("POST", "/containers/x/start"): (500, {"error": "no message"})}
        engine = Engine(recorder.socket, call_s=5.0, calls_at_once=1, pulls_at_once=1)
        with pytest.raises(EngineRefused, match="is not understood"):
            await engine.start("x")
        engine.close()
