"""What nobody wants any more leaves memory too."""

from tests.support.regional_world import RegionalWorld, task


def test_a_task_that_the_share_names_no_more_is_forgotten_with_its_last_slot(world: RegionalWorld) -> None:
    session = world.join("n1")
    world.share("web", task("old"), task("main"))
    world.share("web", task("main"), generation=2)
    (web,) = world.state.workloads.values()
    assert set(web.tasks) == {"main", "old"}
    world.close(session, *(slot for slot in world.slots() if slot.id.task == "old"))
    assert set(web.tasks) == {"main"}
    world.share("web", task("main"), task("old"), generation=3)
    assert {slot.id.task for slot in world.slots()} == {"main", "old"}


def test_a_tenant_without_work_and_slice_is_forgotten(world: RegionalWorld) -> None:
    world.share("web", task(), tenant="nobody")
    assert "nobody" in world.state.accounts
    world.share("web", task(), tenant="nobody", generation=2, removed=True)
    assert "nobody" not in world.state.accounts
    assert "acme" in world.state.accounts, "its slice is still in force"
