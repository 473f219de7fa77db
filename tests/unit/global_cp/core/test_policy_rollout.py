"""Shares follow the policy in force, in bounded batches, and nothing else of them changes."""

from collections.abc import Iterator

import pytest

from atoll.api.v1 import global_pb2, objects_pb2
from global_cp.config import CoreSettings
from tests.support.global_core import GlobalCore, policy, workload


@pytest.fixture
def core() -> Iterator[GlobalCore]:
    world = GlobalCore(CoreSettings(policy_batch=3))
    world.elect()
    world.connect(1)
    world.tenant()
    for number in range(10):
        world.apply(workload(f"w{number}", replicas=1))
    world.ask(global_pb2.ApplyPolicyRequest(policy=policy(**{"bin-pack": {"emptiness": 1}})))
    yield world
    world.release()
    world.clean()


def _stamps(core: GlobalCore) -> list[tuple[int, int]]:
    return [(share.policy_revision, len(share.strategies)) for share in core.records.shares]


def _bare(share: objects_pb2.Share) -> bytes:
    copy = objects_pb2.Share()
    copy.CopyFrom(share)
    for name in ("policy_revision", "strategies", "default_strategy"):
        copy.ClearField(name)
    return copy.SerializeToString(deterministic=True)


def test_a_promotion_reaches_every_share_and_a_rollback_undoes_it(core: GlobalCore) -> None:
    before, sent = [_bare(share) for share in core.records.shares], len(core.sent(1, "share"))
    assert _stamps(core) == [(0, 0)] * 10
    core.ask(global_pb2.PromotePolicyRequest(policy_revision=1))
    assert _stamps(core) == [(1, 1)] * 10 and len(core.sent(1, "share")) == sent + 10
    assert [_bare(share) for share in core.records.shares] == before
    core.ask(global_pb2.RollBackPolicyRequest())
    assert _stamps(core) == [(0, 0)] * 10


def test_no_transaction_writes_more_than_a_batch_and_users_are_heard_in_between(core: GlobalCore) -> None:
    core.hold_commits = True
    core.start(global_pb2.PromotePolicyRequest(policy_revision=1))
    core.start(global_pb2.ScaleWorkloadRequest(tenant="acme", name="w9", replicas=2))
    operations, written = [], []
    while core.held:
        plan = core.held[0].plan
        operations.append(plan.operation)
        written += [len(plan.writes)] * (plan.operation == "STAMP-SHARES")
        core.release(1)
    assert sum(written) in (9, 10) and max(written) <= 3  # one share may be written for its scale
    assert operations.index("ADMIT") < len(operations) - 1 - operations[::-1].index("STAMP-SHARES")
    assert _stamps(core) == [(1, 1)] * 10


def test_the_next_leader_goes_on_with_it(core: GlobalCore) -> None:
    core.hold_commits = True
    core.start(global_pb2.PromotePolicyRequest(policy_revision=1))
    core.release(2)  # the promotion, and a first batch
    core.crash(applied=0)
    core.hold_commits = False
    core.elect()
    core.connect(2)
    assert _stamps(core) == [(1, 1)] * 10


def test_a_share_that_was_planned_before_is_written_anew(core: GlobalCore) -> None:
    core.hold_commits = True
    core.start(global_pb2.PromotePolicyRequest(policy_revision=1))
    core.start(global_pb2.ApplyWorkloadRequest(workload=workload("late", replicas=1)))
    core.hold_commits = False
    core.release()
    assert _stamps(core) == [(1, 1)] * 11
