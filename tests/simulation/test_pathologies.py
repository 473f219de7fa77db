"""Five ways in which schedulers go wrong: the naive policy does, the production queue and placement do not."""

from collections import Counter

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from regional.config import CoreSettings
from regional.core.filters import Cure, Request
from regional.core.queue import Queue, SchedulingClass
from simulation.replay import NEVER_MS, Job, Ran, first_come, jain, missed_percent, replay, sized

MINUTE_MS = 60_000
ONE, TWO = Vector(1_000, 1), Vector(2_000, 2)
LOW, HIGH = objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_HIGH


def of(ran: list[Ran], name: str) -> Ran:
    return next(one for one in ran if one.job.name == name)


def test_starvation() -> None:
    """Urgent work that never ends: by priority alone the rest never runs; waiting raises it."""
    stream = [Job(f"urgent-{n:03d}", "a", n * MINUTE_MS, 2 * MINUTE_MS, ONE, priority=HIGH) for n in range(300)]
    jobs = [*stream, Job("low", "b", MINUTE_MS, MINUTE_MS, ONE, priority=LOW)]
    strict = CoreSettings(ageing_ms=NEVER_MS >> 10, overdue_turn=1 << 30)
    assert of(replay(jobs, [ONE], strict), "low").started_ms > stream[-1].arrival_ms
    within_ms = 10 * CoreSettings().ageing_ms  # overdue after four of them, then a turn in eight
    assert of(replay(jobs, [ONE]), "low").waited_ms < within_ms


def test_priority_inversion() -> None:
    """Urgent work behind a queue of what can wait: it has the next place that comes free."""
    waiting = [Job(f"low-{n:02d}", "a", n, 10 * MINUTE_MS, ONE, priority=LOW) for n in range(12)]
    jobs = [*waiting, Job("urgent", "a", MINUTE_MS, MINUTE_MS, ONE, priority=HIGH)]
    assert of(first_come(jobs, [ONE]), "urgent").waited_ms > 110 * MINUTE_MS
    assert of(replay(jobs, [ONE]), "urgent").waited_ms < 10 * MINUTE_MS


def test_convoy() -> None:
    """A large job at the head holds up small ones that would fit beside what runs."""
    jobs = [
        Job("long", "a", 0, 60 * MINUTE_MS, ONE),
        Job("large", "a", 1, MINUTE_MS, TWO),
        *(Job(f"small-{n}", "a", 2 + n, MINUTE_MS, ONE) for n in range(10)),
    ]
    assert min(one.waited_ms for one in first_come(jobs, [TWO]) if "small" in one.job.name) > 59 * MINUTE_MS
    ours = replay(jobs, [TWO])
    assert max(one.waited_ms for one in ours if "small" in one.job.name) < 15 * MINUTE_MS
    assert of(ours, "large").ended_ms


def test_thundering_herd() -> None:
    """A thousand classes of each of ten tenants wait for quota, and a hundred replicas end, of one tenant each time.
    Every event tries all that wait in a naive queue; here only as many as it made room for, the one that waits longest
    first."""
    queue = Queue(CoreSettings().ageing_ms, CoreSettings().overdue_turn)
    for number in range(10_000):
        cls = SchedulingClass(f"t{number % 10}", f"w{number // 10}", "main", 3, Request(ONE))
        queue.put(cls, (0,), 0)
        queue.park(cls, frozenset({Cure.QUOTA}), ())
    tried = []
    for event in range(100):
        queue.parking.happened(Cure.NODES)
        queue.parking.happened(Cure.RESOURCES)
        queue.parking.happened(Cure.QUOTA, f"t{event % 10}")
        room = Counter({f"t{event % 10}": 1})
        while queue.parking.pressing:
            queue.wake(lambda cure, cls, room=room: room[cls.tenant], 100, 0)  # type: ignore[misc]
            while cls := queue.pick(lambda tenant: 0.0):
                cls.take(1)
                room[cls.tenant] -= 1
                tried.append((cls.tenant, cls.workload))
    assert tried == [(f"t{event % 10}", f"w{event // 10}") for event in range(100)], "a naive queue tries 1,000,000"


def test_deadline_miss_cascade() -> None:
    """After an outage everything is a little late. Earliest deadline first spends itself on what is lost already, and
    so loses the next; here what cannot be met any more gives way."""
    outage = Job("outage", "a", 0, 30 * MINUTE_MS, ONE, priority=objects_pb2.PRIORITY_REAL_TIME)
    stream = [
        Job(f"pass-{n:02d}", "a", n * MINUTE_MS + 1, MINUTE_MS, ONE, (n + 4) * MINUTE_MS, MINUTE_MS) for n in range(60)
    ]
    jobs = [outage, *stream]
    deadline_first = first_come(jobs, [ONE])  # deadlines are in the order of arrival here: the same order
    assert missed_percent(deadline_first) > 95
    ours = replay(jobs, [ONE], CoreSettings(ageing_ms=NEVER_MS >> 10))
    assert missed_percent(ours) < 55
    assert all(one.in_time for one in ours if one.job.arrival_ms > outage.run_ms)


def test_the_measures() -> None:
    assert jain([1, 1, 1]) == 1
    assert round(jain([1, 0, 0, 0]), 2) == 0.25
    jobs = [Job(f"j{n:02d}", "a", n * 1_000, 10_000, ONE, n * 1_000 + 15_000, 10_000) for n in range(60)]
    count = sized(jobs, ONE, 4.0)
    assert missed_percent(first_come(jobs, [ONE] * count)) >= 4
    assert missed_percent(first_come(jobs, [ONE] * (count + 1))) < 4
