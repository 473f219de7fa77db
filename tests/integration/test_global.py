"""The global plane as a real process on real etcd, with region-like clients over the real protocol."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from atoll.api.v1 import global_pb2 as pb
from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model.resources import Vector
from atoll.rpc import error_of
from atoll.store.etcd import EtcdStore
from tests.support.audit import assert_clean
from tests.support.etcd import EtcdCluster
from tests.support.fake_region import FakeRegion
from tests.support.global_core import policy, tenant, workload
from tests.support.global_process import Client, GlobalProcess, until
from tests.support.pki import Pki

pytestmark = pytest.mark.etcd
UNIT = Vector(100, 64)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


@pytest.fixture
async def plane(tmp_path: Path, pki: Pki, etcd: EtcdCluster) -> AsyncIterator[GlobalProcess]:
    """A leading global plane with the tenant acme; the store's history is audited at the end."""
    async with GlobalProcess(tmp_path, pki, etcd.endpoints) as process:
        async with Client(process) as admin:
            await until(lambda: admin.api.ApplyTenant(_tenant_request()))
        yield process
        assert await process.stop() == 0, process.log()
    store = await EtcdStore.connect(etcd.endpoints)
    await assert_clean(store)
    await store.close()


def _tenant_request(quota: Vector = UNIT * 50, request_id: str = "tenant-1") -> pb.ApplyTenantRequest:
    return pb.ApplyTenantRequest(tenant=tenant("acme", quota), request_id=request_id)


def _apply(name: str, replicas: int, request_id: str) -> pb.ApplyWorkloadRequest:
    return pb.ApplyWorkloadRequest(workload=workload(name, replicas, UNIT), request_id=request_id)


async def _serving(client: Client, name: str, generation: int) -> bool:
    found = await client.api.GetWorkload(pb.GetWorkloadRequest(tenant="acme", name=name))
    holds = {c.type for c in found.status.conditions if c.status == objects_pb2.CONDITION_STATUS_TRUE}
    return found.status.observed_generation == generation and "Serving" in holds


async def test_a_workload_serves_scales_and_goes(plane: GlobalProcess, pki: Pki) -> None:
    async with Client(plane) as admin, FakeRegion(plane.programs, pki.region("north"), "north") as region:
        await until(lambda: region.welcomes)
        applied = await admin.api.ApplyWorkload(_apply("web", 3, "deploy-1"))
        assert applied.outcome == "created"
        await until(lambda: _serving(admin, "web", 1))
        await until(lambda: region.model.limit.get("acme") == UNIT * 3)
        await admin.api.ScaleWorkload(pb.ScaleWorkloadRequest(tenant="acme", name="web", replicas=1, request_id="s-1"))
        await until(lambda: _serving(admin, "web", 2))

        async def shrunk() -> bool:
            status = (await admin.api.GetTenant(pb.GetTenantRequest(name="acme"))).status
            return status.granted == UNIT.to_proto() and status.used == UNIT.to_proto()

        await until(shrunk)
        assert region.acked_heartbeats
        regions = (await admin.api.ListRegions(pb.ListRegionsRequest())).regions
        assert regions[0].epoch == 1 and regions[0].summary.nodes_ready == 1
        await admin.api.DeleteWorkload(pb.DeleteWorkloadRequest(tenant="acme", name="web", request_id="d-1"))

        async def gone() -> bool:
            return not (await admin.api.ListWorkloads(pb.ListWorkloadsRequest())).workloads

        await until(gone)


async def test_kill_in_the_middle_loses_nothing_and_answers_the_same(plane: GlobalProcess, pki: Pki) -> None:
    async with Client(plane) as admin, FakeRegion(plane.programs, pki.region("north"), "north") as region:
        await until(lambda: region.welcomes)
        answers: dict[int, pb.ApplyWorkloadResponse] = {}

        async def apply_one(index: int) -> None:
            """As a client does: the same request id until there is an answer."""

            async def ask() -> bool:
                with contextlib.suppress(_Retry):
                    answers[index] = await _asked(admin, _apply(f"w{index}", 1, f"deploy-{index}"))
                return index in answers

            await until(ask)

        users = [asyncio.create_task(apply_one(index)) for index in range(40)]
        await until(lambda: len(answers) >= 5)
        await plane.kill()
        await plane.start()
        await asyncio.gather(*users)
        for index, answer in answers.items():
            again = await admin.api.ApplyWorkload(_apply(f"w{index}", 1, f"deploy-{index}"))
            assert again == answer and again.workload.metadata.generation == 1
        for index in range(40):
            await until(lambda index=index: _serving(admin, f"w{index}", 1))  # type: ignore[misc]
        assert len(region.welcomes) >= 2
        assert region.welcomes[-1].term > region.welcomes[0].term


class _Retry(Exception):
    """The call has no answer yet."""


async def _asked(client: Client, request: pb.ApplyWorkloadRequest) -> pb.ApplyWorkloadResponse:
    try:
        answer: pb.ApplyWorkloadResponse = await client.api.ApplyWorkload(request)
        return answer
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise _Retry from error
        raise


async def test_a_standby_tells_who_leads_and_takes_over(
    plane: GlobalProcess, pki: Pki, tmp_path: Path, etcd: EtcdCluster
) -> None:
    async with (
        GlobalProcess(tmp_path, pki, etcd.endpoints, "g2") as second,
        Client(plane) as admin,
        Client(second) as other,
    ):
        await admin.api.ApplyWorkload(_apply("web", 1, "deploy-1"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await other.api.ListWorkloads(pb.ListWorkloadsRequest())
        assert plane.programs in (refused.value.details() or "")
        await plane.kill()

        async def leads() -> bool:
            found = await other.api.ListWorkloads(pb.ListWorkloadsRequest())
            return [w.metadata.name for w in found.workloads] == ["web"]

        await until(leads)
        assert (await other.api.ApplyWorkload(_apply("web", 1, "deploy-1"))).outcome == "created"
        assert await second.stop() == 0
        await plane.start()


async def test_a_paused_leader_writes_nothing_after_its_successor(
    plane: GlobalProcess, pki: Pki, tmp_path: Path, etcd: EtcdCluster
) -> None:
    async with (
        GlobalProcess(tmp_path, pki, etcd.endpoints, "g2") as second,
        Client(plane) as admin,
        Client(second) as other,
    ):
        plane.signal(signal.SIGSTOP)
        late = asyncio.ensure_future(_asked(admin, _apply("late", 1, "late-1")))
        await until(lambda: other.api.ApplyWorkload(_apply("web", 1, "deploy-1")))
        plane.signal(signal.SIGCONT)
        with pytest.raises(_Retry):  # refused by a standby, or unknown; never a false yes
            await late
        found = (await other.api.ListWorkloads(pb.ListWorkloadsRequest())).workloads
        assert [w.metadata.name for w in found] == ["web"]
        assert (await other.api.ApplyWorkload(_apply("late", 1, "late-1"))).outcome == "created"


async def test_watch_resumes_by_revision_and_expires(plane: GlobalProcess) -> None:
    async with Client(plane) as admin:
        await admin.api.ApplyWorkload(_apply("a", 0, "a-1"))
        opening = admin.api.WatchWorkloads(pb.WatchWorkloadsRequest())
        first = await opening.read()
        assert first.type == pb.EVENT_TYPE_EXISTS and first.workload.metadata.name == "a"
        opening.cancel()
        second = await admin.api.ApplyWorkload(_apply("b", 0, "b-1"))
        resumed = admin.api.WatchWorkloads(pb.WatchWorkloadsRequest(since_revision=first.revision))
        while (event := await resumed.read()).workload.metadata.name != "b":
            assert event.revision > first.revision
        assert event.revision == second.revision
        resumed.cancel()
        with pytest.raises(grpc.aio.AioRpcError) as expired:
            await admin.api.WatchWorkloads(pb.WatchWorkloadsRequest(since_revision=1)).read()
        assert error_of(expired.value).code == "E5011"


async def test_users_see_their_tenant_only(plane: GlobalProcess, pki: Pki) -> None:
    async with Client(plane) as admin, FakeRegion(plane.programs, pki.region("north"), "north") as region:
        await until(lambda: region.welcomes)
        await admin.api.ApplyTenant(pb.ApplyTenantRequest(tenant=tenant("other", UNIT), request_id="t-2"))
        await admin.api.ApplyWorkload(_apply("web", 1, "deploy-1"))
        await admin.api.ApplyPolicy(pb.ApplyPolicyRequest(policy=policy(mine={"warm": 1}), request_id="p-1"))
        (event,) = (await admin.api.ListGlobalEvents(pb.ListGlobalEventsRequest())).events
        assert (event.type, event.object) == ("PolicyCreated", "policy/1") and event.message.startswith("weights, by ")
        created = await admin.api.CreateUserToken(
            pb.CreateUserTokenRequest(name="ann", role=objects_pb2.ROLE_USER, tenant="other", request_id="tok-1")
        )
        await until(lambda: [t.name for t in region.tokens.tokens] == ["ann"])
        async with Client(plane, created.token) as ann:
            who = await ann.api.WhoAmI(pb.WhoAmIRequest())
            assert (who.name, who.tenant, who.cluster) == ("ann", "other", "test")
            assert not (await ann.api.ListWorkloads(pb.ListWorkloadsRequest())).workloads
            assert not (await ann.api.ListGlobalEvents(pb.ListGlobalEventsRequest())).events
            for call in (
                ann.api.GetWorkload(pb.GetWorkloadRequest(tenant="acme", name="web")),
                ann.api.ApplyWorkload(_apply("web", 2, "x-1")),
                ann.api.ApplyTenant(_tenant_request(request_id="x-2")),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.aio.AioRpcError) as again:
            await admin.api.CreateUserToken(
                pb.CreateUserTokenRequest(name="ann", role=objects_pb2.ROLE_USER, tenant="other", request_id="tok-1")
            )
        assert again.value.code() is grpc.StatusCode.ABORTED
        (listed,) = (await admin.api.ListUserTokens(pb.ListUserTokensRequest())).tokens
        assert (listed.name, listed.hash) == ("ann", b"")
        revoke = pb.RevokeUserTokenRequest(id=listed.id, request_id="tok-2")
        assert (await admin.api.RevokeUserToken(revoke)).record.name == "ann"
        assert (await admin.api.RevokeUserToken(revoke)).record.name == "ann"  # asked again: the same answer
        await until(lambda: not region.tokens.tokens)
        async with Client(plane, created.token) as ann:
            with pytest.raises(grpc.aio.AioRpcError) as nobody:
                await ann.api.WhoAmI(pb.WhoAmIRequest())
            assert nobody.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await admin.api.RevokeUserToken(pb.RevokeUserTokenRequest(id=listed.id, request_id="tok-3"))
        assert gone.value.code() is grpc.StatusCode.NOT_FOUND


async def test_calls_for_a_region_pass_through(plane: GlobalProcess, pki: Pki) -> None:
    async with Client(plane) as admin:
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await admin.regional.ListNodes(regional_pb2.ListNodesRequest(region="nowhere"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        async with FakeRegion(plane.programs, pki.region("north"), "north") as region:
            await until(lambda: region.welcomes)
            await admin.api.ApplyWorkload(_apply("web", 1, "deploy-1"))
            await until(lambda: _serving(admin, "web", 1))
            logs = admin.regional.Logs(regional_pb2.LogsRequest(tenant="acme", workload="web"))
            assert [chunk.data async for chunk in logs] == [b"a", b"b", b"c"]
            with pytest.raises(grpc.aio.AioRpcError) as missing:
                await admin.regional.Why(regional_pb2.WhyRequest(tenant="acme", workload="web"))
            assert missing.value.code() is grpc.StatusCode.NOT_FOUND
            echoed = await admin.regional.CreateJoinToken(regional_pb2.CreateJoinTokenRequest())
            assert echoed.token == "north"  # the request came with the only region filled in

        async def away() -> bool:
            try:
                await admin.regional.ListNodes(regional_pb2.ListNodesRequest(region="north"))
            except grpc.aio.AioRpcError as error:
                return error.code() is grpc.StatusCode.UNAVAILABLE
            return False

        await until(away)
        async with FakeRegion(plane.programs, pki.region("south"), "south") as south:
            await until(lambda: south.welcomes)
            listed = await admin.regional.ListJoinTokens(regional_pb2.ListJoinTokensRequest())
            assert [token.id for token in listed.tokens] == ["of-south"] and listed.unreachable == ["north"]
            revoke = regional_pb2.RevokeJoinTokenRequest(id="of-south", request_id="r-1")
            assert (await admin.regional.RevokeJoinToken(revoke)).record.region == "south"
            revoke.id = "of-north"
            with pytest.raises(grpc.aio.AioRpcError) as perhaps:
                await admin.regional.RevokeJoinToken(revoke)
            assert "north may have it" in error_of(perhaps.value).message


async def test_nodes_are_found_in_whatever_region_has_them(plane: GlobalProcess, pki: Pki) -> None:
    async with (
        Client(plane) as admin,
        FakeRegion(plane.programs, pki.region("north"), "north") as north,
        FakeRegion(plane.programs, pki.region("south"), "south") as south,
    ):
        await until(lambda: north.welcomes and south.welcomes)
        first = await admin.regional.ListNodes(regional_pb2.ListNodesRequest(name="n1"))
        assert first.next_page_token == "south/"  # a region a page
        of_all = await admin.regional.ListSlots(regional_pb2.ListSlotsRequest())
        assert of_all.next_page_token == "south/", "every tenant's, of every region"
        update = regional_pb2.UpdateNodeRequest(name="n1", request_id="u-1")
        with pytest.raises(grpc.aio.AioRpcError) as nobody:
            await admin.regional.UpdateNode(update)
        assert nobody.value.code() is grpc.StatusCode.NOT_FOUND
        north.nodes = ["n1"]
        assert (await admin.regional.UpdateNode(update)).node.region == "north"
        south.nodes = ["n1"]
        with pytest.raises(grpc.aio.AioRpcError) as unclear:
            await admin.regional.UpdateNode(update)
        assert "one of: north, south" in error_of(unclear.value).mistakes[0].message


async def test_a_region_may_not_speak_for_another(plane: GlobalProcess, pki: Pki) -> None:
    async with FakeRegion(plane.programs, pki.region("north"), "south") as liar:
        # A refusal may reach the client as a failed write; it dials again and is told the reason.
        await until(lambda: any("certificate is of region 'north'" in reason for reason in liar.refusals))
        assert not liar.welcomes


async def test_a_region_that_has_heard_a_newer_leader_is_not_welcomed_and_deposes_nobody(
    plane: GlobalProcess, pki: Pki
) -> None:
    async with FakeRegion(plane.programs, pki.region("north"), "north") as north, Client(plane) as admin:
        await until(lambda: north.welcomes)
        async with FakeRegion(plane.programs, pki.region("south"), "south") as south:
            south.heard.term = north.welcomes[0].term + 1_000_000
            await until(lambda: len([reason for reason in south.refusals if "has heard the leader" in reason]) > 2)
            assert not south.welcomes
        await admin.api.ApplyWorkload(_apply("web", 1, "deploy-1"))
        await until(lambda: _serving(admin, "web", 1))
        assert len(north.welcomes) == 1, "the leader has proved itself and goes on"
