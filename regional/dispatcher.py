"""The agents' gateway: what agents say becomes events, what the core commands goes down.

Agents keep their sessions with a standby too, so that a takeover is one message to each: Leading. Invariants: who an
agent is comes from its certificate, never from its messages; messages of one session go down in the order given; the
core hears of a session what was said after its Hello in this reign, and no Hello that was said in an earlier one; a
session that cannot keep up is closed, never waited for (its agent says hello again and gets the whole truth). Decides
nothing about nodes: that is core/node_life. Join and Renew are in join.py.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from prometheus_client import Counter, Gauge

from atoll.api.v1 import agent_pb2, agent_pb2_grpc, objects_pb2
from atoll.clock import Clock
from atoll.errors import AtollError, Invalid, NotAllowed, Unavailable
from atoll.identity import Identity
from atoll.lane import Authority
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

    def __init__(self, number: int, identity: Identity, opened_term: int, limit: int) -> None:
        """`opened_term`: of the reign it was opened in, 0 on a standby."""
        self.number = number
        self.identity = identity
        self.opened_term = opened_term
        self.introduced = False  # it has been told who leads
        self.said_hello = False
        self.heard_term = 0  # of the reign in which the core was told its Hello
        self.closed = ""
        self.refused: AtollError | None = None
        self._limit = limit
        self._queue: list[agent_pb2.RegionMessage] = []  # no deque: an empty one takes 600 bytes, times 10,000
        self._changed: asyncio.Future[None] | None = None  # what `next` waits for

    def send(self, message: agent_pb2.RegionMessage) -> None:
        if len(self._queue) >= self._limit:
            CLOSED.labels("overflow").inc()
            self.close("the session's queue is full: the agent does not keep up")
            return
        self._queue.append(message)
        self._wake()

    def close(self, reason: str) -> None:
        self.closed = self.closed or reason
        self._wake()

    def _wake(self) -> None:
        if self._changed and not self._changed.done():
            self._changed.set_result(None)

    def refuse(self, error: AtollError) -> None:
        self.refused = self.refused or error
        self.close(str(error))

    def clear(self) -> None:
        """What waits was said in a reign that is over."""
        self._queue.clear()
        self.heard_term = 0

    async def next(self) -> agent_pb2.RegionMessage | None:
        """The next message, in order; None once closed."""
        while not self.closed:
            if self._queue:
                return self._queue.pop(0)
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
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
        self._of_node: dict[str, _Session] = {}  # that said hello last in this reign
        self._opened: dict[str, list[_Session]] = {}  # by node, oldest first
        self._authority: Authority | None = None  # None = standby
        self._queries: dict[int, tuple[_Session, asyncio.Queue[agent_pb2.QueryAnswer]]] = {}

    # ---- from the core and the loop

    def send(self, session: int, message: agent_pb2.RegionMessage) -> None:
        if found := self._sessions.get(session):
            found.send(message)

    def close(self, session: int, reason: str) -> None:
        if found := self._sessions.get(session):
            CLOSED.labels("core").inc()
            found.close(reason)

    def lead(self, authority: Authority) -> None:
        """Every agent that is connected is called: one message each. One that was not told yet that we did not lead
        may have said hello unasked, which counts for nothing, and would wait for its answer."""
        self._authority = authority
        for session in self._sessions.values():
            if not session.introduced:
                session.send(agent_pb2.RegionMessage(not_leader=agent_pb2.NotLeader()))
            session.introduced = True
            session.send(_leading(authority))

    def stand_by(self) -> None:
        """Leadership is lost; the sessions stay for the time when it is won again."""
        self._authority = None
        self._of_node.clear()
        for session in self._sessions.values():
            session.clear()
            session.send(agent_pb2.RegionMessage(not_leader=agent_pb2.NotLeader()))

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
        session = self._open(identity_of(context))
        reading = asyncio.create_task(self._read(session, request_iterator))
        reading.add_done_callback(lambda _: session.close("the agent hung up"))
        try:
            await self._introduce(session)
            while (message := await session.next()) is not None:
                yield message
            raise session.refused or Unavailable(session.closed)
        finally:
            reading.cancel()
            self._ended(session)

    async def _introduce(self, session: _Session) -> None:
        """Says who leads, unless that has just changed: then everybody is told."""
        if self._authority:
            session.introduced = True
            session.send(_leading(self._authority))
            return
        address = await self._leadership.leader_address()
        if not session.introduced:
            session.introduced = True
            session.send(agent_pb2.RegionMessage(not_leader=agent_pb2.NotLeader(address=address)))

    def _open(self, identity: Identity) -> _Session:
        term = self._authority.term if self._authority else 0
        session = _Session(next(self._numbers), identity, term, self._settings.session_queue_messages)
        self._sessions[session.number] = session
        of_node = self._opened.setdefault(identity.node, [])
        of_node.append(session)
        if len(of_node) > self._settings.sessions_of_node:
            of_node[0].close("the node has opened too many sessions")
        SESSIONS.set(len(self._sessions))
        return session

    def _ended(self, session: _Session) -> None:
        session.close("the session has ended")
        del self._sessions[session.number]
        node = session.identity.node
        self._opened[node].remove(session)
        if not self._opened[node]:
            del self._opened[node]
        if self._of_node.get(node) is session:
            del self._of_node[node]
        SESSIONS.set(len(self._sessions))
        for of_session, answers in self._queries.values():
            if of_session is session:
                _deliver(answers, agent_pb2.QueryAnswer(last=True, error="the agent's session has ended"))
        if session.heard_term:
            self._post(NodeSessionEnded(session.number))

    async def _read(self, session: _Session, messages: AsyncIterator[agent_pb2.AgentMessage]) -> None:
        async for message in messages:
            while self._backlog() > self._settings.core_backlog_events:  # noqa: ASYNC110 - rare, and then for all
                await asyncio.sleep(_BACKLOG_PAUSE_S)  # the agents wait in their own queues meanwhile
            self._take(session, message)

    def _take(self, session: _Session, message: agent_pb2.AgentMessage) -> None:
        body = message.WhichOneof("body")
        if body == "hello":
            self._take_hello(session, message.hello)
        elif not session.said_hello:
            session.refuse(Invalid("the first message of a session must be Hello"))
        elif not session.heard_term:
            pass  # it was said to a reign that is over
        elif body == "heartbeat":
            self._post(NodeHeartbeat(session.number, message.heartbeat.seq))
        elif body == "status":
            self._post(NodeStatus(session.number, message.status))
        elif body == "answer":
            self._answered(session, message.answer)
        # else a newer agent's word: not ours to obey

    def _take_hello(self, session: _Session, hello: agent_pb2.Hello) -> None:
        """Unasked ones count only in the reign the session was opened in: in a later one the agent has been asked."""
        identity = session.identity
        if hello.node != identity.node:
            self._forged(session, hello.node[:63])
            return
        session.said_hello = True
        if self._authority and (hello.answers_term or session.opened_term) == self._authority.term:
            session.heard_term = self._authority.term
            self._of_node[identity.node] = session
            labels, expires_ms, term = tuple(identity.labels), identity.expires_ms, session.heard_term
            self._post(NodeHello(session.number, identity.node, identity.pool, labels, hello, expires_ms, term))

    def _forged(self, session: _Session, shown: str) -> None:
        node = session.identity.node
        self._announce(
            objects_pb2.Event(
                at_ms=self._clock.now_ms(),
                type="NodeForged",
                object=f"node/{node}",
                message=f"an agent with the certificate of {node} claimed to be {shown!r}; refused",
                region=self._settings.region,
            )
        )
        session.refuse(NotAllowed(f"the certificate is node {node}'s, the Hello {shown!r}'s"))

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


def _leading(authority: Authority) -> agent_pb2.RegionMessage:
    return agent_pb2.RegionMessage(leading=agent_pb2.Leading(store_life=authority.store_life, term=authority.term))


def _deliver(answers: asyncio.Queue[agent_pb2.QueryAnswer], answer: agent_pb2.QueryAnswer) -> None:
    """A reader that does not keep up loses its query, not the session."""
    if answers.full():
        answers.get_nowait()
        answer = agent_pb2.QueryAnswer(last=True, error="the reader does not keep up")
    answers.put_nowait(answer)
