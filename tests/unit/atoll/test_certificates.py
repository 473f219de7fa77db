"""A server's certificate files change while it serves: real handshakes."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from cryptography import x509

from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc
from atoll.certificates import ServerCertificates
from atoll.clock import SystemClock
from atoll.errors import Invalid
from atoll.identity import TlsFiles
from tests.support.pki import Pki

REGION = "east"


class Gateway(agent_pb2_grpc.AgentGatewayServicer):
    async def Renew(self, request: agent_pb2.RenewRequest, context: rpc.Context) -> agent_pb2.JoinResponse:
        return agent_pb2.JoinResponse(region=rpc.identity_of(context).node)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
async def server(pki: Pki) -> AsyncIterator[rpc.Server]:
    made = rpc.Server(files(pki), lambda _: None, SystemClock())
    made.add(agent_pb2_grpc.add_AgentGatewayServicer_to_server, Gateway())
    await made.start("127.0.0.1:0", "127.0.0.1:0")
    yield made
    await made.stop(0)


def files(pki: Pki) -> TlsFiles:
    """The server's own, which the tests replace."""
    tls, own = pki.region(REGION), pki.folder / "own"
    own.mkdir(exist_ok=True)
    for path in (tls.certificate, tls.key, tls.ca):
        shutil.copy(path, own / path.name)
    return TlsFiles(own / tls.certificate.name, own / tls.key.name, own / tls.ca.name)


async def shown(server: rpc.Server) -> int:
    """The serial number of the certificate that a new connection is shown."""
    host, _, port = server.people_address.rpartition(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial(path: Path) -> int:
    return x509.load_pem_x509_certificate(path.read_bytes()).serial_number


async def asked(channel: grpc.aio.Channel) -> str:
    return (await agent_pb2_grpc.AgentGatewayStub(channel).Renew(agent_pb2.RenewRequest(), timeout=10)).region


async def test_a_new_pair_serves_from_the_next_handshake_on(pki: Pki, server: rpc.Server) -> None:
    own, node = pki.folder / "own", pki.node(REGION, "n1")
    first = await shown(server)
    async with rpc.channel(server.programs_address, ca=pki.ca, client=node) as before:
        assert await asked(before) == "n1"
        fresh = pki.authority.issue_region(REGION, "r1", ("127.0.0.1",), pki.folder / "fresh", pki.now_ms)
        for path in (fresh.certificate, fresh.key):
            shutil.copy(path, own / path.name)
        assert await shown(server) == serial(fresh.certificate) != first
        assert await asked(before) == "n1", "a connection that is there stays"
        async with rpc.channel(server.programs_address, ca=pki.ca, client=node) as after:
            assert await asked(after) == "n1"


async def test_half_of_a_change_or_nonsense_changes_nothing(pki: Pki, server: rpc.Server) -> None:
    own = pki.folder / "own"
    first = await shown(server)
    fresh = pki.authority.issue_region(REGION, "r1", ("127.0.0.1",), pki.folder / "fresh", pki.now_ms)
    shutil.copy(fresh.certificate, own / fresh.certificate.name)
    assert await shown(server) == first
    (own / fresh.key.name).write_bytes(b"nonsense")
    assert await shown(server) == first
    (own / fresh.key.name).unlink()
    assert await shown(server) == first
    shutil.copy(fresh.key, own / fresh.key.name)
    assert await shown(server) == serial(fresh.certificate)


async def test_a_new_root_lets_in_whom_it_has_signed(pki: Pki, server: rpc.Server, tmp_path: Path) -> None:
    """Both roots in one file while a cluster changes from one to the other."""
    other = Pki(tmp_path / "other")
    node = other.node(REGION, "n2")
    with pytest.raises(grpc.aio.AioRpcError):
        async with rpc.channel(server.programs_address, ca=pki.ca, client=node) as channel:
            await asked(channel)
    ca = pki.folder / "own" / "ca.crt"
    ca.write_bytes(ca.read_bytes() + other.ca.read_bytes())
    async with rpc.channel(server.programs_address, ca=pki.ca, client=node) as channel:
        assert await asked(channel) == "n2"


def test_files_that_do_not_fit_are_refused_at_the_start(pki: Pki) -> None:
    mixed = TlsFiles(pki.region(REGION).certificate, pki.region("west").key, pki.ca)
    with pytest.raises(Invalid, match="not the one of"):
        ServerCertificates(mixed).credentials(mutual=True)
