"""What docs/scheduling.md promises of the order, over random arrivals: nothing starves, shares are level within one
task, deadlines are met in the order of slack, and the same input gives the same output."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.model.resources import Vector
from regional.core.filters import Request
from regional.core.queue import BATCH_MS, NEVER_MS, TOP_BAND, Queue, SchedulingClass

AGEING_MS, OVERDUE_TURN, STEP_MS = 1_000, 4, 100
TENANTS = ("acme", "best", "corp")
TOTAL = (100_000, 200_000)  # cpu_milli, memory_mib

arrivals = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(TENANTS), st.integers(1, TOP_BAND), st.integers(1, 5)), max_size=40
)


def cls(number: int, tenant: str, band: int, vector: Vector = Vector(1)) -> SchedulingClass:  # noqa: B008 - a value
    return SchedulingClass(tenant, f"w{number}", "main", band, Request(vector))


@dataclass
class Cluster:
    """One turn a step, one replica a turn; what is placed stays. `flood`: the best-placed work that never ends."""

    flood: bool
    queue: Queue = field(default_factory=lambda: Queue(AGEING_MS, OVERDUE_TURN))
    held: dict[str, int] = field(default_factory=lambda: dict.fromkeys((*TENANTS, "flood"), 0))
    picked: list[str] = field(default_factory=list)
    now_ms: int = 0

    def __post_init__(self) -> None:
        self.flooding = cls(-1, "flood", TOP_BAND)
        if self.flood:
            self.queue.put(self.flooding, range(20_000), 0)

    def share(self, tenant: str) -> float:
        return -1.0 if tenant == "flood" else float(self.held[tenant])

    def step(self) -> None:
        self.now_ms += STEP_MS
        self.queue.age(self.now_ms)
        found = self.queue.pick(self.share)
        if found:
            found.take(1)
            self.held[found.tenant] += 1
            self.picked.append(found.workload)


def run(plan: list[tuple[int, str, int, int]], *, flood: bool) -> list[str]:
    cluster = Cluster(flood)
    waiting = dict(enumerate(plan))
    rounds = max((size for *_, size in plan), default=0)
    overdue_steps = (TOP_BAND + 1) * AGEING_MS // STEP_MS
    for step in range(60 + overdue_steps + OVERDUE_TURN * (len(plan) + 1) * (rounds + 1)):
        for number, (at, tenant, band, size) in list(waiting.items()):
            if at == step:
                cluster.queue.put(cls(number, tenant, band), range(size), cluster.now_ms)
                del waiting[number]
        cluster.step()
    return cluster.picked


@settings(deadline=None)
@given(arrivals)
def test_everything_is_placed_within_a_bound_beside_a_flood_of_the_highest_band(
    plan: list[tuple[int, str, int, int]],
) -> None:
    """The documented bound: a class ages past the highest band, and then has its place in the round of the overdue."""
    picked = run(plan, flood=True)
    for number, (*_, size) in enumerate(plan):
        assert picked.count(f"w{number}") == size


@settings(deadline=None)
@given(arrivals, st.booleans())
def test_the_same_input_gives_the_same_output(plan: list[tuple[int, str, int, int]], flood: bool) -> None:
    assert run(plan, flood=flood) == run(plan, flood=flood)


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 2_000)), max_size=20), st.integers(0, 2_000))
def test_what_can_meet_its_deadline_comes_in_the_order_of_slack_and_the_rest_by_age(
    latest_starts: list[int | None], now_ms: int
) -> None:
    queue = Queue(1 << 40, OVERDUE_TURN)
    keys: dict[str, tuple[int, int]] = {}
    for number, latest_ms in enumerate(latest_starts):
        one = cls(number, "acme", 3)
        one.latest_start_ms = NEVER_MS if latest_ms is None else latest_ms
        queue.put(one, (0,), number)
        feasible = latest_ms is not None and latest_ms >= now_ms
        keys[one.workload] = (latest_ms if feasible and latest_ms is not None else NEVER_MS, number)
    queue.age(now_ms)
    order = []
    while found := queue.pick(lambda _: 0.0):
        assert queue.position(found) == 1
        found.take(1)
        order.append(found.workload)
    assert order == sorted(keys, key=keys.__getitem__)


waiting = st.tuples(st.integers(0, 3_000), st.sampled_from((0, 0, 1, 2, 3)), st.sampled_from((NEVER_MS, 9_000)))


@settings(deadline=None)
@given(st.lists(waiting, max_size=20))
def test_of_a_batch_the_larger_come_first_where_that_is_asked_for(arrivals: list[tuple[int, int, int]]) -> None:
    """The plain definition: by latest start, then by age, which is the same for those of one batch that ask for it."""
    queue = Queue(1 << 40, OVERDUE_TURN)
    keys: dict[str, tuple[int, int, int, int]] = {}
    for number, (queued_ms, size, latest_ms) in enumerate(sorted(arrivals)):
        one = cls(number, "acme", 3)
        one.decreasing, one.latest_start_ms = size, latest_ms
        queue.put(one, range(1 + number % 2), queued_ms)
        keys[one.workload] = (latest_ms, queued_ms // BATCH_MS * BATCH_MS if size else queued_ms, -size, number)
    queue.age(3_000)
    order = []
    while found := queue.pick(lambda _: 0.0):
        found.take(9)
        order.append(found.workload)
    assert order == sorted(keys, key=keys.__getitem__)


demands = st.tuples(st.integers(1, 4_000), st.integers(1, 8_000))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 10), st.lists(demands, min_size=1, max_size=3)), min_size=2, max_size=3),
    st.integers(1, 120),
)
def test_weighted_dominant_shares_are_level_within_one_task(
    tenants: list[tuple[int, list[tuple[int, int]]]], turns: int
) -> None:
    """Progressive filling, the ideal of DRF, keeps all shares equal: no tenant that still waits is behind another by
    more than the other's last task. Ghodsi et al., NSDI 2011, section 4.1."""
    queue = Queue(1 << 40, OVERDUE_TURN)
    held = {name: [0, 0] for name, _ in zip(TENANTS, tenants, strict=False)}
    weights = {name: weight for name, (weight, _) in zip(TENANTS, tenants, strict=False)}

    def share(tenant: str) -> float:
        return max(h / t for h, t in zip(held[tenant], TOTAL, strict=True)) / weights[tenant]

    largest = dict.fromkeys(held, 0.0)
    number = 0
    for name, (weight, shapes) in zip(TENANTS, tenants, strict=False):
        for cpu, memory in shapes:
            number += 1
            queue.put(cls(number, name, 3, Vector(cpu, memory)), range(1_000), number)
            largest[name] = max(largest[name], cpu / TOTAL[0] / weight, memory / TOTAL[1] / weight)
    for _ in range(turns):
        found = queue.pick(share)
        assert found
        found.take(1)
        held[found.tenant] = [h + a for h, a in zip(held[found.tenant], found.request.vector, strict=False)]
        for ahead in held:
            assert all(share(ahead) <= share(other) + largest[ahead] + 1e-12 for other in held)
