"""A global core for tests that say nothing else: one region, and a tenant with quota for ten units."""

from collections.abc import Iterator

import pytest

from tests.support.global_core import UNIT, GlobalCore


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.elect()
    world.connect(1)
    world.tenant(quota=UNIT * 10)
    yield world
    world.clean()
