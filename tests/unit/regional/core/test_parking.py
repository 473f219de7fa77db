"""Parked classes are offered again in their order, as many as there is room for, and each that could have it."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.model.resources import Vector
from regional.core.filters import Cure, Request
from regional.core.queue import NEVER_MS, Queue, SchedulingClass

ROOM, QUOTA = frozenset({Cure.NODES, Cure.RESOURCES}), frozenset({Cure.QUOTA})


def parked(
    queue: Queue,
    name: str,
    cures: frozenset[Cure] = QUOTA,
    *,
    queued_ms: int = 0,
    latest_ms: int = NEVER_MS,
    cpu: int = 1,
) -> SchedulingClass:
    cls = SchedulingClass("acme", name, "main", 3, Request(Vector(cpu)), latest_ms)
    queue.put(cls, (0,), queued_ms)
    queue.park(cls, cures, ())
    return cls


def offered(queue: Queue, room: int, most: int = 100, now_ms: int = 0) -> list[str]:
    """Of one turn; what is offered is placed."""
    queue.wake(lambda *_: room, most, now_ms)
    queue.age(now_ms)
    names = []
    while cls := queue.pick(lambda _: 0.0):
        cls.take(1)
        names.append(cls.workload)
    return names


def test_as_many_as_there_is_room_for_the_oldest_first() -> None:
    queue = Queue(1_000, 16)
    for age in (3, 1, 2):
        parked(queue, f"w{age}", queued_ms=age)
    queue.parking.happened(Cure.QUOTA)
    assert offered(queue, 2) == ["w1", "w2"]
    assert queue.parking.pressing, "there may be more"
    assert offered(queue, 0) == []
    assert not queue.parking.pressing, "there was not"
    assert offered(queue, 1) == [], "nothing has happened since"
    queue.parking.happened(Cure.QUOTA)
    assert offered(queue, 1) == ["w3"]
    assert not queue.parking.members


def test_a_turn_offers_so_many_and_the_next_goes_on() -> None:
    queue = Queue(1_000, 16)
    for number in range(5):
        parked(queue, f"w{number}")
    queue.parking.happened(Cure.QUOTA)
    turns = []
    while queue.parking.pressing:
        turns.append(offered(queue, 1_000, most=2))
    assert turns == [["w0", "w1"], ["w2", "w3"], ["w4"]]


def test_what_is_refused_again_leaves_the_room_to_the_next() -> None:
    queue = Queue(1_000, 16)
    first, second = parked(queue, "w1", ROOM), parked(queue, "w2", ROOM)
    queue.parking.happened(Cure.RESOURCES)
    queue.wake(lambda *_: 1, 100, 0)
    assert queue.pick(lambda _: 0.0) is first
    queue.park(first, frozenset({Cure.QUOTA}), ())
    queue.wake(lambda *_: 1, 100, 0)
    assert queue.pick(lambda _: 0.0) is second
    queue.park(second, ROOM, ())
    queue.wake(lambda *_: 1, 100, 0)
    assert queue.pick(lambda _: 0.0) is None, "it was tried since"
    assert not queue.parking.pressing


def test_others_that_ask_for_less_are_asked_by_themselves() -> None:
    queue = Queue(1_000, 16)
    parked(queue, "large", ROOM, cpu=8)
    parked(queue, "small", ROOM, queued_ms=5, cpu=1)
    queue.parking.happened(Cure.RESOURCES)
    queue.wake(lambda cure, cls: 4 // cls.request.vector.cpu_milli, 100, 5)
    assert [cls.workload for cls in queue.parked.values()] == ["large"]


def test_deadlines_never_keep_back_what_has_none_and_what_is_lost_stands_with_it() -> None:
    queue = Queue(1_000, 16)
    parked(queue, "old")
    parked(queue, "soon", queued_ms=5, latest_ms=50)
    parked(queue, "later", queued_ms=5, latest_ms=90)
    queue.parking.happened(Cure.QUOTA)
    assert offered(queue, 1, now_ms=10) == ["soon", "old"]
    parked(queue, "older", queued_ms=6)
    assert offered(queue, 1, now_ms=95) == ["later"], "it is tried once more, as what has no deadline"


def test_what_was_dropped_or_has_left_is_not_offered() -> None:
    queue = Queue(1_000, 16)
    gone, stays, repaired = (
        parked(queue, "gone"),
        parked(queue, "stays"),
        parked(queue, "repaired", QUOTA | {Cure.REPAIR}),
    )
    queue.drop(gone)
    queue.put(repaired, (1,), 0)
    assert list(queue.parked.values()) == [stays]
    queue.parking.happened(Cure.QUOTA)
    assert offered(queue, 5) == ["repaired", "repaired", "stays"]
    assert queue.parking.under(*Cure) == []


events = st.lists(st.tuples(st.sampled_from(("park", "event", "free", "turn")), st.integers(0, 9)), max_size=60)


@given(events)
def test_who_could_have_room_is_tried_before_the_event_is_over(steps: list[tuple[str, int]]) -> None:
    """Against a plain model: a class that some refuse for other reasons; room that is never left while one is due."""
    queue, free = Queue(1_000, 16), 0
    refused = set[str]()

    def turn() -> None:
        nonlocal free
        queue.wake(lambda *_: free, 3, 0)
        while cls := queue.pick(lambda _: 0.0):
            if free and int(cls.workload[1:]) % 3:
                cls.take(1)
                free -= 1
            else:
                refused.add(cls.workload)
                queue.park(cls, QUOTA, ())

    for number, (kind, amount) in enumerate(steps):
        if kind == "park":
            parked(queue, f"w{number}")
        elif kind == "free":
            free += amount
            queue.parking.happened(Cure.QUOTA)
        elif kind == "event":
            queue.parking.happened(Cure.RESOURCES)
        else:
            turn()
    queue.parking.happened(Cure.QUOTA)
    for _ in range(1_000):
        if not queue.parking.pressing:
            break
        turn()
    assert not queue.parking.pressing
    waiting = [cls.workload for cls in queue.parked.values()]
    assert not free or all(int(name[1:]) % 3 == 0 for name in waiting), "room is left, and one that could have it waits"
