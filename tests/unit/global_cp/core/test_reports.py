"""What is kept of the regions' words, and what of it counts."""

from atoll.api.v1 import objects_pb2
from atoll.model.resources import NOTHING
from global_cp.core.reports import Reports
from tests.support.global_core import UNIT, report, workload


def _share(generation: int = 1, name: str = "web", region: str = "north") -> objects_pb2.Share:
    spec = workload(replicas=3).spec
    metadata = objects_pb2.Metadata(tenant="acme", name=name, uid="u", generation=generation)
    return objects_pb2.Share(metadata=metadata, region=region, spec=spec)


def test_what_has_ended_counts_for_the_generation_it_was_said_of() -> None:
    reports, first = Reports(10), _share()
    said = report(first)
    said.tasks.add(task="main", desired=3, ended=2)
    assert reports.heard(first, said, 0) and reports.ended("acme", "north") == UNIT * 2
    reports.told(("acme", "web"), "north", second := _share(2))
    assert reports.ended("acme", "north") == NOTHING
    assert not reports.heard(second, said, 0) and reports.ended("acme", "north") == NOTHING, "a late word"
    reports.told(("acme", "web"), "north", first)
    assert reports.ended("acme", "north") == UNIT * 2


def test_a_task_that_is_no_more_waits_no_more() -> None:
    reports, share = Reports(10), _share()
    said = report(share)
    said.tasks.add(task="main", desired=3, unplaced=1)
    reports.heard(share, said, 0)
    assert list(reports.with_unplaced()) == [("acme", "web")]
    reports.heard(share, said, 5)
    assert (reports.stuck(share, "main", 9), reports.stuck(share, "main", 10)) == (0, 1), "without a break"
    said.tasks[0].task = "other"
    said.tasks[0].unplaced = 0
    reports.heard(share, said, 20)
    assert not reports.with_unplaced()


def _hear(reports: Reports, name: str, region: str, unplaced: int) -> None:
    said = report(share := _share(name=name, region=region))
    said.tasks.add(task="main", desired=3, unplaced=unplaced)
    reports.heard(share, said, 0)


def test_who_waits_is_followed_over_all_regions_without_being_listed_again() -> None:
    reports = Reports(10)
    waiting = reports.with_unplaced()
    assert not waiting
    for name, region in (("web", "north"), ("db", "north"), ("web", "south"), ("web", "north")):
        _hear(reports, name, region, 1)
    assert list(waiting) == [("acme", "web"), ("acme", "db")], "once each, who began to wait first"
    _hear(reports, "web", "north", 0)
    assert ("acme", "web") in waiting, "it does in the south"
    reports.forget(("acme", "web"), "south")
    reports.forget(("acme", "web"), "north")
    assert list(waiting) == [("acme", "db")]
    _hear(reports, "web", "north", 2)
    assert list(waiting) == [("acme", "db"), ("acme", "web")]
