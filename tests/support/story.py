"""A story of one region, drawn from a seed, that finds several classes in a turn; told with any evaluator."""

import random

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.model import strategies
from atoll.model.resources import Vector
from regional.core.class_rows import Evaluator
from tests.support.regional_world import RegionalWorld, task

TENANTS = ("acme", "shop")


def story(seed: int, evaluator: Evaluator | None) -> RegionalWorld:
    """Nodes come and go and run full while workloads of many kinds come, grow and end."""
    draw = random.Random(seed)
    world = RegionalWorld(evaluator, ahead_rows=1)
    world.win()
    for tenant in TENANTS:
        world.grant(tenant, Vector(60_000, 120_000, 1_000_000, 20_000), seq=1)
    sessions = {}
    for number in range(16):
        labels = {"zone": f"z{number % 3}", "disk": draw.choice(("ssd", "hdd"))}
        gpus = ("T4", "A100")[: draw.randint(0, 2)]
        sessions[f"n{number}"] = world.join(f"n{number}", labels=labels, gpus=gpus)
    for step in range(8):
        world.hold = True  # so that a turn finds several classes
        for number in range(4):
            zone = [objects_pb2.Label(key="zone", value=f"z{draw.randrange(3)}")] if draw.random() < 0.3 else []
            asked = task(
                replicas=draw.randint(1, 12),
                cpu=draw.choice((100, 500, 1_500)),
                memory=draw.choice((128, 1_024)),
                gpu=draw.choice((0, 0, 500, 1_000)),
                strategy=draw.choice(strategies.STRATEGIES),
                node_selector=zone,
            )
            share = world.share(f"w{step}-{number}", asked, tenant=draw.choice(TENANTS), tell=False)
            if draw.random() < 0.3:
                weights = [
                    objects_pb2.ScoreWeight(score=s, weight=1) for s in sorted(draw.sample(strategies.SCORES, 3))
                ]
                share.policy_revision = 1
                share.strategies.add(name=asked.strategy, weights=weights)
            world.tell_share(share)
        world.release_held()
        slots = world.slots()
        for slot in draw.sample(slots, min(len(slots), 8)):
            world.close(sessions[slot.node], slot)
        world.change_node(
            f"n{draw.randrange(16)}", duty=draw.choice((regional_pb2.NODE_DUTY_CORDON, regional_pb2.NODE_DUTY_SERVE))
        )
        world.advance(500, beating=sessions.values())
    world.check()
    return world


def assert_same(one: RegionalWorld, other: RegionalWorld) -> None:
    """What is stored, and every decision, byte by byte."""
    assert one.store.range(b"", b"\xff").items == other.store.range(b"", b"\xff").items
    told = [[d.SerializeToString(deterministic=True) for d in world.decisions()] for world in (one, other)]
    assert told[0] == told[1]
    assert len(one.slots()) > 30
