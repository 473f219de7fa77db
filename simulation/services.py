"""Services in the simulator: what users want of one.

Decides sizes, classes and spread; where on nodes it may run is drawn in rules.py.
"""

from random import Random
from typing import TYPE_CHECKING

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from simulation import recovery, rules
from simulation.operators import COUNTRIES, COUNTRY

if TYPE_CHECKING:
    from simulation.world import World

MOST_REPLICAS = 12
GANGS = 0.3  # of the workloads
PREFERRED, EVEN = objects_pb2.SPREAD_STRATEGY_PREFERRED, objects_pb2.SPREAD_STRATEGY_EVEN
FIXED = objects_pb2.SPREAD_STRATEGY_FIXED
PRIORITIES = (objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_DEFAULT, objects_pb2.PRIORITY_HIGH)
CPUS_MILLI, MEMORIES_MIB = (100, 500, 2000), (64, 512, 2048)
LARGE_CPUS_MILLI, LARGE_MEMORIES_MIB = (500, 1000, 2000), (512, 1024, 2048)


def draw(world: "World", tenant: str, name: str) -> objects_pb2.Workload:
    rng, crowded = world.kernel.random, world.shape.features.crowded
    request = Vector(
        cpu_milli=rng.choice(LARGE_CPUS_MILLI if crowded else CPUS_MILLI),
        memory_mib=rng.choice(LARGE_MEMORIES_MIB if crowded else MEMORIES_MIB),
    )
    task = objects_pb2.Task(name="main", replicas=rng.randint(1, MOST_REPLICAS), command=["run"])
    task.resources.requests.CopyFrom(request.to_proto())
    task.restart.local_limit = 2
    task.restart.backoff_ms = 200
    task.restart.backoff_max_ms = 2_000
    task.termination_grace_s = 1
    spec = objects_pb2.WorkloadSpec(type=objects_pb2.WORKLOAD_TYPE_SERVICE, tasks=[task])
    spec.priority = rng.choice(PRIORITIES)
    if world.shape.features.burst and rng.random() < 0.6:
        spec.priority = rng.choice([objects_pb2.PRIORITY_BEST_EFFORT, objects_pb2.PRIORITY_LOW])
    spec.run_class = rng.choice([objects_pb2.RUN_CLASS_KEEP, objects_pb2.RUN_CLASS_EXCLUSIVE])
    task = spec.tasks[0]
    task.gang = rng.random() < GANGS
    spread(rng, world.regions, spec)
    rules.draw(world, task)
    world.policies.name_one(task)
    recovery.draw(world, spec)
    return objects_pb2.Workload(metadata=objects_pb2.Metadata(tenant=tenant, name=name), spec=spec)


def spread(rng: Random, regions: tuple[str, ...], spec: objects_pb2.WorkloadSpec) -> None:
    """A policy of its own: by preference, evenly, or in fixed counts; some may run in one country only."""
    spread, task = spec.spread, spec.tasks[0]
    spec.regions[:] = rng.sample(regions, rng.randint(0, len(regions)))
    spread.Clear()
    spread.strategy = PREFERRED if task.gang else rng.choice([PREFERRED, PREFERRED, EVEN, FIXED])
    if spread.strategy == FIXED:
        for region in spec.regions or regions[:1]:
            spread.fixed.add(region=region, replicas=rng.randint(0, MOST_REPLICAS // 2))
        task.replicas = sum(count.replicas for count in spread.fixed)
    if rng.random() < 0.2:
        spread.residency.add(key=COUNTRY, operator=objects_pb2.SELECTOR_OPERATOR_IN, values=[rng.choice(COUNTRIES)])
