"""What regions place by: the policy revision in force in each, and what it makes of the strategies that tasks name.

Decides what a share says of the policy (`stamp`); policy_changes.py decides which revision is in force, and
policy_rollout.py when shares are written anew. A share carries the number of the revision and the weights that are not
built in, so a region needs nothing else, and each decision there is pinned to the revision of its share.

A strategy that the policy does not know, because it was rolled back, weighs what the default one does.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.model import strategies
from atoll.store import keys
from global_cp.core.records import Records

BUILT_IN = 0  # the revision that has no record
BUILT_IN_NAME = "built-in"


class Meaning(NamedTuple):
    """Of one revision. `default` is empty where the settings say it."""

    default: str
    known: frozenset[str]  # names of all its strategies
    own: Mapping[str, objects_pb2.Strategy]  # those that are not as they are built in, without weights of 0


def meaning(policy: objects_pb2.SchedulerPolicy | None) -> Meaning:
    own, known = {}, set(strategies.STRATEGIES)
    spec = policy.spec if policy else objects_pb2.SchedulerPolicySpec()
    for strategy in spec.strategies:
        known.add(strategy.name)
        weighing = [one for one in strategy.weights if one.weight]
        if strategy != built_in(strategy.name):
            own[strategy.name] = objects_pb2.Strategy(
                name=strategy.name, weights=weighing, decreasing=strategy.decreasing
            )
    return Meaning(spec.default_strategy, frozenset(known), own)


def built_in(name: str) -> objects_pb2.Strategy | None:
    weights = strategies.WEIGHTS.get(name)
    if weights is None:
        return None
    scores = [objects_pb2.ScoreWeight(score=score, weight=weight) for score, weight in sorted(weights)]
    return objects_pb2.Strategy(name=name, weights=scores, decreasing=name in strategies.DECREASING)


def in_force(records: Records) -> objects_pb2.PolicyInForce:
    """Everywhere; not to be changed."""
    return records.in_force.get("") or objects_pb2.PolicyInForce()


def number_in(force: objects_pb2.PolicyInForce, region: str) -> int:
    return force.canary_revision if region in force.canary_regions else force.policy_revision


def numbers_for(force: objects_pb2.PolicyInForce, regions: Collection[str]) -> set[int]:
    """Of the revisions that may place a workload of these regions; none named: of any."""
    if regions:
        return {number_in(force, region) for region in regions}
    return {force.policy_revision, *([force.canary_revision] if force.canary_regions else ())}


def of(records: Records, number: int) -> Meaning:
    return records.policies.meaning(meaning, str(number))


def unknown_strategies(
    records: Records, force: objects_pb2.PolicyInForce, spec: objects_pb2.WorkloadSpec
) -> Iterator[tuple[int, str, int]]:
    """Tasks that name a strategy that a policy they may be placed by does not have: (task, its strategy, revision)."""
    for number in sorted(numbers_for(force, spec.regions)):
        known = of(records, number).known
        for index, task in enumerate(spec.tasks):
            if task.strategy and task.strategy not in known:
                yield index, task.strategy, number


def stamp(records: Records, default_strategy: str, share: objects_pb2.Share) -> None:
    """Writes into the share by which policy its region places. `default_strategy`: where the policy names none."""
    number = number_in(in_force(records), share.region)
    policy = of(records, number)
    default = policy.default or default_strategy
    names = sorted({task.strategy or default for task in share.spec.tasks})
    unnamed = default != strategies.DEFAULT and any(not task.strategy for task in share.spec.tasks)
    share.policy_revision = number
    share.default_strategy = default if unnamed else ""
    del share.strategies[:]
    share.strategies.extend(_resolved(policy, default, names))


def _resolved(policy: Meaning, default: str, names: Sequence[str]) -> Iterator[objects_pb2.Strategy]:
    for name in names:
        if name in policy.own:
            yield policy.own[name]
        elif name not in policy.known:
            instead = policy.own.get(default) or built_in(default)
            assert instead is not None  # a policy's default is one that it knows, that of the settings is built in
            yield objects_pb2.Strategy(name=name, weights=instead.weights, decreasing=instead.decreasing)


def shown(records: Records, number: int) -> objects_pb2.SchedulerPolicy | None:
    """As users read it; the built-in one with all that it has."""
    stored = records.policies.get(str(number))
    if stored is None and number != BUILT_IN:
        return None
    document = objects_pb2.SchedulerPolicy()
    if stored:
        document.CopyFrom(stored)
        document.metadata.revision = records.mod(keys.policy(number))
    else:
        document.metadata.name = BUILT_IN_NAME
        document.spec.strategies.extend(s for name in sorted(strategies.STRATEGIES) if (s := built_in(name)))
    force = in_force(records)
    document.status.in_force = force.policy_revision == number
    if force.canary_regions and force.canary_revision == number:
        document.status.canary_regions.extend(force.canary_regions)
    return document


def all_shown(records: Records) -> list[objects_pb2.SchedulerPolicy]:
    """The built-in one first, the newest last."""
    numbers = [BUILT_IN, *numbers_of(records)]
    return [document for number in numbers if (document := shown(records, number))]


def numbers_of(records: Records) -> list[int]:
    """Of the stored revisions, the newest last."""
    return sorted(int(path[0]) for path, _ in records.policies.items())
