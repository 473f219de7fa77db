"""Answers the region's questions about this node: the output of a slot. Reads only; bounded in number and in size.

A query that follows goes on until the region cancels it, or has another session.
"""

import asyncio
from collections.abc import Callable

from agent.core.commands import SendUp
from agent.drivers.driver import Driver
from atoll.api.v1 import agent_pb2
from atoll.errors import Unavailable
from atoll.model.slots import slot_name

FOLLOW_S = 0.25
CHUNK = 256 * 1024
MOST_AT_ONCE = 32
MOST_LINES = 10_000


class Queries:
    def __init__(self, driver: Driver, send: Callable[[SendUp], None]) -> None:
        self._driver = driver
        self._send = send
        self._session = 0
        self._tasks: dict[int, asyncio.Task[None]] = {}  # by the query's id

    def answer(self, session: int, query: agent_pb2.Query) -> None:
        """Begins to answer, or ends what is cancelled; what earlier sessions asked is dropped."""
        if session != self._session:
            self.close()
            self._session = session
        if query.cancel:
            if running := self._tasks.pop(query.id, None):
                running.cancel()
            return
        if len(self._tasks) >= MOST_AT_ONCE:
            self._say(session, agent_pb2.QueryAnswer(id=query.id, last=True, error="too many queries at once"))
            return
        task = asyncio.get_running_loop().create_task(self._answer(session, query))
        self._tasks[query.id] = task
        task.add_done_callback(lambda done: self._ended(query.id, done))

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        if self._tasks.get(number) is task:  # else it was cancelled
            del self._tasks[number]

    async def _answer(self, session: int, query: agent_pb2.Query) -> None:
        try:
            await self._logs(session, query.id, query.logs)
        except Unavailable as error:
            self._say(session, agent_pb2.QueryAnswer(id=query.id, last=True, error=error.message))

    async def _logs(self, session: int, number: int, query: agent_pb2.LogQuery) -> None:
        slot = slot_name(query.slot)
        data, cursor = await self._driver.logs(slot, min(query.tail_lines or MOST_LINES, MOST_LINES))
        while True:
            for start in range(0, len(data), CHUNK):
                self._say(session, agent_pb2.QueryAnswer(id=number, data=data[start : start + CHUNK]))
            if not query.follow:
                self._say(session, agent_pb2.QueryAnswer(id=number, last=True))
                return
            await asyncio.sleep(FOLLOW_S)
            data, cursor = await self._driver.logs(slot, 0, cursor)

    def _say(self, session: int, answer: agent_pb2.QueryAnswer) -> None:
        self._send(SendUp(session, agent_pb2.AgentMessage(answer=answer)))
