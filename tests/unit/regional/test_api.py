"""The API over a leading region on the memory store: nodes and shares come as events, answers as a forwarded call's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.clock import SystemClock
from atoll.errors import Invalid, NotFound, NotPlaced, Unavailable
from atoll.store.memory import MemoryStore
from regional.core.events import NodeHello, ShareArrived, SliceArrived
from regional.loop import Region
from tests.support.pki import Pki
from tests.support.region import REGION, settings
from tests.support.wait import until

Answer = TypeVar("Answer", bound=Message)
NODES, REPLICAS = 5, 7
ROOM = objects_pb2.Resources(cpu_milli=4_000, memory_mib=4_096)


def share(tenant: str, workload: str, cpu_milli: int = 100) -> ShareArrived:
    task = objects_pb2.Task(name="main", replicas=REPLICAS, driver=objects_pb2.DRIVER_PROCESS, command=["x"])
    task.resources.requests.cpu_milli, task.resources.requests.memory_mib = cpu_milli, 10
    return ShareArrived(
        objects_pb2.Share(
            metadata=objects_pb2.Metadata(name=workload, tenant=tenant, generation=1, uid=workload),
            region=REGION,
            spec=objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_SERVICE, tasks=[task]),
            global_revision=1,
        )
    )


def slice_of(tenant: str) -> SliceArrived:
    plenty = objects_pb2.Resources(cpu_milli=10**6, memory_mib=10**6)
    account = objects_pb2.AccountSlice(account=objects_pb2.ACCOUNT_HARD, granted=plenty, target=plenty)
    granted = objects_pb2.Slice(tenant=tenant, region=REGION, seq=1, accounts=[account])
    return SliceArrived(regional_pb2.SliceStamp(slice=granted, global_revision=1))


async def ask(region: Region, method: str, request: Message, kind: type[Answer]) -> Answer:
    (answer,) = [part async for part in region.api.answer(method, request.SerializeToString())]
    return kind.FromString(answer)


async def slots(region: Region, **fields: Any) -> regional_pb2.ListSlotsResponse:
    request = regional_pb2.ListSlotsRequest(**fields)
    return await ask(region, "ListSlots", request, regional_pb2.ListSlotsResponse)


async def why(region: Region, **fields: Any) -> list[regional_pb2.SlotWhy]:
    request = regional_pb2.WhyRequest(**fields)
    return list((await ask(region, "Why", request, regional_pb2.WhyResponse)).slots)


async def events(region: Region, **fields: Any) -> list[objects_pb2.Event]:
    request = regional_pb2.ListEventsRequest(**fields)
    return list((await ask(region, "ListEvents", request, regional_pb2.ListEventsResponse)).events)


@pytest.fixture
async def region(pki: Pki, tmp_path: Path) -> AsyncIterator[Region]:
    """Five nodes; `acme/web` and `other/web` are bound, `acme/big` fits nowhere."""
    made = Region(settings(pki, tmp_path, page_items=10), MemoryStore(), SystemClock())
    task = asyncio.create_task(made.run("a:1", "a:2"))
    await until(lambda: made.machine.state)
    for i in range(NODES):
        made.core.post(NodeHello(i + 1, f"n{i}", "", (), agent_pb2.Hello(node=f"n{i}", incarnation=1, capacity=ROOM)))
    for event in (slice_of("acme"), slice_of("other"), share("acme", "web"), share("other", "web")):
        made.core.post(event)
    made.core.post(share("acme", "big", cpu_milli=5_000))
    state = made.machine.state
    assert state is not None
    await until(lambda: sum(account.bound.hard.cpu_milli for account in state.accounts.values()) == 2 * REPLICAS * 100)
    yield made
    task.cancel()


async def test_lists_come_in_pages_that_miss_and_repeat_nothing(region: Region) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = await slots(region, tenant="acme", page_size=4, page_token=token)
        assert len(page.slots) <= 4
        seen += [f"{view.slot.id.workload}/{view.slot.id.index}" for view in page.slots]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"{workload}/{i}" for workload in ("big", "web") for i in range(REPLICAS)]


async def test_a_page_is_bounded_whatever_is_asked(region: Region) -> None:
    for size in (0, -1, 10**9):
        page = await slots(region, page_size=size)
        assert len(page.slots) == 10
        assert page.next_page_token


async def test_nodes_come_in_pages(region: Region) -> None:
    request = regional_pb2.ListNodesRequest(page_size=3)
    first = await ask(region, "ListNodes", request, regional_pb2.ListNodesResponse)
    request.page_token = first.next_page_token
    second = await ask(region, "ListNodes", request, regional_pb2.ListNodesResponse)
    assert [n.metadata.name for n in (*first.nodes, *second.nodes)] == [f"n{i}" for i in range(NODES)]
    assert second.next_page_token == ""
    assert sum(n.used.cpu_milli for n in (*first.nodes, *second.nodes)) == 2 * REPLICAS * 100


async def test_a_forged_page_token_is_refused(region: Region) -> None:
    for token in ("x", "a/b/c/d", "a/b/c/-1", "////"):
        with pytest.raises(Invalid):
            await slots(region, page_token=token)


async def test_a_tenant_sees_only_its_own(region: Region) -> None:
    assert {view.slot.id.tenant for view in (await slots(region, tenant="other")).slots} == {"other"}
    with pytest.raises(NotFound):
        await why(region, tenant="other", workload="big")
    assert {event.tenant for event in await events(region, tenant="other")} == {"other"}
    assert {event.tenant for event in await events(region)} >= {"other", "acme"}


async def test_why_tells_the_last_decision_of_each_bound_slot(region: Region) -> None:
    answers = await why(region, tenant="acme", workload="web", index=-1)
    assert [answer.id.index for answer in answers] == list(range(REPLICAS))
    for answer in answers:
        assert answer.node == answer.decision.node
        assert answer.decision.slot.index == answer.id.index
        assert (answer.decision.result, answer.decision.nodes) == ("Bound", NODES)
        assert list(answer.decision.filters) == []


async def test_why_counts_what_keeps_a_waiting_slot_waiting(region: Region) -> None:
    (answer,) = await why(region, tenant="acme", workload="big", index=2, node="n1")
    assert answer.node == ""
    assert [(reason.code, reason.nodes) for reason in answer.reasons] == [("InsufficientCpu", NODES)]
    assert answer.on_node[0].code == "InsufficientCpu"


async def test_events_are_limited_and_go_on_from_a_number(region: Region) -> None:
    everything = await events(region)
    assert len(await events(region, limit=1)) == 1
    later = await events(region, after_seq=everything[0].seq, limit=1)
    assert later == [everything[1]]
    assert all(e.object.startswith("workload/acme/") for e in await events(region, object="workload/acme/"))


async def test_logs_of_what_does_not_exist_or_runs_nowhere_or_is_not_connected(region: Region) -> None:
    async def logs(**fields: Any) -> list[bytes]:
        request = regional_pb2.LogsRequest(tenant="acme", **fields)
        return [part async for part in region.api.answer("Logs", request.SerializeToString())]

    with pytest.raises(NotFound):
        await logs(workload="none")
    with pytest.raises(NotPlaced):
        await logs(workload="big")
    with pytest.raises(Unavailable, match="not connected"):
        await logs(workload="web")


async def test_other_regions_unknown_methods_and_broken_requests_are_refused(region: Region) -> None:
    elsewhere = regional_pb2.ListSlotsRequest(region="r2")
    with pytest.raises(NotFound, match="this is region r1"):
        await ask(region, "ListSlots", elsewhere, regional_pb2.ListSlotsResponse)
    for method, request in (("Session", b""), ("__init__", b""), ("Why", b"\xff\xff")):
        with pytest.raises(Invalid):
            [part async for part in region.api.answer(method, request)]


async def test_a_join_token_is_made_by_a_guarded_write(region: Region) -> None:
    request = regional_pb2.CreateJoinTokenRequest(region=REGION, pool="gpu", ttl_s=60)
    answer = await ask(region, "CreateJoinToken", request, regional_pb2.CreateJoinTokenResponse)
    assert answer.token.startswith("atoll-join.")
    assert (answer.record.pool, answer.record.hash) == ("gpu", b"")


async def test_the_queue_is_told_by_tenant_and_workload(region: Region) -> None:
    async def queue(**fields: Any) -> regional_pb2.ListQueueResponse:
        request = regional_pb2.ListQueueRequest(**fields)
        answer = await ask(region, "ListQueue", request, regional_pb2.ListQueueResponse)
        for line in (*answer.queues, *answer.items):
            line.ClearField("oldest_ms" if isinstance(line, regional_pb2.QueueView) else "waiting_ms")  # time goes on
        return answer

    answer = await queue()
    assert [(item.tenant, item.workload, item.replicas) for item in answer.items] == [("acme", "big", REPLICAS)]
    assert [reason.code for reason in answer.items[0].reasons] == ["InsufficientCpu"]
    assert answer == await queue(tenant="acme", workload="big") and not (await queue(tenant="other")).items
    with pytest.raises(NotFound):
        await queue(region="elsewhere")
