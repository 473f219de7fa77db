"""A region as an agent sees it: real TLS, Join, Renew and Session, and a test that decides what comes down."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from atoll import rpc, tokens
from atoll.api.v1 import agent_pb2, agent_pb2_grpc
from atoll.clock import SystemClock
from atoll.errors import NotAuthenticated
from atoll.identity import CertificateAuthority, RegionIssuer, ca_digests
from atoll.model.slots import slot_name

REGION = "eu-1"


@dataclass
class AgentSession:
    """One open stream: what the agent said first, and what it is told."""

    hello: agent_pb2.Hello
    down: asyncio.Queue[agent_pb2.RegionMessage] = field(default_factory=asyncio.Queue)

    def say(self, message: agent_pb2.RegionMessage) -> None:
        self.down.put_nowait(message)


class AgentRegion(agent_pb2_grpc.AgentGatewayServicer):
    """`acknowledge` = False makes it silent about heartbeats."""

    def __init__(self, folder: Path, *, heartbeat_ms: int = 500, fence_after_ms: int = 20_000) -> None:
        self.clock = SystemClock()
        authority = CertificateAuthority.create(folder / "ca", "test", self.clock.now_ms())
        tls = authority.issue_region(REGION, "r1", ["127.0.0.1"], folder / "region", self.clock.now_ms())
        issuer = authority.issue_region_issuer(REGION, folder / "issuer", self.clock.now_ms())
        self.ca = folder / "ca" / "ca.crt"
        self.issuer = RegionIssuer(issuer.certificate, issuer.key)
        self.token = tokens.mint_join(ca_digests(self.ca.read_bytes())[0])
        self.joined = 0
        self.renewed = 0
        self.acknowledge = True
        self.term = 1
        self.heartbeat_ms, self.fence_after_ms = heartbeat_ms, fence_after_ms
        self.statuses: dict[tuple[str, int], agent_pb2.AttemptStatus] = {}  # by slot and n, over all sessions
        self.answers: list[agent_pb2.QueryAnswer] = []
        self.heard = asyncio.Condition()
        self.sessions: asyncio.Queue[AgentSession] = asyncio.Queue()
        self.server = rpc.Server(tls, lambda _: None, self.clock)
        self.server.add(agent_pb2_grpc.add_AgentGatewayServicer_to_server, self)

    async def start(self) -> None:
        await self.server.start("127.0.0.1:0", "127.0.0.1:0")

    async def stop(self) -> None:
        await self.server.stop(0)

    async def sync_all(self, sync: agent_pb2.RegionMessage) -> None:
        """Says `sync` on every stream that opens, until cancelled."""
        while True:
            (await self.sessions.get()).say(sync)

    async def until(self, slot: str, n: int, **wanted: object) -> agent_pb2.AttemptStatus:
        """Waits for a status of this attempt with these fields; the test's timeout is the deadline."""
        async with self.heard:
            while True:
                status = self.statuses.get((slot, n))
                if status is not None and all(getattr(status, key) == value for key, value in wanted.items()):
                    return status
                await self.heard.wait()

    async def _note(self, statuses: Iterable[agent_pb2.AttemptStatus]) -> None:
        async with self.heard:
            for status in statuses:
                self.statuses[(str(slot_name(status.slot)), status.attempt.n)] = status
            self.heard.notify_all()

    async def Join(self, request: agent_pb2.JoinRequest, context: rpc.Context) -> agent_pb2.JoinResponse:
        shown = tokens.parse_join(request.token)
        if shown is None or not shown.matches(self.token.hash()):
            raise NotAuthenticated("not a token of this region")
        self.joined += 1
        return self._sign(request.csr_pem, request.node)

    async def Renew(self, request: agent_pb2.RenewRequest, context: rpc.Context) -> agent_pb2.JoinResponse:
        self.renewed += 1
        return self._sign(request.csr_pem, rpc.identity_of(context).node)

    def _sign(self, csr_pem: bytes, node: str) -> agent_pb2.JoinResponse:
        signed = self.issuer.sign_node(csr_pem, node=node, pool="", labels=(), now_ms=self.clock.now_ms())
        return agent_pb2.JoinResponse(
            certificate_pem=signed.certificate_pem,
            ca_pem=self.ca.read_bytes(),
            expires_ms=signed.expires_ms,
            region=REGION,
        )

    async def Session(
        self, request_iterator: AsyncIterator[agent_pb2.AgentMessage], context: rpc.Context
    ) -> AsyncIterator[agent_pb2.RegionMessage]:
        first = await anext(aiter(request_iterator))
        session = AgentSession(first.hello)
        await self._note(first.hello.inventory)
        welcome = agent_pb2.Welcome(
            store_life=1,
            epoch=1,
            term=self.term,
            heartbeat_ms=self.heartbeat_ms,
            fence_after_ms=self.fence_after_ms,
        )
        session.say(agent_pb2.RegionMessage(welcome=welcome))
        self.sessions.put_nowait(session)
        reading = asyncio.create_task(self._read(session, request_iterator))
        try:
            while True:
                yield await session.down.get()
        finally:
            reading.cancel()

    async def _read(self, session: AgentSession, messages: AsyncIterator[agent_pb2.AgentMessage]) -> None:
        async for message in messages:
            await self._note(message.status.attempts)
            if message.HasField("answer"):
                async with self.heard:
                    self.answers.append(message.answer)
                    self.heard.notify_all()
            if message.HasField("heartbeat") and self.acknowledge:
                ack = agent_pb2.HeartbeatAck(seq=message.heartbeat.seq, term=self.term)
                session.say(agent_pb2.RegionMessage(ack=ack))
