"""One region as real processes on real etcd, with TLS; around it made-up agents and a made-up global plane."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from atoll import rpc
from atoll.api.v1 import objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.api.v1.objects_pb2 import ROLE_VIEWER, SlotState
from atoll.errors import NotAllowed, NotAuthenticated
from atoll.model.resources import Vector
from atoll.model.slots import SlotName, attempt_id, slot_name
from atoll.store import keys
from atoll.store.etcd import EtcdStore
from atoll.store.store import list_all
from tests.support.audit import assert_clean
from tests.support.crews import alive
from tests.support.etcd import EtcdCluster
from tests.support.fake_agent import FakeAgent, join
from tests.support.fake_uplink import FakeUplink
from tests.support.freeze import freeze
from tests.support.pki import Pki
from tests.support.processes import Program
from tests.support.region import REGION, settings, to_toml
from tests.support.wait import until

pytestmark = pytest.mark.etcd

PLENTY = Vector(1_000_000, 1_000_000, 0, 0)
BIG = objects_pb2.Resources(cpu_milli=200_000, memory_mib=400_000, disk_mib=100_000)


def share(
    workload: str, replicas: int, *, tenant: str = "acme", removed: bool = False, cpu_milli: int = 100
) -> objects_pb2.Share:
    requests = objects_pb2.Resources(cpu_milli=cpu_milli, memory_mib=64)
    task = objects_pb2.Task(
        name="main",
        replicas=replicas,
        driver=objects_pb2.DRIVER_PROCESS,
        command=["sleep"],
        resources=objects_pb2.ResourceRequirements(requests=requests),
    )
    return objects_pb2.Share(
        metadata=objects_pb2.Metadata(
            name=workload, tenant=tenant, generation=2 if removed else 1, uid=f"{workload}-1"
        ),
        region=REGION,
        spec=objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_SERVICE, tasks=[task]),
        removed=removed,
    )


class World:
    """A region's surroundings, and its processes by name."""

    def __init__(self, folder: Path, etcd: EtcdCluster, store: EtcdStore) -> None:
        self.folder = folder
        self.etcd = etcd
        self.store = store
        self.pki = Pki(folder / "pki")
        self.uplink = FakeUplink(self.pki)
        self.programs: dict[str, Program] = {}
        self.agents: list[FakeAgent] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, name: str, **changes: Any) -> Program:
        program = self.programs.get(name)
        if program is None:
            made = settings(
                self.pki,
                self.folder / f"state-{name}",
                name=name,
                etcd=self.etcd.endpoints,
                global_plane=(self.uplink.server.programs_address,),
                election_ttl_s=2,
                heartbeat_ms=1_000,
                **changes,
            )
            config = self.folder / f"region-{name}.toml"
            config.write_text(to_toml(made))
            program = self.programs[name] = Program("regional", config)
        await program.start()
        return program

    @asynccontextmanager
    async def api(self, token: str = "") -> AsyncIterator[Any]:
        """The region's API as the admin, or as the user of `token`."""
        program = next(iter(self.programs.values()))
        address = program.people if token else program.programs
        client = None if token else self.pki.admin()
        async with rpc.channel(address, ca=self.pki.ca, client=client, token=token) as channel:
            yield regional_pb2_grpc.RegionalStub(channel)

    async def join_token(self, **fields: Any) -> str:
        async with self.api() as api:
            response = await api.CreateJoinToken(regional_pb2.CreateJoinTokenRequest(region=REGION, **fields))
        return str(response.token)

    async def add_agent(self, node: str) -> FakeAgent:
        """A node that joins with a token of its own; from then on it dials every process of the region in turn."""
        people = next(iter(self.programs.values())).people
        tls = await join(people, self.pki.ca, await self.join_token(node=node), node, self.folder / node)
        turns = itertools.count()

        def next_address() -> str:
            programs = list(self.programs.values())
            return programs[next(turns) % len(programs)].programs

        agent = FakeAgent(node, tls, next_address, capacity=BIG)
        self.agents.append(agent)
        self._tasks.append(asyncio.create_task(agent.run()))
        return agent

    async def leading(self) -> None:
        """Waits until a process of the region answers as its leader."""
        async with asyncio.timeout(30):
            while True:
                try:
                    async with self.api() as api:
                        await api.ListEvents(regional_pb2.ListEventsRequest(), timeout=2)
                        return
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.05)

    def running(self) -> dict[SlotName, list[tuple[str, Any]]]:
        """Where each slot runs: node and attempt."""
        found: dict[SlotName, list[tuple[str, Any]]] = {}
        for agent in self.agents:
            for slot, status in agent.running.items():
                found.setdefault(slot, []).append((agent.name, attempt_id(status.attempt)))
        return found

    def ready(self) -> int:
        return sum(report.counts.ready for report in self.uplink.reports.values())

    async def assert_bound_as_running(self, count: int) -> None:
        """I1, I11: `count` slots are bound, each runs on its node with its attempt, nothing else runs, and no agent
        was ever told what contradicts an earlier word."""
        assert [v for agent in self.agents for v in agent.violations] == []
        records = await list_all(self.store, keys.region_root(REGION) + b"slot/")
        slots = [objects_pb2.Slot.FromString(item.value) for item in records.items]
        bound = {
            slot_name(s.id): [(s.node, attempt_id(s.attempt))] for s in slots if s.state == SlotState.SLOT_STATE_BOUND
        }
        assert len(bound) == count
        assert self.running() == bound
        started = [attempt for agent in self.agents for _, attempt in agent.started]
        assert len(started) == len(set(started)), "an attempt was started twice"

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for program in self.programs.values():
            await program.kill()
        await self.uplink.server.stop(0)


@pytest.fixture
async def world(tmp_path: Path, etcd: EtcdCluster, etcd_store: EtcdStore) -> AsyncIterator[World]:
    made = World(tmp_path, etcd, etcd_store)
    await made.uplink.server.start("127.0.0.1:0", "127.0.0.1:0")
    yield made
    await made.close()


async def test_from_a_join_token_to_running_work_and_back(world: World) -> None:
    program = await world.start("a")
    await world.leading()
    for i in range(3):
        await world.add_agent(f"n{i}")
    world.uplink.grant("acme", REGION, PLENTY)
    world.uplink.share(share("web", 6))
    await until(lambda: world.ready() == 6, 30)
    await world.assert_bound_as_running(6)
    async with world.api() as api:
        nodes = await api.ListNodes(regional_pb2.ListNodesRequest(page_size=2))
        rest = await api.ListNodes(regional_pb2.ListNodesRequest(page_token=nodes.next_page_token))
        assert [n.metadata.name for n in (*nodes.nodes, *rest.nodes)] == ["n0", "n1", "n2"]
        assert not rest.next_page_token
        why = await api.Why(regional_pb2.WhyRequest(tenant="acme", workload="web", index=0))
        assert why.slots[0].node == why.slots[0].decision.node != ""
        logs = [c.data async for c in api.Logs(regional_pb2.LogsRequest(tenant="acme", workload="web", index=1))]
        assert b"".join(logs) == b"hello from a fake\n"
        events = await api.ListEvents(regional_pb2.ListEventsRequest(tenant="acme"))
        assert events.events
    (answer,) = await world.uplink.ask("ListSlots", regional_pb2.ListSlotsRequest(tenant="acme"))
    assert len(regional_pb2.ListSlotsResponse.FromString(answer).slots) == 6
    world.uplink.share(share("web", 6, removed=True))
    await until(lambda: world.uplink.reports["acme", "web"].closed, 30)
    await world.assert_bound_as_running(0)
    assert await program.stop() == 0
    await assert_clean(world.store)


async def test_people_of_one_tenant_see_only_that_and_may_ask_while_the_global_plane_is_away(world: World) -> None:
    viewer, stranger = world.pki.user("v", ROLE_VIEWER, "acme"), world.pki.user("s", ROLE_VIEWER, "other")
    world.uplink.tokens.tokens.extend(world.pki._users.values())
    await world.start("a")
    await world.leading()
    await world.add_agent("n0")
    for tenant in ("acme", "other"):
        world.uplink.grant(tenant, REGION, PLENTY)
        world.uplink.share(share("web", 2, tenant=tenant))
    await until(lambda: world.ready() == 4, 30)
    await world.uplink.server.stop(0)
    await world.programs["a"].kill()
    await world.start("a")
    await world.leading()
    async with world.api(viewer) as api:
        slots = await api.ListSlots(regional_pb2.ListSlotsRequest())
        assert {view.slot.id.tenant for view in slots.slots} == {"acme"}
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.Why(regional_pb2.WhyRequest(tenant="other", workload="web"))
        assert isinstance(rpc.error_of(refused.value), NotAllowed)
    async with world.api(stranger) as api:
        assert {e.tenant for e in (await api.ListEvents(regional_pb2.ListEventsRequest())).events} <= {"other"}
    async with world.api("atoll-user." + "0" * 16 + "." + "A" * 43) as api:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await api.ListSlots(regional_pb2.ListSlotsRequest())
        assert isinstance(rpc.error_of(refused.value), NotAuthenticated)


async def test_killed_again_and_again_while_placing_nothing_is_lost_or_bound_twice(world: World) -> None:
    """Its scheduler workers are struck before, and end with it."""
    program = await world.start("a", workers=3, ahead_rows=1, worker_silence_ms=300, metrics="127.0.0.1:0")
    await world.leading()
    for i in range(4):
        await world.add_agent(f"n{i}")
    world.uplink.grant("acme", REGION, PLENTY)
    total, cut_short = 0, 0
    for round_, strike in enumerate((None, freeze, kill)):
        workers = await workers_of(program, 2)
        for i in range(20):
            world.uplink.share(share(f"web-{round_}-{i}", 25, cpu_milli=100 + i))
        before, total = total, total + 20 * 25
        await until(lambda: len(world.running()) > before, 30)  # noqa: B023 - awaited here
        if strike:
            strike(workers[0])
        await program.kill()
        cut_short += len(world.running()) < total
        await until(lambda: not any(map(alive, workers)))  # noqa: B023
        await world.start("a")
    assert cut_short, "no kill fell into a placement"
    await until(lambda: world.ready() == total, 60)
    await workers_of(program, 2)
    for i in range(20):
        world.uplink.share(share(f"last-{i}", 1, cpu_milli=200 + i))
    total += 20
    await until(lambda: world.ready() == total, 60)
    assert await metric(program, 'atoll_region_classes_ahead_total{by="worker"}')
    await world.assert_bound_as_running(total)
    assert len(world.uplink.hellos) >= 4
    await assert_clean(world.store)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def workers_of(program: Program, count: int) -> list[int]:
    """Their ids, once so many take part."""
    async with asyncio.timeout(30):
        while await metric(program, "atoll_region_workers") < count:  # noqa: ASYNC110 - it is asked over a socket
            await asyncio.sleep(0.05)
    return program.children()


async def metric(program: Program, name: str) -> float:
    reader, writer = await asyncio.open_connection(*program.metrics.split(":"))
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    _, _, found = text.partition(f"\n{name} ")
    return float(found.split()[0]) if found else 0.0


async def test_a_paused_leader_is_replaced_and_what_it_says_late_changes_nothing(world: World) -> None:
    paused = await world.start("a")
    await world.leading()
    for i in range(2):
        await world.add_agent(f"n{i}")
    world.uplink.grant("acme", REGION, PLENTY)
    world.uplink.share(share("one", 20))
    await until(lambda: world.ready() == 20, 30)
    await world.start("b")
    terms = {hello.term for hello in world.uplink.hellos}
    paused.pause()
    await until(lambda: {hello.term for hello in world.uplink.hellos} > terms, 30)
    world.uplink.share(share("two", 20))
    await until(lambda: len(world.running()) == 40, 60)
    paused.resume()
    await until(lambda: world.ready() == 40, 60)
    world.uplink.share(share("three", 20))
    await until(lambda: world.ready() == 60, 60)
    await world.assert_bound_as_running(60)
    await assert_clean(world.store)
