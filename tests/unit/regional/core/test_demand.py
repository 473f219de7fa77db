"""What waits and what is bound follows the workloads, one marked at a time."""

import pytest

from atoll.errors import InvariantBroken
from atoll.model.resources import Vector
from regional.core.demand import Demand, Sums
from tests.support.regional_world import RegionalWorld, task


def test_only_what_was_marked_is_counted_anew() -> None:
    world = RegionalWorld()
    world.win()
    world.uplink()
    world.grant("acme", Vector(3_000, 1_000_000), seq=1)
    world.join("n1")
    world.share("web", task(replicas=5, cpu=1_000))
    demand, place = Demand(), ("acme", "web")
    demand.refresh(world.state.workloads)
    assert demand.all == Sums()
    with pytest.raises(InvariantBroken):
        demand.check(world.state.workloads)
    demand.mark(place)
    demand.check(world.state.workloads)
    assert (demand.all.bound, demand.all.waiting, demand.all.asked.cpu_milli) == (3, 2, 2_000)
    assert demand.waiting == {"acme": 2}
    demand.mark(place)
    demand.refresh({})
    assert (demand.all, demand.waiting) == (Sums(), {})
