"""Order, ranges, parking and back-off of scheduling classes."""

from hypothesis import given
from hypothesis import strategies as st

from atoll.model import explain
from atoll.model.resources import Vector
from regional.core.filters import Cure, Request
from regional.core.queue import NEVER_MS, Queue, SchedulingClass

REQUEST = Request(Vector(1_000))
AGEING_MS, OVERDUE_TURN = 1_000, 4


def cls(workload: str, tenant: str = "acme", band: int = 3, latest_start_ms: int = NEVER_MS) -> SchedulingClass:
    return SchedulingClass(tenant, workload, "main", band, REQUEST, latest_start_ms)


def drain(queue: Queue, shares: dict[str, float]) -> list[str]:
    order = []
    while found := queue.pick(lambda tenant: shares[tenant]):
        found.take(1)
        order.append(found.workload)
    return order


def test_band_then_share_then_age() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    for workload, tenant, band, at in (
        ("late", "acme", 3, 20),
        ("early", "acme", 3, 10),
        ("other", "best", 3, 30),
        ("urgent", "acme", 5, 40),
        ("idle", "best", 1, 0),
    ):
        queue.put(cls(workload, tenant, band), (0,), at)
    assert drain(queue, {"acme": 0.5, "best": 0.1}) == ["urgent", "other", "early", "late", "idle"]


def test_the_least_slack_comes_first_within_a_tenant() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    for workload, latest_start_ms in (("none", NEVER_MS), ("later", 900), ("sooner", 500)):
        queue.put(cls(workload, latest_start_ms=latest_start_ms), (0,), 0)
    assert drain(queue, {"acme": 0.0}) == ["sooner", "later", "none"]


def test_what_cannot_meet_its_deadline_any_more_gives_way() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    missed, feasible = cls("missed", latest_start_ms=500), cls("feasible", latest_start_ms=900)
    queue.put(cls("old"), (0,), 0)
    for one in (missed, feasible):
        queue.put(one, (0,), 1)
    queue.age(501)
    assert (queue.position(feasible), queue.position(missed)) == (1, 3)
    assert drain(queue, {"acme": 0.0}) == ["feasible", "old", "missed"]


def test_waiting_raises_the_band_a_step_at_a_time() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    old, fresh = cls("old", band=1), cls("fresh", "best", band=3)
    queue.put(old, (0,), 0)
    queue.put(fresh, (0,), 1_990)
    shares = {"acme": 0.0, "best": 0.9}
    queue.age(1_999)
    assert queue.pick(shares.__getitem__) is fresh
    queue.age(2_000)
    assert queue.pick(shares.__getitem__) is old


def test_what_was_parked_comes_back_with_its_age() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    old, fresh = cls("old", band=1), cls("fresh", "best", band=3)
    queue.put(old, (0,), 0)
    queue.park(old, frozenset({Cure.NODES}), ())
    queue.age(2_000)
    queue.put(fresh, (0,), 2_000)
    assert queue.pick(lambda _: 0.0) is fresh
    queue.parking.happened(Cure.NODES)
    queue.wake(lambda *_: 1, 1, 2_000)
    queue.age(2_000)
    assert queue.pick(lambda _: 0.0) is old


def test_one_turn_in_so_many_goes_to_what_is_overdue() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    urgent, old = cls("urgent", "best", band=5), cls("old", band=1)
    queue.put(old, range(9), 0)
    queue.age(5 * AGEING_MS)
    queue.put(urgent, range(99), 5 * AGEING_MS)
    shares = {"acme": 0.9, "best": 0.1}
    picked = [queue.pick(shares.__getitem__) for _ in range(2 * OVERDUE_TURN)]
    assert picked == 2 * [*(OVERDUE_TURN - 1) * [urgent], old]


def test_what_is_emptied_and_waits_again_has_no_old_age() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    one = cls("one", band=1)
    queue.put(one, (0,), 0)
    one.take(1)
    queue.put(one, (0,), 5_000)
    queue.age(5_999)
    assert (one.queued_ms, one.level) == (5_000, 1)
    assert queue.pick(lambda _: 0.0) is one


def test_entries_that_are_long_placed_are_swept() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    for number in range(5_000):
        queue.put(cls(f"w{number}"), (0,), 0)
        found = queue.pick(lambda _: 0.0)
        assert found
        found.take(1)
        queue.age(1)
    assert len(queue._raises) < 3_000


def test_parked_work_is_woken_only_by_what_may_cure_it() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    one = cls("one")
    queue.put(one, range(3), 0)
    queue.park(one, frozenset({Cure.RESOURCES}), (explain.reason(explain.NO_NODES),))
    assert queue.pick(lambda _: 0.0) is None
    queue.parking.happened(Cure.QUOTA)
    queue.wake(lambda *_: 1, 1, 0)
    assert queue.pick(lambda _: 0.0) is None
    queue.parking.happened(Cure.RESOURCES)
    queue.wake(lambda *_: 0, 1, 0)
    assert queue.pick(lambda _: 0.0) is None
    queue.parking.happened(Cure.RESOURCES)
    queue.wake(lambda *_: 1, 1, 0)
    assert queue.pick(lambda _: 0.0) is one


def test_more_of_a_parked_class_stays_parked() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    one = cls("one")
    queue.put(one, (0,), 0)
    queue.park(one, frozenset({Cure.NODES}), ())
    queue.put(one, (1,), 5)
    assert queue.pick(lambda _: 0.0) is None
    assert (one.size, queue.position(one)) == (2, 0)


def test_delayed_replicas_come_back_at_their_time_with_their_avoided_node() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    one = cls("one")
    queue.delay(one, 4, 1_000, "n1")
    assert queue.next_due_ms() == 1_000
    queue.offer_due(999)
    assert one.size == 0
    queue.offer_due(1_000)
    queue.put(one, (0, 1), 1_000)
    assert one.take(9) == ([4], "n1")
    assert one.take(9) == ([0, 1], "")


def test_what_ran_uses_the_turn_of_its_tenant_unless_its_priority_is_lower() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    urgent, aged, service, low = (
        cls("urgent", latest_start_ms=10**9),
        cls("aged", band=1),
        cls("web"),
        cls("low", band=2),
    )
    queue.put(aged, (0,), 0)
    queue.put(urgent, (0,), 2 * AGEING_MS)
    queue.put(service, range(3), 2 * AGEING_MS)
    queue.put(low, (0,), 2 * AGEING_MS, ran=True)
    queue.age(2 * AGEING_MS)
    assert queue.pick(lambda _: 0.0) is urgent, "none that ran is of its priority"
    queue.put(service, (7,), 2 * AGEING_MS, "n1", ran=True)
    assert queue.position(service) == 1
    assert queue.pick(lambda _: 0.0) is service
    assert service.take(9) == ([7], "n1"), "no more than what ran"
    assert queue.pick(lambda _: 0.0) is urgent
    urgent.take(1)
    assert queue.pick(lambda _: 0.0) is low, "it uses the turn of what is aged above it"


def test_of_what_is_parked_alike_what_ran_is_tried_first() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    first, web = cls("first"), cls("web")
    for one in (first, web):
        queue.put(one, (0,), 0)
        queue.park(one, frozenset({Cure.QUOTA}), ())
    queue.put(web, (7,), 0, ran=True)
    assert queue.pick(lambda _: 0.0) is web, "it is tried at once"
    queue.park(web, frozenset({Cure.QUOTA}), ())
    queue.parking.happened(Cure.QUOTA, web.tenant)
    queue.wake(lambda cure, asks: 1, 10, 0)
    assert not web.parked and first.parked


def test_a_dropped_class_is_never_picked_nor_due() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    one = cls("one")
    queue.put(one, (0,), 0)
    queue.delay(one, 1, 10, "n1")
    queue.drop(one)
    assert queue.pick(lambda _: 0.0) is None
    queue.offer_due(10)
    assert one.size == 1, "what it had"


def test_position_counts_within_the_tenant() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    first, second = cls("first"), cls("second")
    queue.put(first, (0,), 1)
    queue.put(second, (0,), 2)
    assert (queue.position(first), queue.position(second)) == (1, 2)


@given(st.lists(st.sets(st.integers(0, 30)), max_size=6), st.lists(st.integers(1, 9), max_size=12))
def test_ranges_are_sets(puts: list[set[int]], takes: list[int]) -> None:
    one, plain = cls("one"), set[int]()
    for indices in puts:
        fresh = indices - plain
        one.put(fresh)
        plain |= fresh
    for count in takes:
        taken, _ = one.take(count)
        assert taken == sorted(plain)[: len(taken)]
        assert len(taken) == min(count, len(plain))
        plain -= set(taken)
    assert one.size == len(plain)
    assert list(one.indices()) == sorted(plain)


def test_who_comes_soon_is_told_by_band_and_the_tenants_in_turns() -> None:
    queue = Queue(AGEING_MS, OVERDUE_TURN)
    for workload, tenant, band in (
        ("a", "acme", 3),
        ("b", "acme", 3),
        ("c", "best", 3),
        ("d", "best", 5),
        ("e", "x", 1),
    ):
        queue.put(cls(workload, tenant, band), (0,), 0)
    queue.drop(cls_of(queue, "e"))
    assert [one.workload for one in queue.upcoming(9)] == ["d", "a", "c", "b"]
    assert [one.workload for one in queue.upcoming(1)] == ["d", "a", "c"]
    assert drain(queue, {"acme": 0.1, "best": 0.2}) == ["d", "a", "b", "c"]


def cls_of(queue: Queue, workload: str) -> SchedulingClass:
    return next(one for one in queue.upcoming(9) if one.workload == workload)
