"""Who gets in and who does not: a real server on both ports, real TLS, every kind of caller that must be refused."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc, global_pb2, global_pb2_grpc, regional_pb2, regional_pb2_grpc
from atoll.api.v1.objects_pb2 import (
    ROLE_ADMIN,
    ROLE_OPERATOR,
    ROLE_REGION,
    ROLE_USER,
    Metadata,
    Role,
    Workload,
    WorkloadSpec,
)
from atoll.clock import SystemClock
from atoll.errors import Conflict, Invalid, Mistake, NotAllowed, NotAuthenticated, OutcomeUnknown, Unavailable
from atoll.identity import TlsFiles
from tests.support.pki import Pki
from tests.support.secured import CALL_S, World, get, refusal, renew


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, rpc.Limits(unary_s=2.0, calls_burst=50, calls_per_s=1.0))
    await world.server.start("127.0.0.1:0", "127.0.0.1:0")
    yield world
    await world.close()


# ---------------------------------------------------------------- who gets in


async def test_people_with_a_token(world: World) -> None:
    user = world.pki.user("ann", ROLE_USER, "blue")
    assert (await get(world.people(user))).metadata == Metadata(name="ann", tenant="blue")


async def test_programs_with_a_certificate(world: World) -> None:
    assert (await get(world.programs(world.pki.admin("root")))).metadata.name == "root"


async def test_a_node_of_this_region_is_known_by_its_certificate(world: World) -> None:
    node = world.pki.node("east", "n1", "gpu", [("trusted/zone", "a=b&c"), ("k", "")])
    assert await renew(world.programs(node)) == "east/n1/gpu/(('k', ''), ('trusted/zone', 'a=b&c'))"


async def test_a_session_streams_both_ways(world: World) -> None:
    stub = agent_pb2_grpc.AgentGatewayStub(world.programs(world.pki.node("east", "n1")))
    call = stub.Session(timeout=CALL_S)
    for seq in (1, 2):
        await call.write(agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat(seq=seq)))
        answer = await call.read()
        assert isinstance(answer, agent_pb2.RegionMessage)
        assert answer.ack.seq == seq


async def test_only_join_is_open_to_everybody(world: World) -> None:
    stub = agent_pb2_grpc.AgentGatewayStub(world.people())
    assert (await stub.Join(agent_pb2.JoinRequest(), timeout=CALL_S)).region == "joined"
    assert isinstance(await refusal(get(world.people())), NotAuthenticated)
    assert isinstance(await refusal(renew(world.people())), NotAuthenticated)


# ---------------------------------------------------------------- the transport


@pytest.mark.parametrize("port", ["people", "programs"])
async def test_plaintext_is_refused(world: World, port: str) -> None:
    channel = world.kept(grpc.aio.insecure_channel(getattr(world.server, f"{port}_address")))
    assert isinstance(await refusal(get(channel)), Unavailable)


async def test_a_server_of_another_ca_is_refused(world: World, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other")
    error = await refusal(get(world.people(world.pki.user("ann", ROLE_USER, "blue"), ca=other.ca)))
    assert isinstance(error, Unavailable)
    assert "CERTIFICATE_VERIFY_FAILED" in error.message


async def test_a_client_of_another_ca_is_refused(world: World, tmp_path: Path) -> None:
    stranger = Pki(tmp_path / "other").admin()  # the same cluster's name, the same role, another root
    assert isinstance(await refusal(get(world.programs(stranger))), Unavailable)


async def test_no_certificate_on_the_programs_port(world: World) -> None:
    admin_token = world.pki.user("root", ROLE_ADMIN)
    assert isinstance(await refusal(get(world.programs(None, admin_token))), Unavailable)


async def test_an_expired_certificate_is_refused(world: World) -> None:
    old = world.pki.node("east", "n1", now_ms=world.pki.now_ms - 25 * 3_600_000)
    assert isinstance(await refusal(renew(world.programs(old))), Unavailable)


async def test_a_server_with_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    await _refuses_server(
        tmp_path, Pki(tmp_path / "pki", now_ms=SystemClock().now_ms() - 91 * 86_400_000).region("east")
    )


async def test_a_server_under_another_hosts_name_is_refused(tmp_path: Path) -> None:
    await _refuses_server(tmp_path, Pki(tmp_path / "pki").region("east", hosts=["atoll.example"]))


async def test_a_node_cannot_pose_as_a_server(tmp_path: Path) -> None:
    await _refuses_server(tmp_path, Pki(tmp_path / "pki").node("east", "n1"))


async def test_an_issuer_cannot_make_a_server(tmp_path: Path) -> None:
    """Whoever steals a region's issuer key can name a host in a certificate: it is worth nothing."""
    pki = Pki(tmp_path / "pki")
    host = x509.DNSName("localhost")
    forged = pki.forge(pki.issuer("east"), "atoll://test/region/east/r1", ExtendedKeyUsageOID.SERVER_AUTH, [host])
    await _refuses_server(tmp_path, forged, "localhost")


async def _refuses_server(tmp_path: Path, tls: TlsFiles, host: str = "127.0.0.1") -> None:
    key, chain = tls.key.read_bytes(), tls.certificate.read_bytes()
    server = grpc.aio.server()
    port = server.add_secure_port(f"{host}:0", grpc.ssl_server_credentials([(key, chain)]))
    await server.start()
    channel = rpc.channel(f"{host}:{port}", ca=tls.ca, token="atoll-user.never-to-be-sent")
    error = await refusal(get(channel))
    await channel.close()
    await server.stop(0)
    assert isinstance(error, Unavailable)
    assert "CERTIFICATE_VERIFY_FAILED" in error.message or "Hostname Verification" in error.message, error


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize(("version", "accepted"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)])
async def test_tls_1_1_is_refused(world: World, version: ssl.TLSVersion, accepted: bool) -> None:
    context = ssl.create_default_context(cafile=str(world.pki.ca))
    context.set_ciphers("ALL:@SECLEVEL=0")  # so that it is the server who refuses
    context.set_alpn_protocols(["h2"])
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = version
    host, _, port = world.server.people_address.rpartition(":")
    if accepted:
        _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        writer.close()
    else:
        with pytest.raises((ssl.SSLError, ConnectionResetError)) as caught:
            await asyncio.open_connection(host, int(port), ssl=context)
        assert "NO_PROTOCOLS" not in str(caught.value), "this client could not even ask"


# ---------------------------------------------------------------- identity and authority


async def test_a_node_may_not_call_what_users_call(world: World) -> None:
    assert isinstance(await refusal(get(world.programs(world.pki.node("east", "n1")))), NotAllowed)


async def test_a_node_with_an_admins_token_is_still_a_node(world: World) -> None:
    channel = world.programs(world.pki.node("east", "n1"), world.pki.user("root", ROLE_ADMIN))
    assert isinstance(await refusal(get(channel)), NotAllowed)


async def test_a_node_of_another_region_is_refused(world: World) -> None:
    error = await refusal(renew(world.programs(world.pki.node("west", "n1"))))
    assert isinstance(error, NotAllowed)


@pytest.mark.parametrize(
    "uri", ["atoll://test/node/east/n1", "atoll://test/admin/root", "atoll://test/region/west/r1", "atoll://test/x"]
)
async def test_an_issuer_proves_nothing_but_its_own_nodes(world: World, uri: str) -> None:
    forged = world.pki.forge(world.pki.issuer("west"), uri, ExtendedKeyUsageOID.CLIENT_AUTH)
    assert isinstance(await refusal(renew(world.programs(forged))), NotAuthenticated)
    assert isinstance(await refusal(get(world.programs(forged))), NotAuthenticated)


async def test_a_node_cannot_sign(world: World) -> None:
    """A node that uses its own key as an authority: the chain does not hold."""
    node = world.pki.node("east", "n1")
    forged = world.pki.forge(node, "atoll://test/admin/root", ExtendedKeyUsageOID.CLIENT_AUTH)
    assert isinstance(await refusal(get(world.programs(forged))), Unavailable)


async def test_the_tenant_of_another(world: World) -> None:
    channel = world.people(world.pki.user("ann", ROLE_USER, "blue"))
    assert isinstance(await refusal(get(channel, tenant="red")), NotAllowed)
    stub = global_pb2_grpc.GlobalStub(channel)
    request = global_pb2.ApplyWorkloadRequest(workload=Workload(metadata=Metadata(name="w", tenant="red")))
    assert isinstance(await refusal(stub.ApplyWorkload(request, timeout=CALL_S)), NotAllowed)


async def test_no_tenant_named_means_the_callers(world: World) -> None:
    assert (await get(world.people(world.pki.user("ann", ROLE_USER, "blue")), tenant="")).metadata.tenant == "blue"
    assert (await get(world.people(world.pki.user("op", ROLE_OPERATOR)), tenant="")).metadata.tenant == ""


async def test_wrong_tokens(world: World) -> None:
    good = world.pki.user("ann", ROLE_USER, "blue")
    wrong_secret = good[:-1] + ("A" if good[-1] != "A" else "B")
    unknown_id = good.replace(good.split(".")[1], "0" * 16)
    for token in (wrong_secret, unknown_id, good + "x", "x", "atoll-user..", good.replace("user", "join")):
        assert isinstance(await refusal(get(world.people(token))), NotAuthenticated), token


async def test_a_token_cannot_pose_as_a_region(world: World) -> None:
    """A region is known by its certificate only, whatever the record of a token says."""

    async def region_of(channel: grpc.aio.Channel) -> str:
        answer = await regional_pb2_grpc.UplinkStub(channel).Session(timeout=CALL_S).read()
        assert isinstance(answer, regional_pb2.DownlinkMessage)
        return answer.not_leader.address

    assert await region_of(world.programs(world.pki.region("west"))) == "west"
    assert isinstance(await refusal(region_of(world.people(world.pki.user("x", ROLE_REGION)))), NotAllowed)


@pytest.mark.parametrize(("role", "tenant"), [(ROLE_USER, ""), (ROLE_ADMIN, "blue")])
async def test_a_token_whose_role_and_tenant_do_not_fit(world: World, role: Role.ValueType, tenant: str) -> None:
    assert isinstance(await refusal(get(world.people(world.pki.user("x", role, tenant)))), NotAllowed)


async def test_a_token_without_an_expiry_has_expired(world: World) -> None:
    channel = world.people(world.pki.user("ann", ROLE_USER, "blue", expires_ms=0))
    assert isinstance(await refusal(get(channel)), NotAuthenticated)


async def test_an_expired_token(world: World) -> None:
    token = world.pki.user("ann", ROLE_USER, "blue", expires_ms=world.clock.now_ms() + 60_000)
    await get(world.people(token))
    world.clock.ahead_ms = 60_001
    assert isinstance(await refusal(get(world.people(token))), NotAuthenticated)


async def test_a_kept_connection_does_not_outlive_its_certificate(world: World) -> None:
    channel = world.programs(world.pki.node("east", "n1"))
    await renew(channel)
    world.clock.ahead_ms = 25 * 3_600_000
    assert isinstance(await refusal(renew(channel)), NotAuthenticated)


async def test_a_stream_ends_with_its_credential_and_is_cleaned_up(world: World) -> None:
    token = world.pki.user("ann", ROLE_USER, "blue", expires_ms=world.clock.now_ms() + 500)
    stub = global_pb2_grpc.GlobalStub(world.people(token))
    call = stub.WatchWorkloads(global_pb2.WatchWorkloadsRequest(tenant="blue"), timeout=CALL_S)
    first = await call.read()
    assert isinstance(first, global_pb2.WorkloadEvent)
    assert first.revision == 7
    assert isinstance(await refusal(call.read()), NotAuthenticated)
    await asyncio.wait_for(world.edge.watch_closed.wait(), CALL_S)


async def test_a_stream_ends_when_its_token_is_revoked(world: World) -> None:
    revoked, kept = (world.pki.user(name, ROLE_USER, "blue") for name in ("ann", "bob"))
    calls = [
        global_pb2_grpc.GlobalStub(world.people(token)).WatchWorkloads(global_pb2.WatchWorkloadsRequest(tenant="blue"))
        for token in (revoked, kept)
    ]
    for call in calls:
        assert isinstance(await call.read(), global_pb2.WorkloadEvent)
    world.pki.revoke_user(revoked)
    error = await refusal(asyncio.wait_for(calls[0].read(), CALL_S))
    assert isinstance(error, NotAuthenticated)
    assert "not known here" in error.message
    await asyncio.wait_for(world.edge.watch_closed.wait(), CALL_S)
    assert not calls[1].done()
    calls[1].cancel()


async def test_a_cancelled_stream_is_cleaned_up(world: World) -> None:
    stub = global_pb2_grpc.GlobalStub(world.people(world.pki.user("ann", ROLE_USER, "blue")))
    call = stub.WatchWorkloads(global_pb2.WatchWorkloadsRequest(tenant="blue"))
    await call.read()
    call.cancel()
    await asyncio.wait_for(world.edge.watch_closed.wait(), CALL_S)


# ---------------------------------------------------------------- limits and errors


async def test_an_oversize_message_is_refused_and_the_server_lives_on(world: World) -> None:
    channel = world.people(world.pki.user("ann", ROLE_USER, "blue"))
    stub = global_pb2_grpc.GlobalStub(channel)
    tasks = WorkloadSpec()
    tasks.tasks.add(name="x" * (1 << 20))
    request = global_pb2.ApplyWorkloadRequest(workload=Workload(metadata=Metadata(tenant="blue"), spec=tasks))
    assert isinstance(await refusal(stub.ApplyWorkload(request, timeout=CALL_S)), Invalid)
    await get(channel)


async def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    world = World(tmp_path, rpc.Limits(handshake_ms=200))
    await world.server.start("127.0.0.1:0", "127.0.0.1:0")
    for address in (world.server.people_address, world.server.programs_address):
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await asyncio.wait_for(reader.read(), CALL_S) == b""
        writer.close()
    await world.close()


async def test_a_caller_that_asks_too_often_is_told_when_to_come_back(world: World) -> None:
    channel = world.people(world.pki.user("ann", ROLE_USER, "blue"))
    other = world.people(world.pki.user("bob", ROLE_USER, "blue"))
    answers = await asyncio.gather(*(get(channel) for _ in range(60)), return_exceptions=True)
    refused = [rpc.error_of(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert 5 <= len(refused) <= 10
    assert {error.code for error in refused} == {"E5008"}
    assert all(0 < error.retry_after_ms <= 1_000 for error in refused)
    await get(other)


async def test_errors_arrive_as_they_were_raised(world: World) -> None:
    channel = world.people(world.pki.user("ann", ROLE_USER, "blue"))
    error = await refusal(get(channel, "conflict"))
    assert isinstance(error, Conflict)
    assert (error.code, error.message, error.hint) == ("E3001", "changed meanwhile", "read again")
    assert error.mistakes == (Mistake("spec", "is older"),)


async def test_a_defect_tells_an_id_and_nothing_else(world: World) -> None:
    channel = world.people(world.pki.user("ann", ROLE_USER, "blue"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await get(channel, "defect")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in repr(caught.value)
    assert len(rpc.error_of(caught.value).request_id) == 16
    await get(channel)


async def test_a_call_without_an_answer_ends(world: World) -> None:
    channel = world.people(world.pki.user("ann", ROLE_USER, "blue"))
    assert isinstance(await refusal(get(channel, "slow")), OutcomeUnknown)


async def test_a_method_nobody_serves(world: World) -> None:
    stub = global_pb2_grpc.GlobalStub(world.people(world.pki.user("ann", ROLE_USER, "blue")))
    error = await refusal(stub.WhoAmI(global_pb2.WhoAmIRequest(), timeout=CALL_S))
    assert isinstance(error, Invalid)


async def test_a_taken_port_is_an_error(world: World) -> None:
    second = rpc.Server(world.pki.region("east"), world.pki.find_user, world.clock)
    with pytest.raises(Unavailable, match="cannot listen"):
        await second.start(world.server.people_address, "127.0.0.1:0")


async def test_a_server_needs_a_certificate_of_its_cluster(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    issuer = pki.issuer("east")
    with pytest.raises(NotAuthenticated):
        rpc.Server(issuer, pki.find_user, SystemClock())
