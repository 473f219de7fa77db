"""The client against a server that refuses, loses answers and breaks streams."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

import atoll
from atoll import errors
from atoll.api.v1 import global_pb2, objects_pb2
from atoll.sdk.client import AsyncClient
from atoll.sdk.progress import Progress, progress
from atoll.sdk.specs import Workload
from tests.support.fake_global import RING, FakeCluster

HELLO = Workload(name="hello", command=("sleep", "1"), replicas=2, cpu="100m", memory="64Mi")


class TestWrites:
    async def test_a_lost_answer_is_asked_for_again_and_done_once(
        self, client: AsyncClient, cluster: FakeCluster
    ) -> None:
        cluster.plane.lose_answers = 2
        applied = await client.workloads.apply(HELLO)
        assert applied.outcome == "created"  # the first answer, not "unchanged"
        assert cluster.plane.writes_seen == 3
        assert applied.workload.metadata.generation == 1

    async def test_no_answer_until_the_deadline_is_unknown_and_says_how_to_find_out(
        self, client: AsyncClient, cluster: FakeCluster
    ) -> None:
        cluster.plane.lose_answers = 1000
        with pytest.raises(errors.OutcomeUnknown) as caught:
            await client.workloads.apply(HELLO, request_id="deploy-42", deadline_s=0.5)
        assert caught.value.request_id == "deploy-42"
        assert "deploy-42" in caught.value.hint
        cluster.plane.lose_answers = 0
        assert (await client.workloads.apply(HELLO, request_id="deploy-42")).outcome == "created"

    async def test_a_refusal_before_acting_is_unavailable_not_unknown(
        self, client: AsyncClient, cluster: FakeCluster
    ) -> None:
        cluster.plane.refuse = 1000
        with pytest.raises(errors.Unavailable):
            await client.workloads.apply(HELLO, deadline_s=0.3)
        assert not cluster.plane.workloads

    async def test_no_server_is_unavailable_not_unknown(self, cluster: FakeCluster) -> None:
        await cluster.stop()
        async with AsyncClient(cluster.address, ca=cluster.ca, token=cluster.token, tenant="default") as client:
            with pytest.raises(errors.Unavailable):
                await client.workloads.apply(HELLO, deadline_s=0.5)

    async def test_no_such_host_is_unavailable_not_unknown(self, cluster: FakeCluster) -> None:
        async with AsyncClient("no.such.host.invalid:1", ca=cluster.ca, token=cluster.token, reach_s=0.5) as client:
            with pytest.raises(errors.Unavailable):
                await client.workloads.apply(HELLO)

    async def test_a_users_mistake_is_not_retried_and_comes_back_whole(
        self, client: AsyncClient, cluster: FakeCluster
    ) -> None:
        with pytest.raises(errors.Invalid) as caught:
            await client.workloads.apply(Workload(name="HELLO", command=("x",)))
        assert caught.value.mistakes[0].path == "metadata.name"
        assert cluster.plane.writes_seen == 1

    async def test_what_servers_own_is_not_sent(self, client: AsyncClient, cluster: FakeCluster) -> None:
        first = (await client.workloads.apply(HELLO)).workload
        first.metadata.uid = "forged"
        assert (await client.workloads.apply(first)).outcome == "unchanged"
        assert first.metadata.uid == "forged"  # the caller's document is not touched


class TestReads:
    async def test_are_asked_again_within_the_deadline(self, client: AsyncClient, cluster: FakeCluster) -> None:
        await client.workloads.apply(HELLO)
        cluster.plane.refuse = 2
        assert (await client.workloads.get("hello")).metadata.name == "hello"

    async def test_end_with_the_deadline(self, client: AsyncClient, cluster: FakeCluster) -> None:
        cluster.plane.refuse = 1000
        with pytest.raises(errors.Unavailable):
            await client.workloads.get("hello", deadline_s=0.2)

    async def test_pages_come_together(self, client: AsyncClient, cluster: FakeCluster) -> None:
        assert [view.slot.id.index for view in await client.slots.list(workload="hello")] == [0, 1, 2]

    async def test_logs(self, client: AsyncClient) -> None:
        assert [chunk async for chunk in client.slots.logs("hello")] == [b"one\n", b"two\n"]


class TestWatch:
    async def test_goes_on_across_broken_streams_and_each_change_comes_once(
        self, client: AsyncClient, cluster: FakeCluster
    ) -> None:
        await client.workloads.apply(HELLO)
        cluster.plane.break_watches_after = 2
        seen: list[int] = []
        async with asyncio.timeout(20), client.workloads.watch() as events:
            async for event in events:
                if event.type == global_pb2.EVENT_TYPE_EXISTS:
                    for replicas in range(3, 9):
                        await client.workloads.scale("hello", replicas)
                elif event.type == global_pb2.EVENT_TYPE_CHANGED:
                    seen.append(event.workload.spec.tasks[0].replicas)
                if len(seen) == 6:
                    break
        assert seen == [3, 4, 5, 6, 7, 8]

    async def test_a_revision_that_is_gone_is_told(self, client: AsyncClient) -> None:
        await client.workloads.apply(HELLO)
        for replicas in range(RING + 2):
            await client.workloads.scale("hello", replicas)
        with pytest.raises(errors.Expired):
            async with client.workloads.watch(since=1) as events:
                await anext(events)


class TestWait:
    async def test_until_serving(self, client: AsyncClient) -> None:
        steps: list[Progress] = []
        applied = await client.workloads.apply(HELLO)
        workload = await client.workloads.wait(applied, seen=steps.append)
        assert workload.status.counts.serving == 2
        assert steps[-1].steps() == ["admitted", "queued", "bound 2/2", "started", "ready 2/2", "serving 2/2"]

    async def test_not_placed_in_time_says_why_by_count(self, client: AsyncClient, cluster: FakeCluster) -> None:
        cluster.plane.placing = False
        applied = await client.workloads.apply(HELLO)
        with pytest.raises(errors.NotPlaced) as caught:
            await client.workloads.wait(applied, timeout=0.2)
        assert "2 of 2 replicas of hello are not placed" in caught.value.message
        assert "3 nodes without enough free memory; lacks 2Gi" in caught.value.message
        assert caught.value.hint == "atoll why hello"

    async def test_placed_while_waiting(self, client: AsyncClient, cluster: FakeCluster) -> None:
        cluster.plane.placing = False
        applied = await client.workloads.apply(HELLO)
        waiting = asyncio.create_task(client.workloads.wait(applied, timeout=20))
        cluster.plane.placing = True
        await client.workloads.scale("hello", 3)
        assert (await waiting).status.counts.serving == 3

    async def test_deleted_meanwhile(self, client: AsyncClient, cluster: FakeCluster) -> None:
        cluster.plane.placing = False
        applied = await client.workloads.apply(HELLO)
        gone = asyncio.create_task(client.workloads.wait(applied, until="deleted", timeout=20))
        serving = asyncio.create_task(client.workloads.wait(applied, timeout=20))
        await client.workloads.delete("hello")
        assert (await gone).metadata.name == "hello"
        with pytest.raises(errors.NotFound):
            await serving


class TestBuilder:
    def test_times_of_a_job(self) -> None:
        spec = Workload(name="x", job=True, deadline="2026-01-31T12:00:00Z", estimate="10m").to_proto().spec
        assert (spec.deadline_ms, spec.estimate_ms) == (1_769_860_800_000, 600_000)
        with pytest.raises(errors.Invalid) as caught:
            Workload(name="x", job=True, deadline="soon", estimate="10").to_proto()
        assert [mistake.path for mistake in caught.value.mistakes] == ["spec.deadline", "spec.estimate"]

    def test_every_mistake_at_once(self) -> None:
        spec = Workload(name="x", cpu="1x", memory="512", requires=("a b",), http="eighty", priority="urgent")
        with pytest.raises(errors.Invalid) as caught:
            spec.to_proto()
        paths = [mistake.path for mistake in caught.value.mistakes]
        assert paths == [
            "spec.tasks[0].resources.requests.cpu",
            "spec.tasks[0].resources.requests.memory",
            "spec.tasks[0].requires[0]",
            "http",
            "spec.priority",
        ]

    def test_http_publishes_and_probes(self) -> None:
        (task,) = Workload(name="x", http="8080/healthz").to_proto().spec.tasks
        assert task.ports[0].number == 8080
        assert (task.readiness.http.port, task.readiness.http.path) == (8080, "/healthz")

    def test_labels_are_sorted(self) -> None:
        message = Workload(name="x", labels={"b": "1", "a": "2"}).to_proto()
        assert [label.key for label in message.metadata.labels] == ["a", "b"]


def test_the_names_users_may_rely_on() -> None:
    assert atoll.__all__ == ["AsyncClient", "Client", "Workload", "__version__", "errors"]
    assert atoll.AsyncClient is AsyncClient
    assert atoll.Workload is Workload
    assert atoll.errors is errors
    with pytest.raises(AttributeError):
        _ = atoll.Klient


@pytest.mark.parametrize("imported", ["atoll", "regional.core.machine", "agent.core.machine", "global_cp.core.machine"])
def test_a_core_imports_without_grpc(imported: str) -> None:
    """Nor does it pull what a core may not reach."""
    program = f"import sys, {imported}; print([m for m in ('grpc', 'asyncio', 'cryptography') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == "[]"


def test_progress_of_an_older_generation_does_not_count() -> None:
    workload = HELLO.to_proto()
    workload.metadata.generation = 2
    workload.status.observed_generation = 1
    workload.status.conditions.add(type="Serving", status=objects_pb2.CONDITION_STATUS_TRUE)
    assert not progress(workload, 1).has("serving")
    workload.status.observed_generation = 2
    assert progress(workload, 1).has("serving")


def test_a_job_that_has_ended_is_done() -> None:
    workload = HELLO.to_proto()
    workload.status.conditions.add(type="Admitted", status=objects_pb2.CONDITION_STATUS_TRUE)
    workload.status.counts.succeeded = 1
    assert not progress(workload, 0).has("done")
    workload.status.counts.failed = 1
    workload.status.job.phase = objects_pb2.JOB_PHASE_FAILED
    workload.status.job.message = "task main failed"
    now = progress(workload, 0)
    assert now.has("done") and now.failure == "task main failed" and not now.has("ready")
    assert now.steps()[-2:] == ["done 1/2", "failed 1/2"]
    workload.status.job.phase = objects_pb2.JOB_PHASE_SUCCEEDED
    assert progress(workload, 0).has("ready"), "what has succeeded has come through all"
    assert not progress(workload, 1).has("done"), "an older generation says nothing"


@pytest.mark.parametrize("address", ["http://a:1", "a", ":1", "a:", "a:b", "a:0", "a:70000", "a:" + "1" * 10_000])
def test_an_address_that_is_none_is_told_at_once(cluster: FakeCluster, address: str) -> None:
    with pytest.raises(errors.Invalid, match="is not HOST:PORT"):
        AsyncClient(address, ca=cluster.ca, token=cluster.token)


@pytest.mark.parametrize("token", ["rubbish", "a\nb", "ключ", "atoll-user.0123456789abcdef.short"])
def test_a_token_that_is_none_is_told_at_once(cluster: FakeCluster, token: str) -> None:
    with pytest.raises(errors.NotAuthenticated, match="no user token"):
        AsyncClient(cluster.address, ca=cluster.ca, token=token)


def test_a_ca_file_without_a_certificate_is_told_at_once(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("rubbish")
    with pytest.raises(errors.Invalid, match="holds no certificate"):
        AsyncClient(cluster.address, ca=tmp_path / "ca.crt", token=cluster.token)


async def test_a_server_that_is_not_there_is_given_up_before_the_deadline(cluster: FakeCluster) -> None:
    await cluster.stop()
    async with AsyncClient(cluster.address, ca=cluster.ca, token=cluster.token, tenant="d", reach_s=0.3) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(errors.Unavailable):
            await client.workloads.get("hello", deadline_s=60)
        assert asyncio.get_running_loop().time() - began < 30
