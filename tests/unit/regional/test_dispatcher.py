"""The agents' gateway behind a real server with TLS, driven by a raw client; the test is the core."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc, objects_pb2
from atoll.clock import SystemClock
from atoll.errors import NotAllowed, Unavailable
from atoll.identity import RegionIssuer
from atoll.lane import Authority
from atoll.leadership import Leadership
from atoll.store import keys
from atoll.store.memory import MemoryStore
from atoll.store.store import KeyValue, Put, Txn
from regional.core.events import Event, NodeHeartbeat, NodeHello, NodeSessionEnded, NodeStatus
from regional.dispatcher import Dispatcher
from regional.join import Enrolment
from tests.support.pki import Pki
from tests.support.region import REGION, WritingLeader, settings
from tests.support.wait import until

Message = agent_pb2.AgentMessage


class SlowStore(MemoryStore):
    """Answers no read while it is held."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self._free = asyncio.Event()
        self._free.set()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        self._free.clear()
        yield
        self._free.set()

    async def get(self, key: bytes, *, deadline_s: float = 5.0) -> tuple[KeyValue | None, int]:
        self.waiting += 1
        await self._free.wait()
        return await super().get(key, deadline_s=deadline_s)


class Gateway:
    """A dispatcher behind a server; what it posts is kept."""

    def __init__(self, pki: Pki, folder: Path, **changes: Any) -> None:
        self.pki = pki
        self.store = SlowStore()
        self.clock = SystemClock()
        self.posted: list[Event] = []
        self.announced: list[objects_pb2.Event] = []
        self.backlog = 0
        self.backlog_asked = 0
        own = settings(pki, folder, **changes)
        self.leadership = Leadership(
            self.store,
            keys.region_root(REGION),
            name="a",
            clock=self.clock,
            ttl_s=6,
            transaction_deadline_s=2,
            history_s=0,
            post=lambda event: None,
        )
        issuer = RegionIssuer(own.issuer_certificate, own.issuer_key)
        writes = WritingLeader(self.store, self.clock).writes
        enrolment = Enrolment(own, issuer, pki.ca.read_bytes(), self.store, writes, self.clock)
        self.dispatcher = Dispatcher(
            own,
            self.leadership,
            enrolment,
            self.clock,
            post=self.posted.append,
            backlog=self._asked_backlog,
            announce=self.announced.append,
        )
        self.dispatcher.lead(Authority(keys.region_root(REGION), term=7))
        self.server = rpc.Server(pki.region(REGION), pki.find_user, self.clock)
        self.server.add(agent_pb2_grpc.add_AgentGatewayServicer_to_server, self.dispatcher)

    def _asked_backlog(self) -> int:
        self.backlog_asked += 1
        return self.backlog

    def of_kind(self, kind: type) -> list[Any]:
        return [event for event in self.posted if isinstance(event, kind)]

    @asynccontextmanager
    async def agent(self, node: str, hello: Message | None = None, **certificate: Any) -> AsyncIterator["Agent"]:
        tls = self.pki.node(REGION, node, **certificate)
        async with rpc.channel(self.server.programs_address, ca=self.pki.ca, client=tls) as channel:
            call = agent_pb2_grpc.AgentGatewayStub(channel).Session()
            await call.write(hello or Message(hello=agent_pb2.Hello(node=node, incarnation=1)))
            yield Agent(call)
            call.cancel()


class Agent:
    def __init__(self, call: Any) -> None:
        self.call = call

    async def say(self, message: Message) -> None:
        await self.call.write(message)

    async def hear(self) -> agent_pb2.RegionMessage:
        """The next that does not tell who leads."""
        while (message := await self.hear_all()).WhichOneof("body") in ("leading", "not_leader"):
            pass
        return message

    async def hear_all(self) -> agent_pb2.RegionMessage:
        message = await self.call.read()
        assert message is not grpc.aio.EOF, "the session has ended"
        return message

    async def error(self) -> Exception:
        """How the region ended the session."""
        try:
            while await self.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as ended:
            return rpc.error_of(ended)
        raise AssertionError("the session ended without an error")


@pytest.fixture
async def gateway(pki: Pki, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(Gateway(pki, tmp_path)) as made:
        yield made


@asynccontextmanager
async def running(gateway: Gateway) -> AsyncIterator[Gateway]:
    await gateway.server.start("127.0.0.1:0", "127.0.0.1:0")
    yield gateway
    await gateway.server.stop(0)


async def opened(gateway: Gateway, count: int = 1) -> int:
    """The number of the newest session, once `count` were opened."""
    await until(lambda: len(gateway.of_kind(NodeHello)) >= count)
    return int(gateway.of_kind(NodeHello)[-1].session)


def ack(seq: int) -> agent_pb2.RegionMessage:
    return agent_pb2.RegionMessage(ack=agent_pb2.HeartbeatAck(seq=seq))


async def test_who_an_agent_is_comes_from_its_certificate(gateway: Gateway) -> None:
    claimed = Message(hello=agent_pb2.Hello(node="n1", labels=[objects_pb2.Label(key="trusted/x", value="forged")]))
    async with gateway.agent("n1", claimed, pool="gpu", labels=[("trusted/zone", "a")]):
        await opened(gateway)
    (hello,) = gateway.of_kind(NodeHello)
    assert (hello.name, hello.pool, hello.trusted) == ("n1", "gpu", (("trusted/zone", "a"),))
    assert hello.hello == claimed.hello


async def test_a_node_that_claims_to_be_another_is_refused_and_announced(gateway: Gateway) -> None:
    async with gateway.agent("n1", Message(hello=agent_pb2.Hello(node="n2"))) as agent:
        assert isinstance(await agent.error(), NotAllowed)
    assert [(e.type, e.object) for e in gateway.announced] == [("NodeForged", "node/n1")]
    assert gateway.posted == []


async def test_a_session_that_does_not_begin_with_hello_is_refused(gateway: Gateway) -> None:
    async with gateway.agent("n1", Message(heartbeat=agent_pb2.Heartbeat(seq=1))) as agent:
        assert "first message" in str(await agent.error())
    assert gateway.posted == []


async def test_what_agents_say_becomes_events_in_order(gateway: Gateway) -> None:
    async with gateway.agent("n1") as agent:
        session = await opened(gateway)
        report = agent_pb2.StatusReport(attempts=[agent_pb2.AttemptStatus(ready=True)])
        await agent.say(Message(heartbeat=agent_pb2.Heartbeat(seq=7)))
        await agent.say(Message(status=report))
        await until(lambda: len(gateway.posted) == 3)
        assert gateway.posted[1:] == [NodeHeartbeat(session, 7), NodeStatus(session, report)]
    await until(lambda: gateway.posted[-1] == NodeSessionEnded(session))


async def test_what_the_core_sends_goes_down_in_order_and_to_its_session_only(gateway: Gateway) -> None:
    async with gateway.agent("n1") as one, gateway.agent("n2") as two:
        await opened(gateway, 2)
        session = {hello.name: hello.session for hello in gateway.of_kind(NodeHello)}
        for i in range(50):
            gateway.dispatcher.send(session["n1"], ack(i))
        gateway.dispatcher.send(session["n2"], ack(99))
        gateway.dispatcher.send(12345, ack(1))
        assert [(await one.hear()).ack.seq for _ in range(50)] == list(range(50))
        assert (await two.hear()).ack.seq == 99


async def test_a_session_that_cannot_keep_up_is_closed(pki: Pki, tmp_path: Path) -> None:
    async with running(Gateway(pki, tmp_path, session_queue_messages=3)) as gateway, gateway.agent("n1") as agent:
        session = await opened(gateway)
        for i in range(4):
            gateway.dispatcher.send(session, ack(i))
        assert "does not keep up" in str(await agent.error())
        await until(lambda: gateway.posted[-1] == NodeSessionEnded(session))


async def test_the_core_closes_a_session_with_its_reason(gateway: Gateway) -> None:
    async with gateway.agent("n1") as agent:
        gateway.dispatcher.close(await opened(gateway), "superseded by a newer session")
        error = await agent.error()
    assert isinstance(error, Unavailable)
    assert "superseded" in str(error)


def hello(answers_term: int = 0) -> Message:
    return Message(hello=agent_pb2.Hello(node="n1", answers_term=answers_term))


async def test_a_standby_names_the_leader_and_keeps_the_session_until_it_leads(gateway: Gateway) -> None:
    gateway.dispatcher.stand_by()
    leader = objects_pb2.Leader(name="b", address="10.0.0.9:7171").SerializeToString()
    await gateway.store.transact(Txn(success=(Put(keys.leader(keys.region_root(REGION)), leader),)))
    async with gateway.agent("n1", hello()) as agent:
        assert (await agent.hear_all()).not_leader.address == "10.0.0.9:7171"
        assert gateway.posted == []
        gateway.dispatcher.lead(Authority(b"", term=9))
        assert (await agent.hear_all()).leading.term == 9
        await agent.say(Message(heartbeat=agent_pb2.Heartbeat(seq=1)))  # to the reign before
        await agent.say(hello())  # unasked, on its way since then
        await agent.say(hello(answers_term=9))
        await opened(gateway)
    assert [event.hello.answers_term for event in gateway.posted if isinstance(event, NodeHello)] == [9]
    assert gateway.of_kind(NodeHeartbeat) == []


async def test_an_agent_that_says_hello_while_leadership_is_being_won_is_asked_again(gateway: Gateway) -> None:
    gateway.dispatcher.stand_by()
    async with gateway.agent("n1", hello()) as agent:
        async with gateway.store.held():
            await until(lambda: gateway.store.waiting)
            gateway.dispatcher.lead(Authority(b"", term=9))
        assert (await agent.hear_all()).HasField("not_leader")  # behind it no answer comes to what it has said
        assert (await agent.hear_all()).leading.term == 9
        await agent.say(hello(answers_term=9))
        await opened(gateway)
    assert [event.hello.answers_term for event in gateway.of_kind(NodeHello)] == [9]


async def test_lost_leadership_keeps_every_session_and_drops_what_was_to_be_sent(gateway: Gateway) -> None:
    async with gateway.agent("n1") as agent:
        session = await opened(gateway)
        assert (await agent.hear_all()).leading.term == 7
        gateway.dispatcher.send(session, ack(1))
        gateway.dispatcher.stand_by()
        assert (await agent.hear_all()).HasField("not_leader")
        await agent.say(Message(heartbeat=agent_pb2.Heartbeat(seq=1)))
        gateway.dispatcher.lead(Authority(b"", term=9))
        assert (await agent.hear_all()).leading.term == 9
        await agent.say(hello(answers_term=7))
        await agent.say(hello(answers_term=9))
        await opened(gateway, 2)
        assert gateway.posted[-1].term == 9  # type: ignore[union-attr]
        assert gateway.of_kind(NodeHeartbeat) == []


async def test_a_node_has_a_few_sessions_at_most(pki: Pki, tmp_path: Path) -> None:
    async with (
        running(Gateway(pki, tmp_path, sessions_of_node=2)) as gateway,
        gateway.agent("n1") as first,
        gateway.agent("n1"),
        gateway.agent("n1"),
    ):
        assert "too many sessions" in str(await first.error())
        await opened(gateway, 3)
        assert len(gateway.dispatcher._sessions) == 2


async def test_agents_wait_while_the_core_is_behind(pki: Pki, tmp_path: Path) -> None:
    async with running(Gateway(pki, tmp_path, core_backlog_events=10)) as gateway, gateway.agent("n1") as agent:
        await opened(gateway)
        gateway.backlog = 11
        await agent.say(Message(heartbeat=agent_pb2.Heartbeat(seq=1)))
        await until(lambda: gateway.backlog_asked >= 3)  # the message is there, and waits
        assert gateway.of_kind(NodeHeartbeat) == []
        gateway.backlog = 0
        await until(lambda: gateway.of_kind(NodeHeartbeat))


QUERY = agent_pb2.LogQuery(tail_lines=3)


async def test_logs_are_asked_of_the_agent_and_matched_by_id(gateway: Gateway) -> None:
    async with gateway.agent("n1") as agent:
        await opened(gateway)

        async def ask() -> list[bytes]:
            return [part async for part in gateway.dispatcher.logs("n1", QUERY)]

        first = asyncio.create_task(ask())
        second = asyncio.create_task(ask())
        ids = [(await agent.hear()).query.id for _ in range(2)]
        for number, text in ((ids[1], b"two"), (ids[0], b"one"), (999, b"nobody's")):
            await agent.say(Message(answer=agent_pb2.QueryAnswer(id=number, data=text, last=True)))
        assert (await first, await second) == ([b"one"], [b"two"])


async def test_logs_that_nobody_reads_any_more_are_cancelled_at_the_agent(gateway: Gateway) -> None:
    async with gateway.agent("n1") as agent:
        await opened(gateway)
        parts = gateway.dispatcher.logs("n1", agent_pb2.LogQuery(follow=True))
        reading = asyncio.ensure_future(anext(parts))
        asked = (await agent.hear()).query
        await agent.say(Message(answer=agent_pb2.QueryAnswer(id=asked.id, data=b"line")))
        assert await reading == b"line"
        await parts.aclose()  # type: ignore[attr-defined]
        assert (await agent.hear()).query == agent_pb2.Query(id=asked.id, cancel=True)


async def unread(gateway: Gateway) -> str:
    """Asks for logs that cannot be had; why not."""
    with pytest.raises(Unavailable) as refused:
        async for _ in gateway.dispatcher.logs("n1", QUERY):
            pass
    return refused.value.message


async def test_logs_of_an_agent_that_is_gone_or_silent(pki: Pki, tmp_path: Path) -> None:
    async with running(Gateway(pki, tmp_path, query_timeout_ms=50)) as gateway:
        assert "not connected" in await unread(gateway)
        async with gateway.agent("n1"):
            await opened(gateway)
            assert "did not answer" in await unread(gateway)


async def test_logs_of_an_agent_that_refuses_or_leaves(pki: Pki, tmp_path: Path) -> None:
    async with running(Gateway(pki, tmp_path)) as gateway:
        async with gateway.agent("n1") as agent:
            await opened(gateway)
            asking = asyncio.create_task(unread(gateway))
            query = (await agent.hear()).query
            await agent.say(Message(answer=agent_pb2.QueryAnswer(id=query.id, error="no such slot", last=True)))
            assert "no such slot" in await asking
            asking = asyncio.create_task(unread(gateway))
            await until(lambda: len(gateway.dispatcher._queries) == 1)
        assert "ended" in await asking
