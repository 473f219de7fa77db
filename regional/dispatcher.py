"""The agents' gateway: one session an agent; what agents say becomes events, what the core commands goes down.

Invariants: who an agent is comes from its certificate, never from its messages; messages of one session go down in
the order given; a session that cannot keep up is closed, never waited for (its agent says hello again and gets the
whole truth). Decides nothing about nodes: that is core/node_life. Join and Renew are in join.py.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from prometheus_client import Counter, Gauge

from atoll.api.v1 import agent_pb2, agent_pb2_grpc, objects_pb2
from atoll.clock import Clock
from atoll.errors import Invalid, NotAllowed, Unavailable
from atoll.identity import Identity
from atoll.leadership import Leadership
from atoll.rpc import Context, identity_of
from regional.config import Settings
from regional.core.events import Event, NodeHeartbeat, NodeHello, NodeSessionEnded, NodeStatus
from regional.join import Enrolment

SESSIONS = Gauge("atoll_region_sessions", "Open agent sessions.")
CLOSED = Counter("atoll_region_sessions_closed", "Agent sessions closed by the region, by reason.", ["reason"])

_BACKLOG_PAUSE_S = 0.02


class _Session:
    """What goes down to one agent, bounded. `close` ends it after nothing more: queued messages are dropped."""

    def __init__(self, number: int, node: str, limit: int) -> None:
        self.number = number
        self.node = node
        self.closed = ""
        self._limit = limit
        self._queue: deque[agent_pb2.RegionMessage] = deque()
        self._changed = asyncio.Event()

    def send(self, message: agent_pb2.RegionMessage) -> None:
        if len(self._queue) >= self._limit:
            CLOSED.labels("overflow").inc()
            self.close("the session's queue is full: the agent does not keep up")
            return
        self._queue.append(message)
        self._changed.set()

    def close(self, reason: str) -> None:
        self.closed = self.closed or reason
        self._changed.set()

    async def next(self) -> agent_pb2.RegionMessage | None:
        """The next message, in order; None once closed."""
        while not self.closed:
            if self._queue:
                return self._queue.popleft()
            self._changed.clear()
            await self._changed.wait()
        return None


class Dispatcher(agent_pb2_grpc.AgentGatewayServicer):
    """`backlog` tells how many events the core has not handled: above a bound, agents are not read."""

    def __init__(
        self,
        settings: Settings,
        leadership: Leadership,
        enrolment: Enrolment,
        clock: Clock,
        *,
        post: Callable[[Event], None],
        backlog: Callable[[], int],
        announce: Callable[[objects_pb2.Event], None],
    ) -> None:
        self._settings = settings
        self._leadership = leadership
        self._enrolment = enrolment
        self._clock = clock
        self._post = post
        self._backlog = backlog
        self._announce = announce
        self._numbers = itertools.count(1)
        self._sessions: dict[int, _Session] = {}
        self._of_node: dict[str, _Session] = {}
        self._queries: dict[int, tuple[_Session, asyncio.Queue[agent_pb2.QueryAnswer]]] = {}

    # ---- from the core and the loop

    def send(self, session: int, message: agent_pb2.RegionMessage) -> None:
        if found := self._sessions.get(session):
            found.send(message)

    def close(self, session: int, reason: str) -> None:
        if found := self._sessions.get(session):
            CLOSED.labels("core").inc()
            found.close(reason)

    def stand_by(self, reason: str) -> None:
        """Leadership is lost: every agent says hello again, to the next leader."""
        for session in self._sessions.values():
            session.close(reason)

    # ---- from agents

    async def Join(self, request: agent_pb2.JoinRequest, context: Context) -> agent_pb2.JoinResponse:
        await self._leadership.require_leading()
        return await self._enrolment.join(request, context.peer())

    async def Renew(self, request: agent_pb2.RenewRequest, context: Context) -> agent_pb2.JoinResponse:
        return await self._enrolment.renew(request, identity_of(context))

    async def Session(
        self,
        request_iterator: AsyncIterator[agent_pb2.AgentMessage],
        context: Context,
    ) -> AsyncIterator[agent_pb2.RegionMessage]:
        identity = identity_of(context)
        hello = await self._hello(request_iterator, identity)
        if not self._leadership.leading:
            address = await self._leadership.leader_address()
            yield agent_pb2.RegionMessage(not_leader=agent_pb2.NotLeader(address=address))
            return
        session = self._open(identity, hello)
        reading = asyncio.create_task(self._read(session, request_iterator))
        reading.add_done_callback(lambda _: session.close("the agent hung up"))
        try:
            while (message := await session.next()) is not None:
                yield message
            raise Unavailable(session.closed)
        finally:
            reading.cancel()
            self._ended(session)

    async def _hello(self, messages: AsyncIterator[agent_pb2.AgentMessage], identity: Identity) -> agent_pb2.Hello:
        """The opening message of the node the certificate names. Raises Invalid, NotAllowed."""
        try:
            async with asyncio.timeout(self._settings.session_hello_timeout_ms / 1000):
                first = await anext(aiter(messages), None)
        except TimeoutError:
            first = None
        if first is None or not first.HasField("hello"):
            raise Invalid("the first message of a session must be Hello")
        if first.hello.node != identity.node:
            shown = first.hello.node[:63]
            self._announce(
                objects_pb2.Event(
                    at_ms=self._clock.now_ms(),
                    type="NodeForged",
                    object=f"node/{identity.node}",
                    message=f"an agent with the certificate of {identity.node} claimed to be {shown!r}; refused",
                    region=self._settings.region,
                )
            )
            raise NotAllowed(f"the certificate is node {identity.node}'s, the Hello {shown!r}'s")
        return first.hello

    def _open(self, identity: Identity, hello: agent_pb2.Hello) -> _Session:
        session = _Session(next(self._numbers), identity.node, self._settings.session_queue_messages)
        self._sessions[session.number] = session
        self._of_node[session.node] = session
        SESSIONS.set(len(self._sessions))
        labels, expires_ms = tuple(identity.labels), identity.expires_ms
        self._post(NodeHello(session.number, identity.node, identity.pool, labels, hello, expires_ms))
        return session

    def _ended(self, session: _Session) -> None:
        session.close("the session has ended")
        del self._sessions[session.number]
        if self._of_node.get(session.node) is session:
            del self._of_node[session.node]
        SESSIONS.set(len(self._sessions))
        for of_session, answers in self._queries.values():
            if of_session is session:
                _deliver(answers, agent_pb2.QueryAnswer(last=True, error="the agent's session has ended"))
        self._post(NodeSessionEnded(session.number))

    async def _read(self, session: _Session, messages: AsyncIterator[agent_pb2.AgentMessage]) -> None:
        async for message in messages:
            while self._backlog() > self._settings.core_backlog_events:  # noqa: ASYNC110 - rare, and then for all
                await asyncio.sleep(_BACKLOG_PAUSE_S)  # the agents wait in their own queues meanwhile
            self._take(session, message)

    def _take(self, session: _Session, message: agent_pb2.AgentMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat":
                self._post(NodeHeartbeat(session.number, message.heartbeat.seq))
            case "status":
                self._post(NodeStatus(session.number, message.status))
            case "answer":
                self._answered(session, message.answer)
            case "hello":
                session.close("a second Hello in one session")
            case _:
                pass  # a newer agent's word: not ours to obey

    # ---- queries: asked by the API, answered by agents, matched by id

    async def logs(self, node: str, query: agent_pb2.LogQuery) -> AsyncGenerator[bytes, None]:
        """The agent's answers until its last. Raises Unavailable: no session, silence, or what the agent says."""
        session = self._of_node.get(node)
        if session is None:
            raise Unavailable(f"the agent of node {node} is not connected")
        number = next(self._numbers)
        answers: asyncio.Queue[agent_pb2.QueryAnswer] = asyncio.Queue(self._settings.query_queue_answers)
        self._queries[number] = (session, answers)
        try:
            session.send(agent_pb2.RegionMessage(query=agent_pb2.Query(id=number, logs=query)))
            while True:
                answer = await self._next_answer(answers, node, follow=query.follow)
                if answer.error:
                    raise Unavailable(f"node {node}: {answer.error}")
                if answer.data:
                    yield answer.data
                if answer.last:
                    return
        finally:
            del self._queries[number]
            session.send(agent_pb2.RegionMessage(query=agent_pb2.Query(id=number, cancel=True)))

    async def _next_answer(
        self, answers: asyncio.Queue[agent_pb2.QueryAnswer], node: str, *, follow: bool
    ) -> agent_pb2.QueryAnswer:
        if follow:
            return await answers.get()
        try:
            async with asyncio.timeout(self._settings.query_timeout_ms / 1000):
                return await answers.get()
        except TimeoutError:
            raise Unavailable(f"the agent of node {node} did not answer") from None

    def _answered(self, session: _Session, answer: agent_pb2.QueryAnswer) -> None:
        of_session, answers = self._queries.get(answer.id, (None, None))
        if of_session is session and answers is not None:
            _deliver(answers, answer)


def _deliver(answers: asyncio.Queue[agent_pb2.QueryAnswer], answer: agent_pb2.QueryAnswer) -> None:
    """A reader that does not keep up loses its query, not the session."""
    if answers.full():
        answers.get_nowait()
        answer = agent_pb2.QueryAnswer(last=True, error="the reader does not keep up")
    answers.put_nowait(answer)
