"""An agent without containers: speaks the real protocol with a real certificate, and holds the region to it.

What it is told to run "runs" at once and is reported ready; what it is told to stop is closed at once. Its memory
(`running`, `closed`, the highest token) lives through lost connections and through the region's death, as a real
agent's checkpoint does. Every message from the region is checked: a violation is kept in `violations`.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc, objects_pb2
from atoll.identity import TlsFiles, node_request
from atoll.model import assigns
from atoll.model.slots import AttemptId, SlotName, attempt_id, slot_name

CAPACITY = objects_pb2.Resources(cpu_milli=8_000, memory_mib=16_384, disk_mib=100_000)


async def join(people: str, ca: Path, token: str, node: str, into: Path) -> TlsFiles:
    """Trades `token` for a node certificate at the people port; files in `into`."""
    key_pem, csr_pem = node_request()
    async with rpc.channel(people, ca=ca) as channel:
        gateway = agent_pb2_grpc.AgentGatewayStub(channel)
        response = await gateway.Join(agent_pb2.JoinRequest(token=token, node=node, csr_pem=csr_pem), timeout=10)
    return _stored(into, response.certificate_pem, key_pem, ca)


def _stored(into: Path, certificate_pem: bytes, key_pem: bytes, ca: Path) -> TlsFiles:
    into.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(into / "node.crt", into / "node.key", ca)
    files.certificate.write_bytes(certificate_pem)
    files.key.write_bytes(key_pem)
    return files


@dataclass
class FakeAgent:
    """`programs` is asked for the address at each dial, so that a restarted region is found again."""

    name: str
    tls: TlsFiles
    programs: Callable[[], str]
    capacity: objects_pb2.Resources = field(default_factory=lambda: CAPACITY)
    incarnation: int = 1
    running: dict[SlotName, agent_pb2.AttemptStatus] = field(default_factory=dict)
    closed: dict[SlotName, AttemptId] = field(default_factory=dict)
    started: list[tuple[SlotName, AttemptId]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    acks: int = 0
    syncs: int = 0
    log_lines: bytes = b"hello from a fake\n"
    not_leader: list[str] = field(default_factory=list)
    _highest: tuple[int, int, int] = (0, 0, 0)  # store life, epoch, term
    _heartbeat_s: float = 1.0
    _heard: int = 0
    _up: asyncio.Queue[agent_pb2.AgentMessage] = field(default_factory=asyncio.Queue)
    _greeted: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Keeps a session until cancelled."""
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.session()
            await asyncio.sleep(0.1)

    async def session(self) -> None:
        """One session, until it ends; raises what the stream raises."""
        self._up, self._greeted = asyncio.Queue(), asyncio.Event()
        async with rpc.channel(self.programs(), ca=self.tls.ca, client=self.tls) as channel:
            call = agent_pb2_grpc.AgentGatewayStub(channel).Session(self._outgoing())
            beating = asyncio.create_task(self._beat())
            reading = asyncio.create_task(self._read(call))
            try:
                await asyncio.wait({beating, reading}, return_when=asyncio.FIRST_COMPLETED)
                if reading.done():
                    reading.result()
            finally:
                beating.cancel()
                reading.cancel()

    def report(self, *statuses: agent_pb2.AttemptStatus) -> None:
        self._up.put_nowait(agent_pb2.AgentMessage(status=agent_pb2.StatusReport(attempts=statuses)))

    def exit(self, slot: SlotName, code: int, reason: str) -> None:
        """The slot's work ends by itself, for good on this node."""
        status = self.running[slot]
        self._close(
            slot, attempt_id(status.attempt), status.generation, objects_pb2.Exit(code=code, reason=reason, at_ms=1)
        )

    async def _outgoing(self) -> AsyncIterator[agent_pb2.AgentMessage]:
        while True:
            yield await self._up.get()

    def _say_hello(self, answers_term: int) -> None:
        hello = agent_pb2.Hello(
            node=self.name,
            incarnation=self.incarnation,
            capacity=self.capacity,
            inventory=[*self.running.values(), *map(_closed_status, self.closed.items())],
            version="fake",
            highest_term=self._highest[2],
            store_life=self._highest[0],
            answers_term=answers_term,
        )
        self._up.put_nowait(agent_pb2.AgentMessage(hello=hello))
        self._greeted.set()

    async def _beat(self) -> None:
        """Heartbeats from the Hello on, until the region was silent for three of them."""
        await self._greeted.wait()
        heard, silent = -1, 0
        for seq in itertools.count(1):
            silent = silent + 1 if heard == self._heard else 0
            if silent == 3:
                return
            heard = self._heard
            self._up.put_nowait(agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat(seq=seq)))
            await asyncio.sleep(self._heartbeat_s)

    async def _read(self, call: AsyncIterator[agent_pb2.RegionMessage]) -> None:
        """Leaves a standby, to dial anew."""
        async for message in call:
            self._heard += 1
            self._take(message)
            if message.HasField("not_leader"):
                return

    def _take(self, message: agent_pb2.RegionMessage) -> None:
        match message.WhichOneof("body"):
            case "leading":
                self._say_hello(message.leading.term)
            case "welcome":
                self._heartbeat_s = message.welcome.heartbeat_ms / 1000
            case "ack":
                self.acks += 1
            case "sync":
                self._sync(message.sync)
            case "assign":
                for assign in assigns.each(message.assign):
                    self._assign(assign)
            case "stop":
                self._stop(message.stop)
            case "query":
                self._answer(message.query)
            case "not_leader":
                self.not_leader.append(message.not_leader.address)

    def _sync(self, sync: agent_pb2.Sync) -> None:
        self.syncs += 1
        for stop in sync.stops:
            self._stop(stop)
        listed = {slot_name(assign.slot) for assign in sync.assignments}
        for slot in [slot for slot in self.running if slot not in listed]:
            status = self.running[slot]
            self._close(slot, attempt_id(status.attempt), status.generation, objects_pb2.Exit(reason="Stopped"))
        for assign in sync.assignments:
            self._assign(assign)

    def _assign(self, assign: agent_pb2.Assign) -> None:
        slot, attempt = slot_name(assign.slot), attempt_id(assign.token.attempt)
        self._obey(assign.token, f"assign {slot}")
        if attempt <= self.closed.get(slot, AttemptId(0, 0)):
            return
        present = self.running.get(slot)
        if present is None or attempt_id(present.attempt) < attempt:
            if present is not None:
                self.violations.append(f"{slot}: {attempt} assigned while {attempt_id(present.attempt)} runs here")
            self.started.append((slot, attempt))
            self.running[slot] = agent_pb2.AttemptStatus(
                slot=assign.slot,
                attempt=assign.token.attempt,
                generation=assign.generation,
                phase=agent_pb2.ATTEMPT_PHASE_RUNNING,
                ready=True,
                healthy=True,
                serving=True,
                started_ms=1,
                ready_ms=1,
            )
        self.report(self.running[slot])

    def _stop(self, stop: agent_pb2.Stop) -> None:
        slot, attempt = slot_name(stop.slot), attempt_id(stop.token.attempt)
        self._obey(stop.token, f"stop {slot}")
        present = self.running.get(slot)
        if present is not None and attempt_id(present.attempt) > attempt:
            return
        self._close(slot, attempt, present.generation if present else 0, objects_pb2.Exit(reason="Stopped", at_ms=1))

    def _close(self, slot: SlotName, attempt: AttemptId, generation: int, why: objects_pb2.Exit) -> None:
        self.running.pop(slot, None)
        self.closed[slot] = max(attempt, self.closed.get(slot, attempt))
        status = _closed_status((slot, attempt))
        status.generation = generation
        status.exit.CopyFrom(why)
        self.report(status)

    def _obey(self, token: objects_pb2.Token, what: str) -> None:
        """Commands of one term come with any attempt; a lower term, epoch or store life must never be heard."""
        said = (token.store_life, token.epoch, token.term)
        if said < self._highest:
            self.violations.append(f"{what}: command of {said} after {self._highest}")
        self._highest = max(self._highest, said)

    def _answer(self, query: agent_pb2.Query) -> None:
        if not query.cancel:
            answer = agent_pb2.QueryAnswer(id=query.id, data=self.log_lines, last=not query.logs.follow)
            self._up.put_nowait(agent_pb2.AgentMessage(answer=answer))


def _closed_status(closed: tuple[SlotName, AttemptId]) -> agent_pb2.AttemptStatus:
    slot, attempt = closed
    return agent_pb2.AttemptStatus(
        slot=slot.to_proto(), attempt=attempt.to_proto(), phase=agent_pb2.ATTEMPT_PHASE_CLOSED
    )
