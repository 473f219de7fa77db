"""Of what waits for room only what may move is planned again: a plan of the rest would change nothing."""

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.model.resources import Vector
from tests.support.global_core import GlobalCore, report, workload

UNIT = Vector(100, 10)
REGIONS = ("north", "south", "west")
PATH = ("acme", "web")
EVEN = objects_pb2.SPREAD_STRATEGY_EVEN
STRATEGIES = (objects_pb2.SPREAD_STRATEGY_PREFERRED, EVEN, objects_pb2.SPREAD_STRATEGY_CHEAPEST)
TYPES = (objects_pb2.WORKLOAD_TYPE_JOB, objects_pb2.WORKLOAD_TYPE_SERVICE)

places = st.sampled_from(REGIONS)
sums = st.tuples(st.just("room"), places, st.integers(0, 6))
said = st.tuples(st.just("unplaced"), places, st.integers(0, 4))
cordons = st.tuples(st.just("cordoned"), places, st.integers(0, 1))
times = st.tuples(st.just("time"), places, st.sampled_from((5, 10, 20, 300)))


def _workload(at: list[str], strategy: int, type_: int, replicas: tuple[int, int], gang: bool) -> objects_pb2.Workload:
    spread = objects_pb2.Spread(strategy=strategy)  # type: ignore[arg-type]  # one of them
    made = workload("web", replicas[0], UNIT, regions=at, spread=spread, type=type_)
    made.spec.tasks.add().CopyFrom(made.spec.tasks[0])
    made.spec.tasks[1].name, made.spec.tasks[1].replicas = "other", replicas[1]
    made.spec.tasks[0].gang = gang and strategy != EVEN  # else it is refused
    return made


workloads = st.builds(
    _workload,
    st.lists(places, max_size=3, unique=True),
    st.sampled_from(STRATEGIES),
    st.sampled_from(TYPES),
    st.tuples(st.integers(1, 4), st.integers(0, 2)),
    st.booleans(),
)


@given(workloads, st.lists(st.one_of(said, sums, cordons, times, times), min_size=4, max_size=20))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_plan_of_what_is_passed_over_would_change_nothing(
    wanted: objects_pb2.Workload, steps: list[tuple[str, str, int]]
) -> None:
    core = GlobalCore()
    core.elect()
    for session, name in enumerate(REGIONS):
        core.connect(session, name)
    core.tenant(quota=UNIT * 100)
    core.apply(wanted)
    for kind, region, count in steps:
        _do(core, kind, region, count)
        _check(core)


def _do(core: GlobalCore, kind: str, region: str, count: int) -> None:
    session, present = REGIONS.index(region), core.records.shares_of(*PATH)
    if kind == "room":
        amount = (UNIT * count).to_proto()
        core.say(session, summary=objects_pb2.RegionSummary(nodes_ready=1, largest_node=amount, free=amount))
    elif kind == "cordoned":
        core.ask(global_pb2.UpdateRegionRequest(name=region, cordoned=bool(count)))
    elif kind == "time":
        core.pass_time(count * 1_000)
    elif present:
        share = present.get(region) or next(iter(present.values()))
        told = report(share, closed=share.removed)
        for task in () if share.removed else share.spec.tasks:
            wait = min(count, task.replicas)
            ready = task.replicas - wait
            told.tasks.add(task=task.name, desired=task.replicas, healthy=ready, waiting=wait, unplaced=wait)
        core.say(REGIONS.index(share.region), workload=told)


def _check(core: GlobalCore) -> None:
    assert core.machine.reign is not None
    shares, waiting = core.machine.reign.shares, core.machine.reign.reports.with_unplaced()
    document = core.records.workloads.get(*PATH)
    assert document is not None
    if PATH in waiting and PATH not in shares._moving and not shares._overflow.may_move(PATH, core.now_ms):
        step = shares._step(document, core.now_ms)
        assert step is None, step
