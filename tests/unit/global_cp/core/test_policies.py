"""What a policy makes of the strategies that a share's tasks name."""

from atoll.api.v1 import objects_pb2
from atoll.store import keys
from atoll.store.store import KeyValue
from global_cp.core import policies
from global_cp.core.policy_rules import complete_policy
from global_cp.core.records import Records
from tests.support.global_core import policy


def _records(*documents: objects_pb2.SchedulerPolicy, **force: object) -> Records:
    records, stored = Records(), []
    for number, document in enumerate(documents, 1):
        complete = complete_policy(document)
        complete.metadata.generation = number
        stored.append((keys.policy(number), complete.SerializeToString()))
    in_force = objects_pb2.PolicyInForce(**force)  # type: ignore[arg-type]
    stored.append((keys.policy_in_force(), in_force.SerializeToString()))
    for key, value in stored:
        records.adopt(key, KeyValue(key, value, 1, 1, 1))
    return records


def _share(records: Records, *names: str, region: str = "north", default: str = "bin-pack") -> objects_pb2.Share:
    tasks = [objects_pb2.Task(name=f"t{i}", strategy=name) for i, name in enumerate(names)]
    share = objects_pb2.Share(region=region, spec=objects_pb2.WorkloadSpec(tasks=tasks))
    policies.stamp(records, default, share)
    return share


def _weights(share: objects_pb2.Share) -> dict[str, dict[str, float]]:
    return {each.name: {one.score: one.weight for one in each.weights} for each in share.strategies}


def test_what_is_built_in_is_not_written_into_shares() -> None:
    share = _share(_records(policy(cost={"warm": 1}), policy_revision=1), "", "spread", "bin-pack")
    assert share.policy_revision == 1 and not share.strategies and not share.default_strategy


def test_a_share_has_what_is_not_built_in_without_weights_of_nothing() -> None:
    records = _records(
        policy(spread={"apart": 1, "preferred": 0}, mine={"warm": 1}, unused={"warm": 1}), policy_revision=1
    )
    assert _weights(_share(records, "spread", "mine", "cost")) == {
        "mine": {"warm": 1, "preferred": 2, "untainted": 4},
        "spread": {"apart": 1, "untainted": 4},
    }


def test_tasks_that_name_none_get_the_policys_default_else_that_of_the_settings() -> None:
    document = policy(mine={"warm": 1})
    assert _share(_records(document, policy_revision=1), "", default="cost").default_strategy == "cost"
    document.spec.default_strategy = "mine"
    share = _share(_records(document, policy_revision=1), "", default="cost")
    assert share.default_strategy == "mine" and list(_weights(share)) == ["mine"]
    assert not _share(_records(document, policy_revision=1), "cost").default_strategy


def test_a_canary_is_in_force_in_its_regions_alone() -> None:
    records = _records(
        policy(mine={"warm": 1}),
        policy(mine={"apart": 1}),
        policy_revision=1,
        canary_revision=2,
        canary_regions=["south"],
    )
    north, south = _share(records, "mine"), _share(records, "mine", region="south")
    assert (north.policy_revision, south.policy_revision) == (1, 2)
    assert "warm" in _weights(north)["mine"] and "apart" in _weights(south)["mine"]


def test_a_strategy_that_is_gone_weighs_what_the_default_does() -> None:
    document = policy(mine={"warm": 1})
    document.spec.default_strategy = "mine"
    share = _share(_records(document, policy_revision=1), "gone")
    assert _weights(share) == {"gone": {"warm": 1, "preferred": 2, "untainted": 4}}
    assert _weights(_share(_records(), "gone"))["gone"]["fullness"] == 1


def test_the_built_in_policy_shows_all_weights() -> None:
    shown = policies.shown(_records(), 0)
    assert shown is not None and shown.status.in_force and len(shown.spec.strategies) == 19
    assert policies.shown(_records(), 1) is None
