"""One Assign for several replicas, and each one's own."""

from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model import assigns


def one(index: int, n: int, gpus: list[int]) -> agent_pb2.Assign:
    return agent_pb2.Assign(
        token=objects_pb2.Token(term=7, attempt=objects_pb2.Attempt(term=7, n=n)),
        slot=objects_pb2.SlotId(tenant="acme", workload="web", task="main", index=index),
        generation=3,
        task=objects_pb2.Task(name="main", command=["serve"]),
        gpus=gpus,
    )


def test_one_for_a_single_replica_is_its_own() -> None:
    assert list(assigns.each(one(4, 9, [1]))) == [one(4, 9, [1])]


def test_others_differ_by_index_attempt_and_devices_alone() -> None:
    together = one(0, 1, [0, 1])
    together.also.add(index=5, attempt=objects_pb2.Attempt(term=7, n=2), gpus=[2])
    together.also.add(index=6, attempt=objects_pb2.Attempt(term=8, n=1))
    last = one(6, 1, [])
    last.token.attempt.term = 8
    before = together.SerializeToString(deterministic=True)
    assert list(assigns.each(together)) == [one(0, 1, [0, 1]), one(5, 2, [2]), last]
    assert together.SerializeToString(deterministic=True) == before
