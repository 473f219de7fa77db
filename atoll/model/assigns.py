"""One Assign may start several replicas of a task on a node: each one's own, as agents keep it."""

from collections.abc import Iterator

from atoll.api.v1 import agent_pb2


def each(assign: agent_pb2.Assign) -> Iterator[agent_pb2.Assign]:
    """The Assign of each replica it names, the first one's first."""
    if not assign.also:
        yield assign
        return
    first = agent_pb2.Assign()
    first.CopyFrom(assign)
    first.ClearField("also")
    yield first
    for other in assign.also:
        one = agent_pb2.Assign()
        one.CopyFrom(first)
        one.slot.index = other.index
        one.token.attempt.CopyFrom(other.attempt)
        one.gpus[:] = other.gpus
        yield one
