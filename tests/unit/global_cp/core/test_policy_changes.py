"""Revisions are made, promoted, tried and rolled back; and what is refused."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import global_pb2
from atoll.errors import AtollError, Conflict, Invalid, NotFound
from atoll.store import keys
from global_cp.config import CoreSettings
from global_cp.core import policies, policy_changes
from tests.support.global_core import GlobalCore, policy, workload


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore()
    world.elect()
    world.tenant()
    world.connect(1)
    world.connect(2, "south")
    yield world
    world.clean()


def _make(core: GlobalCore, **strategies: dict[str, float]) -> int:
    answer = core.ask(global_pb2.ApplyPolicyRequest(policy=policy(**strategies)))
    assert isinstance(answer, global_pb2.ApplyPolicyResponse)
    return answer.policy.metadata.generation


def _promote(core: GlobalCore, number: int, *regions: str) -> object:
    return core.ask(global_pb2.PromotePolicyRequest(policy_revision=number, regions=regions))


def _roll_back(core: GlobalCore, number: int | None = None) -> object:
    return core.ask(global_pb2.RollBackPolicyRequest(policy_revision=number))


def _force(core: GlobalCore) -> tuple[int, list[int], int, list[str]]:
    force = policies.in_force(core.records)
    return force.policy_revision, list(force.earlier), force.canary_revision, list(force.canary_regions)


def test_revisions_are_numbered_and_the_newest_is_not_made_twice(core: GlobalCore) -> None:
    assert [_make(core, mine={"warm": 1}), _make(core, mine={"warm": 1}), _make(core, mine={"warm": 2})] == [1, 1, 2]
    assert _make(core, mine={"warm": 1}) == 3
    stored = [document.metadata.generation for document in policies.all_shown(core.records)]
    assert stored == [0, 1, 2, 3] and _force(core) == (0, [], 0, [])


def test_a_dry_run_makes_none_and_mistakes_have_their_places(core: GlobalCore) -> None:
    before = core.state.revision
    answer = core.ask(global_pb2.ApplyPolicyRequest(policy=policy(mine={"warm": 1}), dry_run=True))
    assert isinstance(answer, global_pb2.ApplyPolicyResponse) and answer.outcome == "created"
    refused = core.ask(global_pb2.ApplyPolicyRequest(policy=policy(mine={"beauty": 1})))
    assert isinstance(refused, Invalid) and refused.mistakes[0].path == "spec.strategies[0].weights[0].score"
    assert core.state.revision == before


def test_the_same_request_again_gets_the_same_answer(core: GlobalCore) -> None:
    request = global_pb2.ApplyPolicyRequest(policy=policy(mine={"warm": 1}), request_id="once")
    first = core.ask(request)
    _make(core, mine={"warm": 2})
    assert core.ask(request) == first


def test_promote_canary_and_the_ways_back(core: GlobalCore) -> None:
    one, two = _make(core, mine={"warm": 1}), _make(core, mine={"warm": 2})
    _promote(core, one)
    _promote(core, two, "south", "south")
    assert _force(core) == (one, [0], two, ["south"])
    _roll_back(core)
    assert _force(core) == (one, [0], 0, [])
    _promote(core, two, "south")
    _promote(core, two)
    assert _force(core) == (two, [0, one], 0, [])
    unchanged = _promote(core, two)
    assert isinstance(unchanged, global_pb2.ChangePolicyResponse) and unchanged.outcome == "unchanged"
    _roll_back(core)
    assert _force(core) == (one, [0], 0, [])
    _promote(core, two)
    _roll_back(core, 0)
    assert _force(core) == (0, [], 0, [])
    assert getattr(_roll_back(core), "code", "") == policy_changes.NOTHING_BEFORE


def test_what_is_not_there_is_not_put_in_force(core: GlobalCore) -> None:
    number = _make(core, mine={"warm": 1})
    assert isinstance(_promote(core, 7), NotFound) and isinstance(_roll_back(core, 7), NotFound)
    wrong = _promote(core, number, "atlantis")
    assert isinstance(wrong, Invalid) and "atlantis" in wrong.mistakes[0].message


def test_a_task_may_name_what_the_policies_of_its_regions_know(core: GlobalCore) -> None:
    def apply(name: str, *regions: str) -> object:
        document = workload(name, regions=regions)
        document.spec.tasks[0].strategy = "mine"
        return core.apply(document)

    refused = apply("a")
    assert isinstance(refused, Invalid) and refused.mistakes[0].path == "spec.tasks[0].strategy"
    _promote(core, _make(core, mine={"warm": 1}), "south")
    assert isinstance(apply("a"), Invalid) and isinstance(apply("a", "north"), Invalid)
    assert isinstance(apply("a", "south"), global_pb2.ApplyWorkloadResponse)
    _promote(core, 1)
    assert isinstance(apply("b"), global_pb2.ApplyWorkloadResponse)


def test_a_promotion_never_takes_a_strategy_away_and_a_rollback_tells_from_whom(core: GlobalCore) -> None:
    _promote(core, _make(core, mine={"warm": 1}))
    document = workload("web")
    document.spec.tasks[0].strategy = "mine"
    core.apply(document)
    other = _make(core, other={"warm": 1})
    for refused in (_promote(core, other), _promote(core, other, "south")):
        assert isinstance(refused, Conflict) and refused.code == policy_changes.STRATEGY_IN_USE
        assert "acme/web" in refused.message
    answer = _roll_back(core)
    assert isinstance(answer, global_pb2.ChangePolicyResponse) and list(answer.without_strategy) == ["acme/web"]
    share = core.records.shares.get("north", "acme", "web")
    assert share is not None and [one.name for one in share.strategies] == ["mine"]
    assert {one.score for one in share.strategies[0].weights} == {"fullness", "warm", "preferred", "untainted"}
    assert isinstance(_promote(core, other), global_pb2.ChangePolicyResponse)  # it is gone already


def test_only_the_newest_revisions_are_kept_and_those_that_a_rollback_needs(
    core: GlobalCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_changes, "MOST_REVISIONS", 3)
    for weight in range(1, 4):
        _make(core, mine={"warm": weight})
    _promote(core, 1)
    assert _make(core, mine={"warm": 4}) == 4 and policies.numbers_of(core.records) == [1, 3, 4]


def test_a_promotion_that_was_overtaken_is_decided_anew(core: GlobalCore) -> None:
    _make(core, mine={"warm": 1})
    core.hold_commits = True
    asked = [
        core.start(global_pb2.PromotePolicyRequest(policy_revision=1)),
        core.start(global_pb2.RollBackPolicyRequest()),
    ]
    core.hold_commits = False
    core.release()
    answers = [core.replies[number].answer for number in asked]
    assert not any(isinstance(answer, AtollError) for answer in answers) and _force(core) == (0, [], 0, [])
    assert core.state.get(keys.policy_in_force()) is not None


def test_no_workload_names_what_a_rollback_under_way_takes_away() -> None:
    core = GlobalCore(CoreSettings(lanes=2))
    core.elect()
    core.tenant()
    core.connect(1)
    _promote(core, _make(core, mine={"warm": 1}))
    core.hold_commits = True
    back = core.start(global_pb2.RollBackPolicyRequest())
    document = workload("late")
    document.spec.tasks[0].strategy = "mine"
    late = core.start(global_pb2.ApplyWorkloadRequest(workload=document))
    core.hold_commits = False
    core.release()
    assert isinstance(core.replies[back].answer, global_pb2.ChangePolicyResponse)
    assert isinstance(core.replies[late].answer, Invalid)
    core.clean()


def test_each_change_is_told_once_with_who_made_it(core: GlobalCore) -> None:
    _make(core, mine={"warm": 1})
    _make(core, mine={"warm": 1})
    _promote(core, 1, "south")
    _promote(core, 1)
    _promote(core, 1)
    _roll_back(core)
    request = global_pb2.RollBackPolicyRequest(policy_revision=1, request_id="twice")
    core.ask(request)
    core.ask(request)
    told = [(event.type, event.object, event.message) for event in core.announced]
    assert told == [
        ("PolicyCreated", "policy/1", f"{policy().metadata.name}, by ann"),
        ("PolicyCanary", "policy/1", "1 on trial in south, else 0; before: 0 everywhere, by ann"),
        ("PolicyPromoted", "policy/1", "1 everywhere; before: 1 on trial in south, else 0, by ann"),
        ("PolicyRolledBack", "policy/0", "0 everywhere; before: 1 everywhere, by ann"),
        ("PolicyRolledBack", "policy/1", "1 everywhere; before: 0 everywhere, by ann"),
    ]
    assert all(event.at_ms and not event.tenant for event in core.announced)


def test_what_a_rollback_took_from_a_workload_is_no_reason_to_refuse_a_change_of_it(core: GlobalCore) -> None:
    _promote(core, _make(core, mine={"warm": 1}))
    named = workload()
    named.spec.tasks[0].strategy = "mine"
    core.apply(named)
    assert isinstance(_roll_back(core), global_pb2.ChangePolicyResponse)
    named.spec.tasks[0].replicas += 1
    answer = core.apply(named)
    assert isinstance(answer, global_pb2.ApplyWorkloadResponse) and answer.outcome == "updated"
    named.metadata.name = "another"
    assert isinstance(core.apply(named), Invalid)
