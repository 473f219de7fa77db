"""What a policy may say: every mistake at once, with its path; and its complete form.

Weights count in proportion to each other. What the user and the operator wish (`preferred`, `untainted`) is weighed
as under the built-in strategies unless the policy says otherwise.
"""

from collections.abc import Iterator

from atoll.api.v1 import objects_pb2
from atoll.errors import Mistake
from atoll.model import strategies
from atoll.model.names import mistake_in_name
from global_cp.core.admission import mistakes_in_metadata

MOST_STRATEGIES = 64
LARGEST_WEIGHT = 1_000
_DIGITS = 12  # of a weight, behind the point: no two spellings of one
_WISHES = dict(strategies.WISHES)


def complete_policy(policy: objects_pb2.SchedulerPolicy) -> objects_pb2.SchedulerPolicy:
    """A new document with what users may say, in one order."""
    said = policy.metadata
    result = objects_pb2.SchedulerPolicy(
        metadata=objects_pb2.Metadata(
            name=said.name,
            labels=sorted(said.labels, key=lambda label: label.key),
            annotations=sorted(said.annotations, key=lambda label: label.key),
        ),
        spec=objects_pb2.SchedulerPolicySpec(default_strategy=policy.spec.default_strategy),
    )
    for strategy in sorted(policy.spec.strategies, key=lambda one: one.name):
        said_of = [one.score for one in strategy.weights]
        wishes = [(score, weight) for score, weight in _WISHES.items() if score not in said_of]
        weights = [*((one.score, round(one.weight, _DIGITS)) for one in strategy.weights), *wishes]
        result.spec.strategies.add(
            name=strategy.name,
            weights=[objects_pb2.ScoreWeight(score=score, weight=weight) for score, weight in sorted(weights)],
            decreasing=strategy.decreasing or strategy.name in strategies.DECREASING,
        )
    return result


def mistakes_in_policy(policy: objects_pb2.SchedulerPolicy) -> list[Mistake]:
    """Of what the user wrote, so that paths are where he wrote it."""
    spec = policy.spec
    found = list(mistakes_in_metadata(policy.metadata))
    if len(spec.strategies) > MOST_STRATEGIES:
        found.append(
            Mistake("spec.strategies", f"has {len(spec.strategies)} entries; at most {MOST_STRATEGIES} are allowed")
        )
        return found
    names: set[str] = set()
    for index, strategy in enumerate(spec.strategies):
        path = f"spec.strategies[{index}]"
        if mistake := mistake_in_name(strategy.name):
            found.append(Mistake(f"{path}.name", mistake))
        elif strategy.name in names:
            found.append(Mistake(f"{path}.name", f"{strategy.name!r} is there twice"))
        names.add(strategy.name)
        found += _weights(strategy, path)
    if spec.default_strategy and spec.default_strategy not in {*names, *strategies.STRATEGIES}:
        mistake = f"{spec.default_strategy[:40]!r} is neither a strategy of this policy nor built in"
        found.append(Mistake("spec.defaultStrategy", mistake))
    return found


def _weights(strategy: objects_pb2.Strategy, path: str) -> Iterator[Mistake]:
    scores: set[str] = set()
    for index, one in enumerate(strategy.weights):
        here = f"{path}.weights[{index}]"
        if one.score not in strategies.SCORES:
            known = ", ".join(sorted(strategies.SCORES))
            yield Mistake(f"{here}.score", f"{one.score[:40]!r} is not a score; known are: {known}")
        elif one.score in scores:
            yield Mistake(f"{here}.score", f"{one.score!r} is there twice")
        scores.add(one.score)
        if not 0 <= one.weight <= LARGEST_WEIGHT:  # also what is no number
            yield Mistake(f"{here}.weight", f"{one.weight:g} is not allowed: 0 to {LARGEST_WEIGHT}")
    if not any(one.weight > 0 for one in strategy.weights if one.score not in _WISHES):
        yield Mistake(f"{path}.weights", f"one score beside {' and '.join(_WISHES)} must weigh more than 0")
