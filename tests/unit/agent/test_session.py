"""A node's streams over real TLS: at a renewal they are dialled again, and never all at once; what ends is gone."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.config import Settings
from agent.core.events import Event
from agent.session import Session
from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc
from atoll.clock import SystemClock
from tests.support.pki import Pki

REGION = "r1"


class Candidate(agent_pb2_grpc.AgentGatewayServicer):
    """Says that it does not lead, and nothing more; `hangs_up`: and ends the stream. `order` is told of the beginning
    and the end of each stream."""

    def __init__(self, name: str, pki: Pki, order: list[str], *, hangs_up: bool = False) -> None:
        self._name = name
        self._order = order
        self._hangs_up = hangs_up
        self.opened = asyncio.Condition()
        self.streams = 0
        self.server = rpc.Server(pki.region(REGION), pki.find_user, SystemClock())
        self.server.add(agent_pb2_grpc.add_AgentGatewayServicer_to_server, self)

    async def Session(self, request_iterator: Any, context: Any) -> AsyncIterator[agent_pb2.RegionMessage]:
        self._order.append(f"+{self._name}")
        async with self.opened:
            self.streams += 1
            self.opened.notify_all()
        try:
            yield agent_pb2.RegionMessage(not_leader=agent_pb2.NotLeader())
            if not self._hangs_up:
                await asyncio.Event().wait()
        finally:
            self._order.append(f"-{self._name}")

    async def until(self, streams: int) -> None:
        async with asyncio.timeout(20), self.opened:
            await self.opened.wait_for(lambda: self.streams >= streams)


@asynccontextmanager
async def dialled(pki: Pki, folder: Path, candidates: list[Candidate], said: list[Event]) -> AsyncIterator[Session]:
    """A session that runs, with the candidates that serve it."""
    for candidate in candidates:
        await candidate.server.start("127.0.0.1:0", "127.0.0.1:0")
    addresses = tuple(candidate.server.programs_address for candidate in candidates)
    settings = Settings(
        name="n1", region_programs=addresses, ca=pki.ca, state_dir=folder, reconnect_min_ms=20, driver="fake"
    )
    session = Session(settings, lambda: pki.node(REGION, "n1"), said.append)
    running = asyncio.create_task(session.run(lambda number, query: None))
    try:
        yield session
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for candidate in candidates:
            await candidate.server.stop(0)


async def test_streams_are_renewed_one_after_the_other(tmp_path: Path) -> None:
    pki, order, said = Pki(tmp_path / "pki"), list[str](), list[Event]()
    candidates = [Candidate(name, pki, order) for name in ("a", "b", "c")]
    async with dialled(pki, tmp_path, candidates, said) as session:
        for candidate in candidates:
            await candidate.until(1)
        async with asyncio.timeout(20):
            while sum(type(event).__name__ == "RegionSaid" for event in said) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        order.clear()
        await session.renew("a new certificate")
        opened = [step for step in order if step.startswith("+")]
        assert sorted(opened) == ["+a", "+b", "+c"]
        for name in opened[:-1]:
            following = opened[opened.index(name) + 1].replace("+", "-")
            assert following not in order or order.index(name) < order.index(following), order


async def test_a_stream_that_the_region_has_ended_leaves_nothing_behind(tmp_path: Path) -> None:
    strays = list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context["message"]))
    pki = Pki(tmp_path / "pki")
    candidate = Candidate("a", pki, [], hangs_up=True)
    async with dialled(pki, tmp_path, [candidate], []):
        for streams in range(1, 5):
            await candidate.until(streams)
            gc.collect()
        assert strays == []
