"""A gang can be placed at once in one region, or it is refused; and it is told to one region only."""

from atoll.api.v1 import objects_pb2
from atoll.model.resources import Vector
from global_cp.core.gang_regions import home
from global_cp.core.gang_rules import mistakes_in_gang
from global_cp.core.spread import Outlook, Place

WEST, EAST = Place("west", takes=True, keeps=True), Place("east", takes=True, keeps=True)


def task(name: str = "main", replicas: int = 4, **fields: object) -> objects_pb2.Task:
    task = objects_pb2.Task(name=name, replicas=replicas, gang=True, **fields)  # type: ignore[arg-type]
    task.resources.requests.CopyFrom(Vector(1_000, 512).to_proto())
    return task


def paths(spec: objects_pb2.WorkloadSpec, **cpus: int) -> list[str]:
    summaries = {
        name: objects_pb2.RegionSummary(capacity=Vector(cpu, 10**6 * bool(cpu)).to_proto())
        for name, cpu in cpus.items()
    }
    return [mistake.path for mistake in mistakes_in_gang(spec, list(cpus), summaries)]


def test_a_gang_larger_than_every_region_is_refused() -> None:
    spec = objects_pb2.WorkloadSpec(tasks=[task(), task("other", replicas=3)])
    assert paths(spec, west=6_000, east=5_000) == ["spec.tasks[0].gang"]
    assert paths(spec, west=7_000, east=5_000) == []
    assert paths(spec, west=0, east=5_000) == [], "the nodes of one are not known yet"


def test_a_gang_is_not_split() -> None:
    spread = objects_pb2.Spread(strategy=objects_pb2.SPREAD_STRATEGY_EVEN)
    assert paths(objects_pb2.WorkloadSpec(tasks=[task()], spread=spread)) == ["spec.spread.strategy"]


def test_members_run_at_once() -> None:
    assert paths(objects_pb2.WorkloadSpec(tasks=[task(parallelism=2)])) == ["spec.tasks[0].parallelism"]
    spec = objects_pb2.WorkloadSpec(tasks=[task(), task("b", depends_on=["main"])])
    assert paths(spec) == ["spec.tasks[1].dependsOn"]


def at_home(told: dict[str, int], *, stuck: int = 0, **room: int) -> str:
    return home([WEST, EAST], told, [4], [Outlook(room, {"west": stuck})])


def test_it_goes_where_all_of_it_has_room() -> None:
    assert at_home({}, west=3, east=4) == "east"
    assert at_home({}, west=3, east=3) == "west", "the first waits for room"


def test_it_stays_where_it_runs_and_leaves_where_all_of_it_is_stuck() -> None:
    assert at_home({"west": 4}, east=9) == "west"
    assert at_home({"west": 4}, stuck=3, east=9) == "west", "one of it runs"
    assert at_home({"west": 4}, stuck=4, east=9) == "east"
    assert at_home({"west": 4}, stuck=4, east=3) == "west"


def test_it_leaves_a_region_that_gives_it_up() -> None:
    drained = Place("west", takes=False, keeps=False)
    assert home([drained, EAST], {"west": 4}, [4], [Outlook({"east": 0})]) == "east"
    assert home([drained], {"west": 4}, [4], [Outlook()]) == "west", "there is no other"
    assert home([drained], {}, [4], [Outlook()]) == ""
