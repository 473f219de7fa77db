"""Every mistake in a spread has its path; what is only closed just now is none."""

from collections.abc import Callable

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.errors import Invalid
from global_cp.core.defaults import complete_workload
from global_cp.core.spread_rules import mistakes_in_spread
from tests.support.global_core import GlobalCore, workload

EVEN, FIXED = objects_pb2.SPREAD_STRATEGY_EVEN, objects_pb2.SPREAD_STRATEGY_FIXED
Spec = objects_pb2.WorkloadSpec


def _law(value: str) -> objects_pb2.LabelRequirement:
    return objects_pb2.LabelRequirement(key="law", operator=objects_pb2.SELECTOR_OPERATOR_IN, values=[value])


def _regions() -> dict[str, objects_pb2.Region]:
    return {
        name: objects_pb2.Region(
            metadata=objects_pb2.Metadata(name=name, labels=[objects_pb2.Label(key="law", value=law)]),
            state=objects_pb2.REGION_STATE_ACTIVE,
            cordoned=name == "closed",
        )
        for name, law in (("north", "eu"), ("south", "us"), ("closed", "eu"))
    }


def _fix(spec: Spec, **counts: int) -> None:
    del spec.spread.fixed[:]
    spec.spread.strategy = FIXED
    for name, count in counts.items():
        spec.spread.fixed.add(region=name, replicas=count)


BAD: list[tuple[str, Callable[[Spec], object]]] = [
    ("spec.regions[1]", lambda s: s.regions.extend(["north", "nowhere"])),
    ("spec.regions[1]", lambda s: s.regions.extend(["north", "north"])),
    ("spec.spread.fixed", lambda s: setattr(s.spread, "strategy", FIXED)),
    ("spec.spread.fixed", lambda s: (_fix(s, north=2), setattr(s.spread, "strategy", EVEN))),
    ("spec.spread.fixed[1].region", lambda s: _fix(s, north=2, nowhere=0)),
    ("spec.spread.fixed[1].region", lambda s: (_fix(s, north=2), s.spread.fixed.add(region="north"))),
    ("spec.spread.fixed[1].replicas", lambda s: _fix(s, north=3, south=-1)),
    ("spec.spread.fixed[0].region", lambda s: (_fix(s, north=2), s.regions.append("south"))),
    ("spec.tasks[0].replicas", lambda s: _fix(s, north=2, south=1)),
    ("spec.spread.residency[0]", lambda s: s.spread.residency.add(key="a b")),
    ("spec.spread.residency", lambda s: s.spread.residency.append(_law("mars"))),
    ("spec.spread.residency", lambda s: (s.spread.residency.append(_law("eu")), s.regions.append("south"))),
    ("spec.spread.fixed[0].region", lambda s: (_fix(s, south=1, north=1), s.spread.residency.append(_law("eu")))),
]


@pytest.mark.parametrize(("path", "break_it"), BAD)
def test_a_mistake_has_its_path(path: str, break_it: Callable[[Spec], object]) -> None:
    spec = complete_workload(workload(replicas=2)).spec
    assert not list(mistakes_in_spread(spec, _regions()))
    break_it(spec)
    assert [mistake.path for mistake in mistakes_in_spread(spec, _regions())] == [path]


def test_a_closed_region_is_no_mistake() -> None:
    spec = complete_workload(workload(regions=["closed"], spread=objects_pb2.Spread(residency=[_law("eu")]))).spec
    assert not list(mistakes_in_spread(spec, _regions()))


def test_fixed_counts_are_not_scaled() -> None:
    core = GlobalCore()
    core.elect()
    core.connect(1, "north")
    core.tenant()
    fixed = [objects_pb2.RegionReplicas(region="north", replicas=2)]
    core.apply(workload(replicas=0, spread=objects_pb2.Spread(fixed=fixed)))
    refused = core.ask(global_pb2.ScaleWorkloadRequest(tenant="acme", name="web", replicas=3))
    assert isinstance(refused, Invalid) and "spec.spread.fixed" in refused.mistakes[0].message
