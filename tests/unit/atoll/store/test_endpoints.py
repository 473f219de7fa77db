"""Which member is asked next."""

import time

import pytest

from atoll.store.endpoints import Endpoint, Endpoints
from atoll.store.store import StoreUnavailable


@pytest.fixture
def now_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be moved by the test."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def three() -> tuple[Endpoints, tuple[Endpoint, ...]]:
    members = Endpoints(["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"], None)
    return members, members.all


async def test_the_last_good_member_is_kept(now_s: list[float]) -> None:
    members, (first, second, third) = three()
    assert members.pick() is first is members.pick()
    members.avoid(first)
    assert members.pick() is second is members.pick()
    now_s[0] += 60
    assert members.pick() is second, "no way back without need"
    members.avoid(second)
    assert members.pick() is third
    members.avoid(third)
    assert members.pick() is first
    await members.close()


async def test_when_all_failed_the_one_that_failed_longest_ago_is_asked(now_s: list[float]) -> None:
    members, (first, second, third) = three()
    for member in (second, first, third):
        members.avoid(member)
        now_s[0] += 0.1
    assert members.pick() is second
    members.avoid(second)
    assert members.pick() is first
    await members.close()


async def test_a_failed_member_is_asked_again_after_a_while(now_s: list[float]) -> None:
    members, (first, second, third) = three()
    for member in (first, second, third):
        members.avoid(member)
        now_s[0] += 1.5
    assert members.pick() is first
    await members.close()


async def test_closed_is_closed() -> None:
    members, _ = three()
    await members.close()
    with pytest.raises(StoreUnavailable):
        members.pick()
