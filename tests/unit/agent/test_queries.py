"""Questions about a slot's output: each is answered to its end, and none goes on when nobody waits for more."""

import asyncio
from collections import defaultdict

from agent.core.commands import SendUp
from agent.drivers.driver import Cursor
from agent.drivers.fake import FakeDriver, obedient
from agent.queries import MOST_AT_ONCE, Queries
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.errors import Unavailable
from atoll.model.slots import SlotName

SLOT = objects_pb2.SlotId(tenant="t", workload="w", task="main", index=0)


class Driver(FakeDriver):
    """Has something to say each time it is asked; `away`: raises instead."""

    def __init__(self) -> None:
        super().__init__(lambda notice: None, obedient)
        self.away = ""
        self.asked: list[SlotName] = []

    async def logs(self, slot: SlotName, tail_lines: int, after: Cursor | None = None) -> tuple[bytes, Cursor]:
        self.asked.append(slot)
        if self.away:
            raise Unavailable(self.away)
        return b"more\n", Cursor()


class World:
    def __init__(self) -> None:
        self.driver = Driver()
        self.queries = Queries(self.driver, self._said)
        self.answers: dict[int, list[agent_pb2.QueryAnswer]] = defaultdict(list)

    def ask(self, number: int, *, follow: bool = False) -> None:
        logs = agent_pb2.LogQuery(slot=SLOT, tail_lines=10, follow=follow)
        self.queries.answer(1, agent_pb2.Query(id=number, logs=logs))

    def cancel(self, number: int) -> None:
        self.queries.answer(1, agent_pb2.Query(id=number, cancel=True))

    async def answer(self, number: int) -> agent_pb2.QueryAnswer:
        """The newest one, when there is any."""
        async with asyncio.timeout(10):
            while not self.answers[number]:  # noqa: ASYNC110
                await asyncio.sleep(0)
        return self.answers[number][-1]

    def _said(self, command: SendUp) -> None:
        self.answers[command.message.answer.id].append(command.message.answer)


async def test_as_many_may_follow_one_after_the_other_as_please() -> None:
    world = World()
    for number in range(2 * MOST_AT_ONCE):
        world.ask(number, follow=True)
        assert (await world.answer(number)).data == b"more\n"
        world.cancel(number)
    world.queries.close()


async def test_too_many_at_once_are_told_so() -> None:
    world = World()
    for number in range(MOST_AT_ONCE + 1):
        world.ask(number, follow=True)
    assert (await world.answer(MOST_AT_ONCE)).error == "too many queries at once"
    world.queries.close()


async def test_a_cancellation_asks_nothing_of_the_driver() -> None:
    world = World()
    world.ask(1)
    assert (await world.answer(1)).last
    world.cancel(1)
    world.ask(2)
    assert (await world.answer(2)).last
    assert world.driver.asked == [("t", "w", "main", 0)] * 2
    assert not world.answers.keys() - {1, 2} and len(world.answers[1]) == 2


async def test_output_that_cannot_be_read_is_an_answer_too() -> None:
    world = World()
    world.driver.away = "the Docker engine does not answer"
    world.ask(1, follow=True)
    answer = await world.answer(1)
    assert answer.last and answer.error == "the Docker engine does not answer"
