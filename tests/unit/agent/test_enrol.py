"""Join and Renew against a region with real TLS (tests/support/agent_region.py)."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.config import Settings
from agent.enrol import Enrolment
from atoll import tokens
from atoll.clock import SystemClock
from atoll.errors import Invalid, NotAuthenticated
from atoll.identity import CertificateAuthority, identity_from_certificate
from tests.support.agent_region import AgentRegion


@pytest.fixture
async def region(tmp_path: Path) -> AsyncIterator[AgentRegion]:
    region = AgentRegion(tmp_path / "pki")
    await region.start()
    yield region
    await region.stop()


def enrolment(region: AgentRegion, tmp_path: Path, token: str = "", ca: Path | None = None) -> Enrolment:
    settings = Settings(
        name="n1",
        region_programs=(region.server.programs_address,),
        region_people=(region.server.people_address,),
        join_token=token or region.token.text(),
        ca=ca or region.ca,
        state_dir=tmp_path / "state",
    )
    return Enrolment(settings, SystemClock())


async def test_joins_once_and_keeps_the_key_to_itself(region: AgentRegion, tmp_path: Path) -> None:
    node = enrolment(region, tmp_path)
    assert node.region() == ""
    files = await node.identity()
    identity = identity_from_certificate(files.certificate.read_bytes())
    assert (identity.node, identity.region, node.region()) == ("n1", "eu-1", "eu-1")
    assert files.key.stat().st_mode & 0o777 == 0o600
    await enrolment(region, tmp_path).identity()
    assert region.joined == 1


async def test_a_lost_answer_is_asked_for_with_the_same_key(region: AgentRegion, tmp_path: Path) -> None:
    first = enrolment(region, tmp_path)
    key_pem, _ = first._joining_key()
    files = await enrolment(region, tmp_path).identity()
    assert files.key.read_bytes() == key_pem


async def test_another_root_gets_no_token_shown(region: AgentRegion, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "other", "other", SystemClock().now_ms())
    with pytest.raises(Invalid, match="not the root"):
        await enrolment(region, tmp_path, ca=other.folder / "ca.crt").identity()
    with pytest.raises(Invalid, match="not a join token"):
        await enrolment(region, tmp_path, token="atoll-join.nonsense").identity()
    assert region.joined == 0


async def test_a_refused_token_is_final(region: AgentRegion, tmp_path: Path) -> None:
    token = tokens.mint_join(region.token.ca_digest)
    with pytest.raises(NotAuthenticated):
        await enrolment(region, tmp_path, token=token.text()).identity()


async def test_renews_at_half_of_its_life(region: AgentRegion, tmp_path: Path) -> None:
    node = enrolment(region, tmp_path)
    files = await node.identity()
    before = files.certificate.read_bytes()
    assert not node.renewal_is_due()
    issued_s = (region.clock.now_ms() - 25 * 3_600_000) / 1000
    os.utime(files.certificate, (issued_s, issued_s))
    later = enrolment(region, tmp_path)
    assert later.renewal_is_due()
    await later.renew(region.server.programs_address)
    assert region.renewed == 1
    assert files.certificate.read_bytes() != before
    assert not later.renewal_is_due()
    assert len([p for p in (tmp_path / "state" / "identity").iterdir() if p.name.isdigit()]) == 1
