"""Values that name replicas and their tries: hashable, ordered, printable twins of the messages.

Named tuples, because they are the keys of most tables: hashing and comparing them costs a third of a dataclass.
"""

from typing import NamedTuple

from atoll.api.v1 import objects_pb2

SECOND_COPY = 1 << 20  # + i: the index of a second copy of replica i


class SlotName(NamedTuple):
    """The deterministic name of one replica in one region."""

    tenant: str
    workload: str
    task: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a name

    def __str__(self) -> str:
        return f"{self.tenant}/{self.workload}/{self.task}/{self.index}"

    def to_proto(self) -> objects_pb2.SlotId:
        return objects_pb2.SlotId(tenant=self.tenant, workload=self.workload, task=self.task, index=self.index)


def slot_name(slot: objects_pb2.SlotId) -> SlotName:
    return SlotName(slot.tenant, slot.workload, slot.task, slot.index)


class AttemptId(NamedTuple):
    """(term of the binding leader, its counter); ordered, never going back."""

    term: int
    n: int

    def __str__(self) -> str:
        return f"{self.term}.{self.n}"

    def to_proto(self) -> objects_pb2.Attempt:
        return objects_pb2.Attempt(term=self.term, n=self.n)


def attempt_id(attempt: objects_pb2.Attempt) -> AttemptId:
    return AttemptId(attempt.term, attempt.n)


class FencingToken(NamedTuple):
    """What every command to an agent carries; compared in this order."""

    store_life: int
    epoch: int
    term: int
    attempt: AttemptId

    def to_proto(self) -> objects_pb2.Token:
        return objects_pb2.Token(
            store_life=self.store_life, epoch=self.epoch, term=self.term, attempt=self.attempt.to_proto()
        )


def fencing_token(token: objects_pb2.Token) -> FencingToken:
    return FencingToken(token.store_life, token.epoch, token.term, attempt_id(token.attempt))
