"""Whatever bytes parse as a request get one answer, and nothing half done: the core lives and the store stays clean."""

import hypothesis.strategies as st
from google.protobuf.message import DecodeError, Message
from hypothesis import example, given, settings

from atoll.api.v1 import global_pb2, objects_pb2
from atoll.model.strategies import SCORES
from tests.support.global_core import GlobalCore, policy, tenant, workload

GOOD = global_pb2.ApplyWorkloadRequest(workload=workload(), request_id="r").SerializeToString()
EXTREMES = [0, 1, -1, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63)]


@settings(max_examples=300, deadline=None)
@given(cut=st.integers(0, len(GOOD)), junk=st.binary(max_size=40), keep=st.integers(0, len(GOOD)))
@example(cut=0, junk=b"", keep=0)
def test_spoiled_bytes(cut: int, junk: bytes, keep: int) -> None:
    try:
        request = global_pb2.ApplyWorkloadRequest.FromString(GOOD[:cut] + junk + GOOD[keep:])
    except DecodeError:
        return
    _ask(request)


@settings(max_examples=200, deadline=None)
@given(
    amounts=st.lists(st.sampled_from(EXTREMES), min_size=8, max_size=8),
    replicas=st.sampled_from([0, 1, 10_000, 2**31 - 1, -(2**31)]),
    text=st.text(max_size=30),
    on_quota=st.integers(0, 5),
)
def test_extreme_values(amounts: list[int], replicas: int, text: str, on_quota: int) -> None:
    spoiled = workload(replicas=replicas, on_quota=on_quota)
    task = spoiled.spec.tasks[0]
    names = ("cpu_milli", "memory_mib", "disk_mib", "gpu_milli")
    for index, name in enumerate(names):
        setattr(task.resources.requests, name, amounts[index])
        setattr(task.resources.limits, name, amounts[index + 4])
    task.readiness.http.path = text
    task.termination_grace_s = amounts[0]
    spoiled.metadata.labels.add(key=text, value=text)
    _ask(global_pb2.ApplyWorkloadRequest(workload=spoiled))
    quota = tenant()
    for index, name in enumerate(names):
        setattr(quota.spec.quota, name, amounts[index])
    _ask(global_pb2.ApplyTenantRequest(tenant=quota))


@settings(max_examples=100, deadline=None)
@given(
    text=st.text(max_size=80),
    weights=st.lists(st.tuples(st.text(max_size=9) | st.sampled_from(SCORES), st.floats()), max_size=4),
    regions=st.lists(st.text(max_size=9) | st.just("north"), max_size=2),
    number=st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2),
)
def test_extreme_policies(text: str, weights: list[tuple[str, float]], regions: list[str], number: int) -> None:
    scores = [objects_pb2.ScoreWeight(score=score, weight=weight) for score, weight in weights]
    spoiled = policy(text)
    spoiled.spec.strategies.add(name="mine", weights=scores)
    spoiled.spec.default_strategy = text
    good = global_pb2.ApplyPolicyRequest(policy=policy(mine={"warm": 1}))
    change = global_pb2.PromotePolicyRequest(policy_revision=number, regions=regions)
    back = global_pb2.RollBackPolicyRequest(policy_revision=number)
    _ask(good, global_pb2.ApplyPolicyRequest(policy=spoiled), change, back)


def _ask(*requests: Message) -> None:
    core = GlobalCore()
    core.elect()
    core.connect(1)
    core.say(1, summary=objects_pb2.RegionSummary(nodes_total=1))
    core.tenant()
    for request in requests:
        core.ask(request)
    core.pass_time(500)
    core.clean()
