"""A cluster gets another root while it runs: real handshakes at every step, of old and new certificates."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from atoll import rotation, rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc
from atoll.clock import SystemClock
from atoll.errors import Invalid
from atoll.identity import CertificateAuthority, RegionIssuer, TlsFiles, ca_digests
from tests.support.pki import HOSTS, Pki
from tests.unit.atoll.test_certificates import REGION, Gateway, files


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
def own(pki: Pki) -> TlsFiles:
    return files(pki)


@pytest.fixture
async def server(pki: Pki, own: TlsFiles) -> AsyncIterator[rpc.Server]:
    made = rpc.Server(own, lambda _: None, SystemClock())
    made.add(agent_pb2_grpc.add_AgentGatewayServicer_to_server, Gateway())
    await made.start("127.0.0.1:0", "127.0.0.1:0")
    yield made
    await made.stop(0)


async def talk(server: rpc.Server, node: TlsFiles, ca: Path) -> bool:
    """Whether the two prove themselves to each other."""
    async with rpc.channel(server.programs_address, ca=ca, client=node) as channel:
        try:
            await agent_pb2_grpc.AgentGatewayStub(channel).Renew(agent_pb2.RenewRequest(), timeout=10)
        except grpc.aio.AioRpcError:
            return False
    return True


def renewed(pki: Pki, name: str) -> TlsFiles:
    """A node's certificate by an issuer of the root that signs now."""
    authority = CertificateAuthority(pki.authority.folder)
    authority.issue_region_issuer(REGION, pki.folder / f"issuer-{REGION}", pki.now_ms)
    return pki.node(REGION, name)


async def test_old_and_new_certificates_are_good_until_the_old_root_goes(
    pki: Pki, own: TlsFiles, server: rpc.Server, tmp_path: Path
) -> None:
    folder, before = pki.authority.folder, tmp_path / "before.crt"
    shutil.copy(pki.ca, before)
    old = pki.node(REGION, "old")
    assert await talk(server, old, before)

    rotation.start(folder, pki.now_ms)
    assert await talk(server, old, before), "nothing has changed for those who have not heard"
    shutil.copy(pki.ca, own.ca)
    assert await talk(server, old, pki.ca)

    rotation.switch(folder)
    shutil.copy(pki.ca, own.ca)
    new = renewed(pki, "new")
    assert await talk(server, new, pki.ca) and await talk(server, old, pki.ca)
    issued = CertificateAuthority(folder).issue_region(REGION, "r1", HOSTS, tmp_path / "issued", pki.now_ms)
    shutil.copy(issued.key, own.key)
    shutil.copy(issued.certificate, own.certificate)
    assert await talk(server, new, pki.ca) and await talk(server, old, pki.ca)
    assert not await talk(server, old, before), "who trusts the old root alone does not know this server"

    rotation.finish(folder)
    shutil.copy(pki.ca, own.ca)
    assert await talk(server, new, pki.ca)
    assert not await talk(server, old, pki.ca)


def test_a_token_made_before_the_switch_names_a_root_that_is_still_known(pki: Pki) -> None:
    folder = pki.authority.folder
    (named,) = ca_digests(pki.ca.read_bytes())
    rotation.start(folder, pki.now_ms)
    assert ca_digests(pki.ca.read_bytes())[0] == named, "the one that signs comes first"
    rotation.switch(folder)
    known = ca_digests(pki.ca.read_bytes())
    assert known[0] != named and named in known
    rotation.finish(folder)
    assert ca_digests(pki.ca.read_bytes()) == known[:1]


def test_steps_have_their_order(pki: Pki) -> None:
    folder = pki.authority.folder
    with pytest.raises(Invalid, match="no new root"):
        rotation.switch(folder)
    rotation.start(folder, pki.now_ms)
    with pytest.raises(Invalid, match="under way"):
        rotation.start(folder, pki.now_ms)
    with pytest.raises(Invalid, match="still signs"):
        rotation.finish(folder)
    rotation.switch(folder)
    with pytest.raises(Invalid, match="under way"):
        rotation.start(folder, pki.now_ms)


@pytest.mark.parametrize("torn", ["ca.crt", "ca.key"])
def test_a_switch_that_was_cut_short_is_done_again(pki: Pki, torn: str) -> None:
    """The file named had not been replaced when the machine went down."""
    folder, saved = pki.authority.folder, pki.folder / "saved"
    rotation.start(folder, pki.now_ms)
    shutil.copytree(folder, saved)
    rotation.switch(folder)
    shutil.copy(saved / torn, folder / torn)
    shutil.copytree(saved / "next", folder / "next")
    rotation.switch(folder)
    assert len(ca_digests(pki.ca.read_bytes())) == 2
    issuer = CertificateAuthority(folder).issue_region_issuer(REGION, pki.folder / "i", pki.now_ms)
    assert RegionIssuer(issuer.certificate, issuer.key).region == REGION
    assert (folder / "ca.key").stat().st_mode & 0o077 == 0
