"""Brings a whole cluster up on this machine, as `dev` and `demo` do: programs, nodes with pools and zones, a tenant.

It speaks to the cluster as any admin would, over the API. What runs on it is not decided here.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import atoll
from atoll import errors
from atoll.api.v1 import objects_pb2
from atoll.cli.dev_cluster import TENANT, DevCluster, NodePlan
from atoll.sdk.client import AsyncClient
from atoll.sdk.contexts import Connection

Answer = TypeVar("Answer")
Holds = Callable[[], Awaitable[bool]]
REGIONS = ("eu-west", "us-east", "ap-south", "eu-north", "us-west", "sa-east", "af-south", "ap-east", "me-central")
QUOTA = objects_pb2.Resources(cpu_milli=1_000_000, memory_mib=4 << 20, disk_mib=100 << 20, gpu_milli=100_000)
GENERAL, MEMORY = "general", "memory"
ZONES = ("a", "b")
UP_S = 60.0
LOOK_AGAIN_S = 0.2
TOKEN_S = 600


def nodes_of(region: str, agents: int) -> list[NodePlan]:
    """Nodes of a playground: the last of three or more is made for memory-heavy work; zones take turns."""
    plans = []
    for number in range(1, agents + 1):
        pool = MEMORY if agents > 2 and number == agents else GENERAL
        zone = f"{region}-{ZONES[(number - 1) % len(ZONES)]}"
        size = {"cpu_milli": 2_000, "memory_mib": 4_096 if pool == MEMORY else 2_048}
        plans.append(
            NodePlan(name=f"{region}-n{number}", pool=pool, labels={"pool": pool, "zone": zone}, settings=size)
        )
    return plans


def platform() -> Path:
    """The folder of the founding platform's manifests. Raises Invalid where it was not installed."""
    home = Path(atoll.__file__).parent
    for folder in (home.parent / "examples" / "platform", home / "examples" / "platform"):
        if folder.is_dir():
            return folder
    raise errors.Invalid("the example manifests are not installed", hint="use a checkout of Atoll", code="E1013")


def start(
    cluster: DevCluster,
    agents: int,
    *,
    nodes: Callable[[str, int], list[NodePlan]] = nodes_of,
    driver: str = "process",
    seen: Callable[[str], None] = lambda text: None,
) -> str:
    """Brings everything up; `seen` hears each step when it is done. The version of etcd.

    Raises Unavailable with the end of a log when something does not come.
    """
    version = cluster.start_etcd()
    seen(f"etcd {version} serves")
    cluster.start_control_plane()
    connected(cluster.connection, _until_active(cluster.regions))
    cluster.start_standbys()
    seen(f"leaders are up: of the global plane and of {', '.join(cluster.regions)}")
    plans = {region: nodes(region, agents) for region in cluster.regions}
    join_tokens = connected(cluster.connection, _join_tokens(plans))
    started = [
        cluster.launch_agent(region, node, join_tokens[node.name], driver)
        for region, planned in plans.items()
        for node in planned
    ]
    for program in started:
        cluster.await_ready(program)
    connected(cluster.connection, nodes_ready(dict.fromkeys(cluster.regions, agents)))
    connected(cluster.connection, _create_tenant)
    if started:
        seen(f"{len(started)} nodes have joined with one-time tokens and are ready")
    return version


def connected(connection: Connection, action: Callable[[AsyncClient], Awaitable[Answer]]) -> Answer:
    """Runs one action over a connection of its own."""

    async def run() -> Answer:
        async with client_of(connection) as client:
            return await action(client)

    return asyncio.run(run())


def client_of(connection: Connection) -> AsyncClient:
    """On the loop that runs."""
    return AsyncClient(
        connection.address,
        ca=connection.ca,
        certificate=connection.certificate,
        key=connection.key,
        tenant=connection.tenant,
    )


async def until(holds: Holds, otherwise: str, within_s: float = UP_S, again_s: float = LOOK_AGAIN_S) -> None:
    """Raises Unavailable with `otherwise` when it does not hold in time."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        try:
            if await holds():
                return
        except errors.Unavailable:
            if loop.time() > deadline:
                raise
        if loop.time() > deadline:
            raise errors.Unavailable(otherwise, hint="look into the logs")
        await asyncio.sleep(again_s)


def nodes_ready(wanted: dict[str, int], within_s: float = UP_S) -> Callable[[AsyncClient], Awaitable[None]]:
    """Waits until each region has so many nodes that are ready, and the global plane knows: it is to judge by them."""

    async def wait(client: AsyncClient) -> None:
        for region, count in wanted.items():

            async def all_ready(region: str = region, count: int = count) -> bool:
                nodes = await client.nodes.list(region=region)
                return sum(node.state == objects_pb2.NODE_STATE_READY for node in nodes) >= count

            await until(all_ready, f"the nodes of {region} did not all become ready", within_s)

        async def all_known() -> bool:
            known = {each.metadata.name: each.summary.nodes_ready for each in await client.regions.list()}
            return all(known.get(region, 0) >= count for region, count in wanted.items())

        await until(all_known, "the global plane was not told of the nodes", within_s)

    return wait


def _until_active(names: Sequence[str]) -> Callable[[AsyncClient], Awaitable[None]]:
    async def wait(client: AsyncClient) -> None:
        async def all_active() -> bool:
            active = objects_pb2.REGION_STATE_ACTIVE
            return {r.metadata.name for r in await client.regions.list() if r.state == active} >= set(names)

        await until(all_active, "the regions did not register with the global plane")

    return wait


def _join_tokens(plans: dict[str, list[NodePlan]]) -> Callable[[AsyncClient], Awaitable[dict[str, str]]]:
    async def create(client: AsyncClient) -> dict[str, str]:
        made = {}
        for region, nodes in plans.items():
            for node in nodes:
                answer = await client.tokens.create_join(
                    region=region, pool=node.pool, node=node.name, ttl_s=TOKEN_S, labels=node.labels
                )
                made[node.name] = answer.token
        return made

    return create


async def _create_tenant(client: AsyncClient) -> None:
    tenant = objects_pb2.Tenant(metadata=objects_pb2.Metadata(name=TENANT))
    tenant.spec.quota.CopyFrom(QUOTA)
    await client.tenants.apply(tenant)
