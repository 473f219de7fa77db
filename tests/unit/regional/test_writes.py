import asyncio

import pytest

from atoll.errors import Conflict, OutcomeUnknown, Unavailable
from atoll.lane import Plan
from regional.core.commands import Reply
from regional.core.events import WriteAsked
from regional.writes import GuardedWrites

PLAN = Plan("JOIN")


class Core:
    """Keeps what was asked; the test answers."""

    def __init__(self, deadline_ms: int = 10_000) -> None:
        self.asked: list[WriteAsked] = []
        self.writes = GuardedWrites(self.asked.append, deadline_ms=deadline_ms)

    async def ask(self, plan: Plan = PLAN) -> asyncio.Task[int]:
        task = asyncio.create_task(self.writes.write(plan))
        await asyncio.sleep(0)
        return task


async def test_each_caller_gets_the_answer_to_its_own_plan() -> None:
    core = Core()
    first, second = await core.ask(Plan("A")), await core.ask(Plan("B"))
    assert [asked.plan.operation for asked in core.asked] == ["A", "B"]
    core.writes.settle(Reply(core.asked[1].reply_to, 8))
    core.writes.settle(Reply(core.asked[0].reply_to, 7))
    assert (await first, await second) == (7, 8)


async def test_a_refused_write_is_a_conflict_with_its_reason() -> None:
    core = Core()
    task = await core.ask()
    core.writes.settle(Reply(core.asked[0].reply_to, 0, "stale"))
    with pytest.raises(Conflict, match="JOIN was not written: stale"):
        await task


async def test_the_core_may_not_know_either() -> None:
    core = Core()
    task = await core.ask()
    core.writes.settle(Reply(core.asked[0].reply_to, 0, "leadership was lost", unknown=True))
    with pytest.raises(OutcomeUnknown, match="leadership was lost"):
        await task


async def test_no_answer_in_time_is_an_unknown_outcome_and_a_late_reply_is_ignored() -> None:
    core = Core(deadline_ms=1)
    with pytest.raises(OutcomeUnknown):
        await core.writes.write(PLAN)
    core.writes.settle(Reply(core.asked[0].reply_to, 9))


async def test_a_write_that_was_never_sent_may_be_asked_of_another_leader() -> None:
    core = Core()
    task = await core.ask()
    core.writes.settle(Reply(core.asked[0].reply_to, 0, "not the leader", unsent=True))
    with pytest.raises(Unavailable, match="not written"):
        await task
