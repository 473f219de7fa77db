"""What a policy may say, and its complete form."""

from collections.abc import Callable

import pytest

from atoll.api.v1 import objects_pb2
from atoll.model import strategies
from global_cp.core.policies import built_in
from global_cp.core.policy_rules import complete_policy, mistakes_in_policy
from tests.support.global_core import policy

AT = "spec.strategies[0]"


def _first(document: objects_pb2.SchedulerPolicy) -> objects_pb2.Strategy:
    return document.spec.strategies[0]


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        ("metadata.name", lambda p: setattr(p.metadata, "name", "A/B")),
        ("spec.defaultStrategy", lambda p: setattr(p.spec, "default_strategy", "cleverest")),
        (f"{AT}.name", lambda p: setattr(_first(p), "name", "?")),
        ("spec.strategies[1].name", lambda p: p.spec.strategies.append(_first(p))),
        (f"{AT}.weights[1].score", lambda p: _first(p).weights.add(score="beauty", weight=1)),
        (f"{AT}.weights[1].score", lambda p: _first(p).weights.add(score="emptiness", weight=1)),
        (f"{AT}.weights[0].weight", lambda p: setattr(_first(p).weights[0], "weight", 1_001)),
        (f"{AT}.weights[1].weight", lambda p: _first(p).weights.add(score="warm", weight=-1)),
        (f"{AT}.weights[1].weight", lambda p: _first(p).weights.add(score="warm", weight=float("nan"))),
        (f"{AT}.weights", lambda p: setattr(_first(p).weights[0], "weight", 0)),
        (f"{AT}.weights", lambda p: setattr(_first(p).weights[0], "score", "preferred")),
        ("spec.strategies", lambda p: p.spec.strategies.extend([_first(p)] * 64)),
    ],
)
def test_each_mistake_has_its_path(path: str, wrong: Callable[[objects_pb2.SchedulerPolicy], object]) -> None:
    document = policy(gentle={"emptiness": 1})
    assert mistakes_in_policy(document) == []
    wrong(document)
    assert [mistake.path for mistake in mistakes_in_policy(document)] == [path]


def test_the_complete_form_has_the_wishes_and_one_order() -> None:
    said = policy(later={"warm": 1, "apart": 2}, gentle={"emptiness": 1, "untainted": 0})
    complete = complete_policy(said)
    assert [one.name for one in complete.spec.strategies] == ["gentle", "later"]
    gentle, later = ({one.score: one.weight for one in each.weights} for each in complete.spec.strategies)
    assert gentle == {"emptiness": 1, "preferred": 2, "untainted": 0}
    assert later == {"apart": 2, "preferred": 2, "untainted": 4, "warm": 1}
    assert complete_policy(complete) == complete


def test_a_built_in_strategy_in_full_is_the_built_in_one() -> None:
    for name, weights in strategies.WEIGHTS.items():
        document = policy(**{name: dict(weights)})
        assert mistakes_in_policy(document) == [] and complete_policy(document).spec.strategies[0] == built_in(name)
