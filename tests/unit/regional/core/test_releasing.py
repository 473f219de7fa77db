"""Batches of many tenants: each tenant is a write more, and no transaction may outgrow the store's limit."""

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld, task

ROOMY = Vector(1_000_000, 1_000_000, 1_000_000)
TENANTS = 100


def one_slot_of_each_tenant(world: RegionalWorld) -> int:
    """All on one node; its session."""
    session = world.join("n1", capacity=ROOMY)
    for i in range(TENANTS):
        world.grant(f"t{i}", ROOMY, seq=1)
        world.share("web", task(replicas=1), tenant=f"t{i}")
    assert len(world.slots()) == TENANTS
    return session


def test_ends_of_many_tenants_at_once_are_all_released(world: RegionalWorld) -> None:
    session = one_slot_of_each_tenant(world)
    world.close(session, *world.slots(), reason="Failed", code=1)
    assert world.slots() == []
    assert len(world.slots(objects_pb2.SLOT_STATE_WAITING)) == TENANTS


def test_the_work_of_many_tenants_leaves_a_lost_node(world: RegionalWorld) -> None:
    one_slot_of_each_tenant(world)
    other = world.join("n2", capacity=ROOMY)
    world.advance(60_000, beating=(other,))
    assert {slot.node for slot in world.slots()} == {"n2"}
    assert len(world.slots()) == len(world.zombies()) == TENANTS
