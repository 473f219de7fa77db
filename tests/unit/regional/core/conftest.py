"""The world of one region; whatever a test does, its invariants are checked when it ends."""

from collections.abc import Iterator

import pytest

from atoll.model.resources import Vector
from tests.support.regional_world import RegionalWorld


@pytest.fixture
def world() -> Iterator[RegionalWorld]:
    """A leader with a large slice for tenant acme and no nodes."""
    world = RegionalWorld()
    world.win()
    world.grant("acme", Vector(1_000_000, 1_000_000, 1_000_000, 1_000_000), seq=1)
    yield world
    world.check()
