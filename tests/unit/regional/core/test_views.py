"""What people see of slots that have ended, or wait for their next try: where they ran, and left their output."""

from atoll.api.v1 import objects_pb2, regional_pb2
from regional.core import views
from tests.support.regional_world import RegionalWorld, task

JOB = objects_pb2.WORKLOAD_TYPE_JOB


def last_node(world: RegionalWorld, workload: str = "job", index: int = 0) -> str:
    slot = objects_pb2.SlotId(tenant="acme", workload=workload, task="main", index=index)
    return views.last_node(world.state, slot)


def test_what_has_ended_or_failed_is_known_to_have_run_where_it_did(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("job", task(replicas=2), type=JOB)
    assert last_node(world) == "n1"
    world.close(session, world.slots()[0], reason="Completed")
    world.close(session, *world.slots(), reason="Failed", code=3)
    assert (last_node(world), last_node(world, index=1)) == ("n1", "n1")
    asked = regional_pb2.WhyRequest(tenant="acme", workload="job", index=-1)
    told = {slot.id.index: slot.node for slot in views.why(world.state, asked, world.now_ms).slots}
    assert told == {0: "n1", 1: ""}, "the one that is tried again waits, and has no place now"


def test_what_has_not_run_was_nowhere(world: RegionalWorld) -> None:
    world.join("n1")
    world.share("job", task(cpu=1_000_000), type=JOB)
    assert not last_node(world) and not last_node(world, "none") and not last_node(world, index=7)
