"""Evening out comes to an end: whatever runs where, replicas stop moving, none moved twice within a rest or while its
task had fewer up than wanted, and the fullest node is no fuller than it was."""

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.model.resources import Vector
from regional.core import commands
from regional.core.balance import evenness
from tests.support.obedient import Agents
from tests.support.regional_world import RegionalWorld, task

REST_MS, AFTER_MS, STEP_MS = 30_000, 5_000, 1_000
STRATEGIES = ("least-loaded", "spread", "balanced", "round-robin", "worst-fit")

nodes = st.lists(st.sampled_from([2_000, 4_000, 8_000]), min_size=1, max_size=3)
tasks = st.lists(
    st.tuples(st.integers(1, 5), st.sampled_from([100, 400, 900]), st.sampled_from(STRATEGIES)), min_size=1, max_size=4
)


def _taken_over(world: RegionalWorld, seen: int) -> tuple[int, list[tuple[str, str, str]]]:
    """Of the migrations since: the workload, which one went, and which one took its place."""
    announced = [command.event for command in world.issued if isinstance(command, commands.Announce)]
    found = []
    for event in announced[seen:]:
        if event.type == "Migrated":
            head, _, rest = event.message.partition("; ")
            found.append((event.object, head.split(":")[0], rest.split()[0]))
    return len(announced), found


@settings(max_examples=8)
@given(full=nodes, empty=nodes, wanted=tasks)
def test_it_ends_and_none_moves_twice(full: list[int], empty: list[int], wanted: list[tuple[int, int, str]]) -> None:
    world = RegionalWorld(
        rebalance_after_ms=AFTER_MS, rebalance_rest_ms=REST_MS, rebalance_per_minute=60, headroom_percent=0
    )
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000), seq=1)
    agents = Agents(world)
    for number, cpu in enumerate(full):
        agents.sessions[f"full-{number}"] = world.join(f"full-{number}", capacity=Vector(cpu, 64_000))
    for number, (replicas, cpu, strategy) in enumerate(wanted):
        world.share(f"w{number}", task(replicas=replicas, cpu=cpu, memory=10, strategy=strategy))
    for number, cpu in enumerate(empty):
        agents.sessions[f"empty-{number}"] = world.join(f"empty-{number}", capacity=Vector(cpu, 64_000))
    fullest, waited = evenness(world.state.table, ()).shares[0], bool(world.state.queue.parked)
    running = len(world.slots())
    began: dict[tuple[str, str], int] = {}
    seen, last_ms = 0, world.now_ms
    while world.now_ms < last_ms + 4 * REST_MS:
        agents.run()
        agents.pass_time(STEP_MS)
        seen, moved = _taken_over(world, seen)
        for workload, old, new in moved:
            last_ms = world.now_ms
            assert last_ms - began.get((workload, old), -REST_MS) >= REST_MS
            began[workload, new] = last_ms
        for name in agents.sessions:
            agents.obey(name)
        assert len(world.slots()) >= running, "made before broken"
        assert len(began) < 100, "it goes on and on"
    assert not world.state.balance.migrations
    assert waited or evenness(world.state.table, ()).shares[0] <= fullest
    world.check()
