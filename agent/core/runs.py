"""Values that name and describe one run: a container or a process group on this node.

A run is named by its slot and its rank, (store life, attempt): ranks of one slot never go back, so a name is never used
for two different attempts. The name is legal as a file, a container and a cgroup.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from atoll.api.v1 import objects_pb2
from atoll.model.slots import AttemptId, FencingToken, SlotName

_RUN = re.compile(r"([^.]+)\.([^.]+)\.([^.]+)\.(\d+)\.(\d+)-(\d+)-(\d+)")


class Rank(NamedTuple):
    """What orders the attempts of one slot: a restored store may count attempts anew, in a higher life."""

    store_life: int
    attempt: AttemptId

    def __str__(self) -> str:
        return f"{self.store_life}.{self.attempt}"


LOWEST = Rank(-1, AttemptId(-1, -1))


def rank_of(token: FencingToken) -> Rank:
    return Rank(token.store_life, token.attempt)


class RunName(NamedTuple):
    slot: SlotName
    rank: Rank

    def __str__(self) -> str:
        slot, attempt = self.slot, self.rank.attempt
        place = f"{slot.tenant}.{slot.workload}.{slot.task}.{slot.index}"
        return f"{place}.{self.rank.store_life}-{attempt.term}-{attempt.n}"


def run_name(text: str) -> RunName | None:
    """The run that `text` names, or None when Atoll never wrote that name."""
    match = _RUN.fullmatch(text)
    if match is None:
        return None
    tenant, workload, task, *numbers = match.groups()
    index, life, term, n = map(int, numbers)
    return RunName(SlotName(tenant, workload, task, index), Rank(life, AttemptId(term, n)))


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended. `code` is the process's own, 128 + signal, or -1 when nobody saw it."""

    code: int
    reason: str  # Completed, Failed, OutOfMemory, Stopped, StartFailed, Unknown
    message: str = ""
    at_ms: int = 0

    def to_proto(self) -> objects_pb2.Exit:
        return objects_pb2.Exit(code=self.code, reason=self.reason, message=self.message, at_ms=self.at_ms)


@dataclass(frozen=True, slots=True)
class Found:
    """A run of an earlier agent process. `exit` is None while it still runs."""

    run: RunName
    exit: Exit | None
    started_ms: int = 0
