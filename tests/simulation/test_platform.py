"""The founding platform of examples/ in simulated histories: its services and jobs over three regions, under faults."""

import random
from pathlib import Path

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.manifest import parse
from global_cp.core.defaults import complete_workload
from simulation.convergence import converged
from simulation.faults import draw
from simulation.history import converge
from simulation.users import Users
from simulation.world import REGIONS, Shape, World

FOLDER = Path(__file__).parents[2] / "examples" / "platform"
SERVICES, JOBS = ("risk-api", "billing-api", "search-index"), ("fraud-jobs", "analytics")
NAMES = {"ap-south": "eu-east"}  # its regions by the names that they have here
SERVICE = objects_pb2.WORKLOAD_TYPE_SERVICE


def tenants() -> list[objects_pb2.Tenant]:
    documents = [document.message for document in parse((FOLDER / "tenants.yaml").read_bytes())]
    return [message for message in documents if isinstance(message, objects_pb2.Tenant)]


def workload(name: str) -> objects_pb2.Workload:
    """With its defaults written out, as it will be stored: that nobody asked for anything else is checked."""
    (document,) = parse((FOLDER / f"{name}.yaml").read_bytes())
    message = document.message
    assert isinstance(message, objects_pb2.Workload)
    message.spec.regions[:] = [NAMES.get(region, region) for region in message.spec.regions]
    return complete_workload(message)


class Founders(Users):
    """They want the platform as it is written; services are scaled, jobs are deleted and come again."""

    def begin(self) -> None:
        for tenant in tenants():
            self.want(global_pb2.ApplyTenantRequest(tenant=tenant))

    def act(self) -> None:
        rng, promises = self.world.kernel.random, self.world.promises
        one = workload(rng.choice(SERVICES + JOBS))
        tenant, name = one.metadata.tenant, one.metadata.name
        if tenant not in promises.tenants:
            self.begin()  # whoever wanted it gave up
        elif (tenant, name) not in promises.workloads:
            self.want(global_pb2.ApplyWorkloadRequest(workload=one))
        elif one.spec.type == SERVICE:
            self.want(global_pb2.ScaleWorkloadRequest(tenant=tenant, name=name, replicas=rng.randint(1, 9)))
        elif rng.random() < 0.2:
            self.want(global_pb2.DeleteWorkloadRequest(tenant=tenant, name=name))


@pytest.mark.parametrize("seed", range(3))
def test_it_comes_through_faults(seed: int) -> None:
    world = World(seed, draw(random.Random(seed)), Shape(regions=3, nodes=4, jobs=True))
    world.users = Founders(world)
    for region in REGIONS:
        *general, memory = world.nodes_of[region]
        memory.labels = (objects_pb2.Label(key="pool", value="memory"),)
        for node in general:
            node.labels = (objects_pb2.Label(key="pool", value="general"),)
    world.begin()
    world.kernel.run(events=4_000)
    world.heal()
    missing = converge(world, converged, "after the last fault")
    assert not missing, missing
    world.users.begin()
    for name in SERVICES + JOBS:
        world.users.want(global_pb2.ApplyWorkloadRequest(workload=workload(name)))
    missing = converge(world, converged, "as it is written")
    assert not missing, missing
    assert {name for _, name in world.promises.workloads} == set(SERVICES + JOBS)
    assert world.checkers.bindings
