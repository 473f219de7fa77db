"""What a topic of the machine is: a part of the state that wants transactions, one at a time.

A topic plans as late as possible, from the committed records, when a lane is free; what was rejected is simply planned
again from the newer records. So nothing is ever decided on what may not come true.
"""

from dataclasses import dataclass
from typing import Protocol

from atoll.lane import Plan, Rejected, Settled
from global_cp.core.commands import Command
from global_cp.core.records import Change


@dataclass(frozen=True, slots=True)
class Proposal:
    """A transaction a topic wants. `item` is the topic's own: what to plan again when it is rejected."""

    plan: Plan
    item: object


class Topic(Protocol):
    def propose(self, now_ms: int, out: list[Command]) -> Proposal | None:
        """The next transaction wanted, or None. May answer to `out` what needs no transaction."""

    def settled(self, item: object, settled: Settled, out: list[Command]) -> None:
        """How the proposal ended. When it was committed the records have it already."""

    def changed(self, change: Change, out: list[Command]) -> None:
        """A record changed, by whichever topic."""

    def deadline(self) -> int | None:
        """When to ask `propose` again though nothing happened."""


class Reader(Protocol):
    def read(self, change: Change) -> None:
        """A record of the list after an election, in the order of keys: what comes before it is known. A workload comes
        after all else that is its own."""


def refusal_of_form(settled: Settled) -> str:
    """Why the store refused the plan itself (too large, not permitted): the same plan would be refused again."""
    if isinstance(settled, Rejected) and not settled.stale and settled.message != "sealed":
        return settled.message
    return ""
