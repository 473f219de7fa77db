"""Classes evaluated ahead of their turn: what is placed where does not depend on it."""

import pytest

from tests.support.mirrored import Mirrored
from tests.support.story import assert_same, story


@pytest.mark.parametrize("seed", range(2))
def test_the_same_is_bound_in_the_same_order(seed: int) -> None:
    evaluator = Mirrored()
    plain, ahead = story(seed, None), story(seed, evaluator)
    assert evaluator.evaluated > 20
    assert_same(plain, ahead)
