"""The auditor counts accounts apart: what one has left pays for nothing of the other, and burst not for everything."""

from collections.abc import Callable

import pytest

from atoll.api.v1 import objects_pb2
from atoll.store import keys
from atoll.store.store import Put
from tests.support import history
from tests.support.history import ROOT, History

WAITING, LOW = objects_pb2.SLOT_STATE_WAITING, objects_pb2.PRIORITY_LOW
BURST = objects_pb2.ACCOUNT_BURST
GLOBAL = keys.GLOBAL
Write = Callable[[History], object]


def bursting(*, strict: bool = False) -> History:
    """One region may use 2 of the 10 units of a tenant, and 1 of 5 of its burst; of a workload of low priority it has
    bound slot 0 by attempt 1, charged to the hard account."""
    made = History()
    made.elect(GLOBAL)
    made.write(GLOBAL, history.region(epoch=1))
    made.write(GLOBAL, history.budget(effective=10, free=10, burst=5, burst_free=5))
    made.write(GLOBAL, history.budget(effective=10, free=8, burst=5, burst_free=4), history.slice_(2, burst=1))
    made.elect(ROOT)
    made.write(ROOT, history.region_slice(2, burst=1, strict=strict))
    made.write(ROOT, history.workload(3, priority=LOW))
    made.write(ROOT, bound(made, 1, 0), history.used(1))
    assert_clean(made)
    return made


def bound(made: History, n: int, index: int) -> Put:
    return history.slot((made.terms[ROOT], n), index=index)


def in_burst(made: History, n: int, index: int) -> Put:
    return history.slot((made.terms[ROOT], n), index=index, account=BURST)


def assert_clean(made: History) -> None:
    verdict = made.verdict()
    assert not verdict.broken, "\n".join(map(str, verdict.violations))


@pytest.mark.parametrize("strict", [False, True])
def test_both_accounts_may_be_used_up(strict: bool) -> None:
    made = bursting(strict=strict)
    made.write(ROOT, bound(made, 2, 1), in_burst(made, 3, 2), history.used(2, burst=1))
    made.release(history.slot((made.terms[ROOT], 1), state=WAITING), history.used(1, burst=1))
    made.release(history.slot((made.terms[ROOT], 3), index=2, state=WAITING, account=BURST), history.used(1))
    assert_clean(made)


def test_a_slot_without_an_account_is_charged_to_the_hard_one() -> None:
    made = bursting()
    unnamed = history.slot((made.terms[ROOT], 2), index=1, account=objects_pb2.ACCOUNT_UNSPECIFIED)
    made.write(ROOT, unnamed, history.used(2))
    assert_clean(made)


BROKEN_BURSTS: dict[str, Write] = {
    "more than the burst limit": lambda h: h.write(
        ROOT, in_burst(h, 2, 1), in_burst(h, 3, 2), history.used(1, burst=2)
    ),
    "hard beyond its limit by what burst has left": lambda h: h.write(
        ROOT, bound(h, 2, 1), bound(h, 3, 2), history.used(3)
    ),
    "charged to the other account": lambda h: h.write(ROOT, in_burst(h, 2, 1), history.used(2)),
    "credited to the other account": lambda h: (
        h.write(ROOT, in_burst(h, 2, 1), history.used(1, burst=1)),
        h.release(history.slot((h.terms[ROOT], 2), index=1, state=WAITING, account=BURST), history.used(0, burst=1)),
    ),
    "a zombie of the other account": lambda h: (
        h.write(ROOT, in_burst(h, 2, 1), history.used(1, burst=1)),
        h.write(
            ROOT,
            history.slot((h.terms[ROOT], 2), index=1, state=WAITING, account=BURST),
            history.zombie((h.terms[ROOT], 2), index=1),
            history.used(1),
        ),
    ),
    "a region takes more burst than granted": lambda h: h.write(ROOT, history.region_slice(2, burst=2)),
    "burst from nothing": lambda h: h.write(GLOBAL, history.slice_(2, burst=2, seq=2)),
    "burst for the default priority": lambda h: (
        h.write(ROOT, history.workload(4)),
        h.write(ROOT, in_burst(h, 2, 1), history.used(1, burst=1)),
    ),
    "burst for a gang": lambda h: (
        h.write(ROOT, history.workload(4, gang=1, priority=LOW)),
        h.write(ROOT, in_burst(h, 2, 1), history.used(1, burst=1)),
    ),
}


@pytest.mark.parametrize("name", BROKEN_BURSTS)
def test_a_broken_burst_account_is_found(name: str) -> None:
    made = bursting()
    BROKEN_BURSTS[name](made)
    assert "I3" in made.broken()
