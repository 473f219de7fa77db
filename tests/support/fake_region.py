"""A region-like client of the global plane: the modelled region behind the real Uplink protocol, over real TLS."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc.aio

from atoll import rpc
from atoll.api.v1 import objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.identity import TlsFiles
from tests.support.model_region import ModelRegion


class FakeRegion:
    """`async with FakeRegion(...)`: dials again whenever the stream ends, and runs what it is told to run.

    Forwarded calls are answered with the request's bytes, which every test can predict; `Logs` with three parts,
    `Why` with an error; calls about nodes with those of `nodes`; those about join tokens with `of-<region>`.
    """

    def __init__(self, address: str, tls: TlsFiles, name: str, *, term: int = 1) -> None:
        self.address = address
        self.model = ModelRegion(name)
        self.model.term = term
        self.welcomes: list[regional_pb2.GlobalWelcome] = []
        self.tokens = regional_pb2.TokenSet()
        self.acked_heartbeats = 0
        self.refusals: list[str] = []
        self.nodes: list[str] = []
        self.heard = objects_pb2.GlobalReign()  # what its hello says of the global plane
        self.runs = True  # False: takes shares, but runs nothing
        self._tls = tls
        self._up: asyncio.Queue[regional_pb2.UplinkMessage] = asyncio.Queue()

    async def __aenter__(self) -> "FakeRegion":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            self._up = asyncio.Queue()
            async with rpc.channel(self.address, ca=self._tls.ca, client=self._tls) as channel:
                try:
                    await self._session(channel)
                except grpc.aio.AioRpcError as error:
                    self.refusals.append(error.details() or "")
            await asyncio.sleep(0.05)

    async def _session(self, channel: grpc.aio.Channel) -> None:
        hello = regional_pb2.RegionHello(region=self.model.name, term=self.model.term, heard=self.heard)
        self._up.put_nowait(regional_pb2.UplinkMessage(hello=hello))
        self._up.put_nowait(regional_pb2.UplinkMessage(heartbeat=regional_pb2.RegionHeartbeat(seq=1)))
        async for message in regional_pb2_grpc.UplinkStub(channel).Session(self._messages()):
            match message.WhichOneof("body"):
                case "welcome":
                    self.welcomes.append(message.welcome)
                    self._say(regional_pb2.UplinkMessage(summary=self.summary()))
                case "tokens":
                    self.tokens = message.tokens
                case "heartbeat_ack":
                    self.acked_heartbeats += 1
                case "forward":
                    self._answer(message.forward)
            for answer in self.model.hear(message):
                self._say(answer)
            self._work()

    def summary(self) -> objects_pb2.RegionSummary:
        room = objects_pb2.Resources(cpu_milli=4_000, memory_mib=8_192)
        return objects_pb2.RegionSummary(nodes_ready=1, nodes_total=1, capacity=room, largest_node=room)

    def _work(self) -> None:
        if self.runs:
            self.model.run_everything()
        for tenant in self.model.slices:
            self._say(self.model.ack(tenant))
        if self.runs:
            for report in self.model.reports():
                self._say(report)

    def _answer(self, forward: regional_pb2.Forward) -> None:
        if forward.cancel:
            return
        nodes = [objects_pb2.Node(metadata=objects_pb2.Metadata(name=n), region=self.model.name) for n in self.nodes]
        token = objects_pb2.JoinToken(id=f"of-{self.model.name}", region=self.model.name)
        parts = {
            "Logs": [b"a", b"b", b"c"],
            "Why": [],
            "ListNodes": [regional_pb2.ListNodesResponse(nodes=nodes).SerializeToString()],
            "ListSlots": [regional_pb2.ListSlotsResponse(revision=1).SerializeToString()],
            "ListJoinTokens": [regional_pb2.ListJoinTokensResponse(tokens=[token]).SerializeToString()],
            "RevokeJoinToken": [regional_pb2.RevokeJoinTokenResponse(record=token).SerializeToString()],
            "UpdateNode": [regional_pb2.UpdateNodeResponse(node=n).SerializeToString() for n in nodes],
        }.get(forward.method, [forward.request])
        for part in parts:
            data = regional_pb2.LogsChunk(data=part).SerializeToString() if forward.method == "Logs" else part
            answer = regional_pb2.ForwardAnswer(id=forward.id, response=data)
            self._say(regional_pb2.UplinkMessage(answer=answer))
        last = regional_pb2.ForwardAnswer(id=forward.id, last=True)
        if forward.method == "Why":
            last.error_code, last.error_message = "E1004", "no such slot"
        self._say(regional_pb2.UplinkMessage(answer=last))

    def _say(self, message: regional_pb2.UplinkMessage) -> None:
        self._up.put_nowait(message)

    async def _messages(self) -> AsyncIterator[regional_pb2.UplinkMessage]:
        while True:
            yield await self._up.get()
