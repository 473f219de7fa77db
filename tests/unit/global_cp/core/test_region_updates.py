"""Labels of regions, and the operator's word on whether they take work."""

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Conflict, Invalid, NotFound
from global_cp.core.region_updates import MOST_LABELS, legal_labels
from tests.support.global_core import GlobalCore


def _core(**labels: str) -> GlobalCore:
    core = GlobalCore()
    core.elect()
    core.connect(1, "north", **labels)
    return core


def _region(core: GlobalCore) -> objects_pb2.Region:
    region = core.records.regions.get("north")
    assert region is not None
    return region


def _labels(core: GlobalCore) -> dict[str, str]:
    return {label.key: label.value for label in _region(core).metadata.labels}


def _update(core: GlobalCore, **fields: object) -> object:
    return core.ask(global_pb2.UpdateRegionRequest(name="north", **fields))  # type: ignore[arg-type]


def test_labels_follow_the_regions_settings_until_an_operator_changes_it() -> None:
    core = _core(jurisdiction="eu")
    assert _labels(core) == {"jurisdiction": "eu"}
    core.connect(2, "north", jurisdiction="us", zone="z")
    assert _labels(core) == {"jurisdiction": "us", "zone": "z"}
    _update(core, labels=[objects_pb2.Label(key="jurisdiction", value="ch")], removed_labels=["zone"])
    core.connect(3, "north", jurisdiction="us")
    assert _labels(core) == {"jurisdiction": "ch"}
    core.clean()


def test_what_a_region_may_not_be_labelled_is_left_out_of_its_hello() -> None:
    bad = objects_pb2.Label(key="no spaces", value="x")
    good = [objects_pb2.Label(key=f"k{n:02}", value="v") for n in range(MOST_LABELS + 9)]
    assert legal_labels([bad, *good]) == good[: MOST_LABELS - 1]


def test_draining_cordons_and_uncordoning_ends_the_drain() -> None:
    core = _core()
    answer = _update(core, draining=True)
    assert isinstance(answer, global_pb2.UpdateRegionResponse) and answer.outcome == "updated" and answer.revision
    assert _region(core).draining and _region(core).cordoned
    again = _update(core, draining=True)
    assert isinstance(again, global_pb2.UpdateRegionResponse) and again.outcome == "unchanged"
    assert again.region.metadata.generation == answer.region.metadata.generation
    _update(core, cordoned=False)
    assert not _region(core).draining and not _region(core).cordoned
    core.clean()


def test_mistakes_are_told() -> None:
    core = _core()
    assert isinstance(core.ask(global_pb2.UpdateRegionRequest(name="south")), NotFound)
    refused = _update(core, labels=[objects_pb2.Label(key="a b", value="c d")])
    assert isinstance(refused, Invalid) and [mistake.path for mistake in refused.mistakes] == ["labels[0]"] * 2
    assert isinstance(_update(core, cordoned=True, if_generation=7), Conflict)
    assert not _region(core).cordoned
    core.clean()


def test_a_request_is_done_once() -> None:
    core = _core()
    first = _update(core, cordoned=True, request_id="x")
    _update(core, cordoned=False)
    assert _update(core, cordoned=True, request_id="x") == first
    assert not _region(core).cordoned
