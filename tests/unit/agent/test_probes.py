import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from agent.addresses import Addresses
from agent.core.commands import ProbeReplica
from agent.core.events import ProbeAnswered
from agent.core.runs import RunName
from agent.drivers.driver import RunSpec
from agent.drivers.fake import Behaviour, FakeDriver
from agent.probes import Probes
from atoll.api.v1 import objects_pb2
from atoll.errors import Unavailable
from tests.support.agent_core import run

STATUS = {
    "/ok": b"HTTP/1.1 204 No Content\r\n\r\n",
    "/sick": b"HTTP/1.1 503 No\r\n\r\n",
    "/odd": b"hello\n",
    "/mute": b"",
}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        writer.write(STATUS[line.split()[1].decode()] if line else b"")
        if b"/mute" in line:
            await reader.read()  # silent until the client goes: a stream that nobody holds may be closed any time
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def ask(probe: objects_pb2.Probe, timeout_ms: int = 5000) -> tuple[bool | None, str]:
    driver = FakeDriver(lambda notice: None, lambda name, spec: Behaviour(check=(False, "exit code 4")))
    driver.start(run(), RunSpec(objects_pb2.Task(), ()))
    driver.advance(10)
    answer = await Probes(driver, Addresses("", "n1"), 1).check(ProbeReplica(9, run(), probe, timeout_ms))
    assert isinstance(answer, ProbeAnswered)
    assert answer.probe_id == 9
    return answer.ok, answer.message


def http(port: int, path: str) -> objects_pb2.Probe:
    return objects_pb2.Probe(http=objects_pb2.HttpCheck(port=port, path=path))


async def test_http(port: int) -> None:
    assert await ask(http(port, "/ok")) == (True, "status 204")
    assert await ask(http(port, "/sick")) == (False, "status 503")
    assert await ask(http(port, "/odd")) == (False, "the answer is not HTTP")
    ok, message = await ask(http(port, "/ok HTTP/1.1\r\nX: y"))
    assert not ok and "cannot be asked for" in message


async def test_a_mute_server_is_answered_for_in_time(port: int) -> None:
    assert await ask(http(port, "/mute"), 50) == (False, "no answer within 50 ms")


async def test_tcp(port: int) -> None:
    assert await ask(objects_pb2.Probe(tcp=objects_pb2.TcpCheck(port=port))) == (True, "")
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    closed_port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    ok, message = await ask(objects_pb2.Probe(tcp=objects_pb2.TcpCheck(port=closed_port)))
    assert not ok and message


async def test_a_command_is_the_drivers() -> None:
    check = objects_pb2.Probe(command=objects_pb2.CommandCheck(command=["false"]))
    assert await ask(check) == (False, "exit code 4")


async def test_a_run_with_an_address_of_its_own_is_asked_there() -> None:
    addresses = Addresses("127.64.0.0/10", "n1")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, addresses.own(run()), 0)
    async with server:
        check = objects_pb2.Probe(tcp=objects_pb2.TcpCheck(port=server.sockets[0].getsockname()[1]))
        driver = FakeDriver(lambda notice: None, lambda name, spec: Behaviour())
        for one, expected in ((addresses, True), (Addresses("", "n1"), False)):
            answer = await Probes(driver, one, 1).check(ProbeReplica(1, run(), check, 5000))
            assert isinstance(answer, ProbeAnswered)
            assert answer.ok == expected


async def test_a_command_that_cannot_be_run_is_no_answer() -> None:
    class Silent(FakeDriver):
        async def exec_check(self, run: RunName, command: Sequence[str], timeout_ms: int) -> tuple[bool, str]:
            raise Unavailable("the engine hangs")

    driver = Silent(lambda notice: None, lambda name, spec: Behaviour())
    probe = objects_pb2.Probe(command=objects_pb2.CommandCheck(command=["true"]))
    answer = await Probes(driver, Addresses("", "n1"), 1).check(ProbeReplica(9, run(), probe, 50))
    assert answer == ProbeAnswered(9, None, "the engine hangs")
