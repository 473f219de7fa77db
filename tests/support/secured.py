"""A region behind the real border (TLS, identity, authorization), with servicers that show what reached them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from atoll import rpc
from atoll.api.v1 import agent_pb2, agent_pb2_grpc, global_pb2, global_pb2_grpc, regional_pb2, regional_pb2_grpc
from atoll.api.v1.objects_pb2 import Metadata, Workload
from atoll.clock import SystemClock
from atoll.errors import AtollError, Conflict, Mistake
from atoll.identity import TlsFiles
from tests.support.pki import Pki

CALL_S = 10.0


class ShiftedClock:
    """The system's clock, moved by the test."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return self._clock.now_ms() + self.ahead_ms


class GlobalEdge(global_pb2_grpc.GlobalServicer):
    """Answers with what it saw, or does what the name of the workload asks for."""

    def __init__(self) -> None:
        self.watch_closed = asyncio.Event()

    async def GetWorkload(self, request: global_pb2.GetWorkloadRequest, context: rpc.Context) -> Workload:
        match request.name:
            case "conflict":
                raise Conflict("changed meanwhile", mistakes=(Mistake("spec", "is older"),), hint="read again")
            case "defect":
                raise KeyError("secret of the implementation")
            case "slow":
                await asyncio.sleep(3600)
        caller = rpc.identity_of(context)
        return Workload(metadata=Metadata(name=caller.name, tenant=request.tenant))

    async def ApplyWorkload(
        self, request: global_pb2.ApplyWorkloadRequest, context: rpc.Context
    ) -> global_pb2.ApplyWorkloadResponse:
        return global_pb2.ApplyWorkloadResponse(workload=request.workload)

    async def WatchWorkloads(
        self, request: global_pb2.WatchWorkloadsRequest, context: rpc.Context
    ) -> AsyncIterator[global_pb2.WorkloadEvent]:
        try:
            yield global_pb2.WorkloadEvent(revision=7)
            await asyncio.sleep(3600)
        finally:
            self.watch_closed.set()


class Gateway(agent_pb2_grpc.AgentGatewayServicer):
    async def Join(self, request: agent_pb2.JoinRequest, context: rpc.Context) -> agent_pb2.JoinResponse:
        return agent_pb2.JoinResponse(region="joined")

    async def Renew(self, request: agent_pb2.RenewRequest, context: rpc.Context) -> agent_pb2.JoinResponse:
        caller = rpc.identity_of(context)
        return agent_pb2.JoinResponse(region=f"{caller.region}/{caller.node}/{caller.pool}/{caller.labels}")

    async def Session(self, requests: object, context: rpc.Context) -> AsyncIterator[agent_pb2.RegionMessage]:
        async for message in requests:  # type: ignore[attr-defined]
            yield agent_pb2.RegionMessage(ack=agent_pb2.HeartbeatAck(seq=message.heartbeat.seq))


class UplinkEdge(regional_pb2_grpc.UplinkServicer):
    async def Session(self, requests: object, context: rpc.Context) -> AsyncIterator[regional_pb2.DownlinkMessage]:
        yield regional_pb2.DownlinkMessage(not_leader=agent_pb2.NotLeader(address=rpc.identity_of(context).region))


class World:
    """A region `east` that serves both services, and everybody who might call it."""

    def __init__(self, folder: Path, limits: rpc.Limits) -> None:
        self.pki = Pki(folder)
        self.clock = ShiftedClock()
        self.edge = GlobalEdge()  # type: ignore[abstract]  # serves some of the methods only, on purpose
        self.server = rpc.Server(self.pki.region("east"), self.pki.find_user, self.clock, limits)
        self.server.add(global_pb2_grpc.add_GlobalServicer_to_server, self.edge)
        self.server.add(agent_pb2_grpc.add_AgentGatewayServicer_to_server, Gateway())
        self.server.add(regional_pb2_grpc.add_UplinkServicer_to_server, UplinkEdge())
        self.channels: list[grpc.aio.Channel] = []

    def people(self, token: str = "", ca: Path | None = None) -> grpc.aio.Channel:
        return self.kept(rpc.channel(self.server.people_address, ca=ca or self.pki.ca, token=token))

    def programs(self, client: TlsFiles | None, token: str = "") -> grpc.aio.Channel:
        return self.kept(rpc.channel(self.server.programs_address, ca=self.pki.ca, client=client, token=token))

    def kept(self, channel: grpc.aio.Channel) -> grpc.aio.Channel:
        self.channels.append(channel)
        return channel

    async def close(self) -> None:
        for channel in self.channels:
            await channel.close()
        await self.server.stop(0)


async def get(channel: grpc.aio.Channel, name: str = "w", tenant: str = "blue") -> Workload:
    stub = global_pb2_grpc.GlobalStub(channel)
    return await stub.GetWorkload(global_pb2.GetWorkloadRequest(tenant=tenant, name=name), timeout=CALL_S)


async def renew(channel: grpc.aio.Channel) -> str:
    stub = agent_pb2_grpc.AgentGatewayStub(channel)
    return (await stub.Renew(agent_pb2.RenewRequest(), timeout=CALL_S)).region


async def refusal(call: Awaitable[object]) -> AtollError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return rpc.error_of(caught.value)
