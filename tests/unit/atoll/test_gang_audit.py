"""I12: what a gang may do passes; each way to bind one in part is found."""

from collections.abc import Callable

import pytest

from atoll.api.v1 import objects_pb2
from atoll.store import keys
from atoll.store.store import Delete
from tests.support import history
from tests.support.history import ROOT, History

WAITING, RESERVED, DONE = (
    objects_pb2.SLOT_STATE_WAITING,
    objects_pb2.SLOT_STATE_RESERVED,
    objects_pb2.SLOT_STATE_DONE,
)
GANG_KEY = keys.gang(ROOT, "acme", "web")


def slot(made: History, index: int, state: int = objects_pb2.SLOT_STATE_BOUND, n: int = 0):  # type: ignore[no-untyped-def]
    return history.slot(
        (made.terms[ROOT], n or index + 1),
        index=index,
        state=objects_pb2.SlotState.ValueType(state),
        gang=state == RESERVED,
    )


def reserving(members: int = 2, of: int = 2) -> History:
    """A gang of `of`, of which `members` are reserved."""
    made = History()
    made.elect(ROOT)
    made.write(ROOT, history.region_slice(9))
    made.write(ROOT, history.workload(3, gang=of))
    for index in range(members):
        made.write(ROOT, slot(made, index, RESERVED), history.used(index + 1))
    return made


def committed() -> History:
    made = reserving()
    made.write(ROOT, history.gang(2))
    return made


def bound() -> History:
    made = committed()
    for index in range(2):
        made.write(ROOT, slot(made, index))
    return made


def test_the_life_of_a_gang_passes() -> None:
    made = bound()
    made.release(slot(made, 0, WAITING), history.used(1))
    made.write(ROOT, slot(made, 0, n=7), history.used(2))  # of a service: a member alone
    made.release(slot(made, 0, WAITING, n=7), slot(made, 1, DONE), history.used(0))
    made.write(ROOT, Delete(GANG_KEY))
    made.write(ROOT, slot(made, 0, RESERVED, n=8), history.used(1))
    made.write(ROOT, history.gang(1))  # the other one is done
    made.write(ROOT, slot(made, 0, n=8))
    assert not made.broken()
    swept = reserving(1)
    swept.write(ROOT, slot(swept, 0, WAITING), history.used(0))
    assert not swept.broken()


BROKEN: dict[str, tuple[Callable[[], History], Callable[[History], object]]] = {
    "committed in part": (lambda: reserving(1), lambda h: h.write(ROOT, history.gang(1))),
    "says more than there is": (reserving, lambda h: h.write(ROOT, history.gang(3))),
    "bound and not committed": (reserving, lambda h: h.write(ROOT, slot(h, 0))),
    "bound without a reservation": (
        lambda: reserving(0),
        lambda h: h.write(ROOT, slot(h, 0), history.used(1)),
    ),
    "bound together with the commit": (reserving, lambda h: h.write(ROOT, slot(h, 0), history.gang(2))),
    "committed for another workload of that name": (
        reserving,
        lambda h: (h.write(ROOT, history.gang(2, uid="u0")), h.write(ROOT, slot(h, 0))),
    ),
    "swept after the commit": (committed, lambda h: h.write(ROOT, slot(h, 0, WAITING), history.used(1))),
    "dissolved while a member is reserved": (committed, lambda h: h.write(ROOT, Delete(GANG_KEY))),
    "dissolved while a member is bound": (bound, lambda h: h.write(ROOT, Delete(GANG_KEY))),
    "committed twice": (committed, lambda h: h.write(ROOT, history.gang(2))),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_gang_that_is_not_whole_is_found(case: str) -> None:
    begin, write = BROKEN[case]
    made = begin()
    assert not made.broken()
    clean_until = made.state.revision
    write(made)
    verdict = made.verdict()
    assert "I12" in made.broken(), verdict.violations
    assert all(violation.revision > clean_until for violation in verdict.violations)
