"""A global plane without a core: grants slices, sends shares, keeps what the region reports. Speaks the real protocol.

What it is told to want lives here and is sent whole to every session after its welcome, as the real one does, so a
region that was killed finds it again.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

from atoll import rpc
from atoll.api.v1 import objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.clock import SystemClock
from atoll.model.resources import Vector
from tests.support.pki import Pki

Down = regional_pb2.DownlinkMessage
TERM, STORE_LIFE, EPOCH = 5, 0, 1


class FakeUplink(regional_pb2_grpc.UplinkServicer):
    def __init__(self, pki: Pki) -> None:
        self.server = rpc.Server(pki.global_plane(), pki.find_user, SystemClock())
        self.server.add(regional_pb2_grpc.add_UplinkServicer_to_server, self)
        self.hellos: list[regional_pb2.RegionHello] = []
        self.reports: dict[tuple[str, str], regional_pb2.WorkloadReport] = {}
        self.acks: dict[str, objects_pb2.SliceAck] = {}
        self.tokens = regional_pb2.TokenSet()
        self._revision = itertools.count(100)
        self._calls = itertools.count(1)
        self._answers: dict[int, asyncio.Queue[regional_pb2.ForwardAnswer]] = {}
        self._wanted: dict[str, Down] = {}
        self._session: asyncio.Queue[Down] | None = None

    def grant(self, tenant: str, region: str, amount: Vector) -> None:
        """Sets the tenant's slice: granted and target are both `amount`."""
        revision = next(self._revision)
        account = objects_pb2.AccountSlice(
            account=objects_pb2.ACCOUNT_HARD, granted=amount.to_proto(), target=amount.to_proto()
        )
        granted = objects_pb2.Slice(tenant=tenant, region=region, epoch=EPOCH, seq=revision, accounts=[account])
        stamp = regional_pb2.SliceStamp(
            slice=granted, store_life=STORE_LIFE, global_term=TERM, global_revision=revision
        )
        self._want(f"slice/{tenant}", Down(slice_stamp=stamp))

    def share(self, share: objects_pb2.Share) -> None:
        """Sets what the region runs of one workload; orders it after all before."""
        sent = objects_pb2.Share()
        sent.CopyFrom(share)
        sent.epoch, sent.store_life, sent.global_term = EPOCH, STORE_LIFE, TERM
        sent.global_revision = next(self._revision)
        self._want(f"share/{share.metadata.tenant}/{share.metadata.name}", Down(share=sent))

    async def ask(self, method: str, request: Any) -> list[bytes]:
        """A forwarded call: its responses. Raises AssertionError with the code when it is refused."""
        number = next(self._calls)
        answers = self._answers[number] = asyncio.Queue()
        assert self._session is not None, "no region is connected"
        forward = regional_pb2.Forward(id=number, method=method, request=request.SerializeToString())
        self._session.put_nowait(Down(forward=forward))
        parts = []
        async with asyncio.timeout(10):
            while not (answer := await answers.get()).last:
                parts.append(answer.response)
        assert not answer.error_code, f"{answer.error_code}: {answer.error_message}"
        return parts

    async def Session(self, request_iterator: Any, context: Any) -> AsyncIterator[Down]:
        hello = await anext(aiter(request_iterator))
        self.hellos.append(hello.hello)
        session: asyncio.Queue[Down] = asyncio.Queue()
        self._session = session
        welcome = regional_pb2.GlobalWelcome(store_life=STORE_LIFE, term=TERM, epoch=EPOCH)
        for message in (Down(welcome=welcome), Down(tokens=self.tokens), *self._wanted.values()):
            session.put_nowait(message)
        reading = asyncio.create_task(self._read(request_iterator, session))
        try:
            while True:
                yield await session.get()
        finally:
            reading.cancel()

    def _want(self, key: str, message: Down) -> None:
        self._wanted[key] = message
        if self._session is not None:
            self._session.put_nowait(message)

    async def _read(self, messages: Any, session: asyncio.Queue[Down]) -> None:
        async for message in messages:
            match message.WhichOneof("body"):
                case "heartbeat":
                    session.put_nowait(Down(heartbeat_ack=message.heartbeat))
                case "workload":
                    self.reports[message.workload.tenant, message.workload.workload] = message.workload
                case "slice_ack":
                    self.acks[message.slice_ack.tenant] = message.slice_ack
                case "answer":
                    self._answers[message.answer.id].put_nowait(message.answer)
