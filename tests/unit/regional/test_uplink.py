"""The uplink against a real server that speaks the global plane's side, one message at a time, as each test says."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll import rpc
from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.clock import SystemClock
from atoll.errors import NotFound
from atoll.identity import Identity, TlsFiles
from regional.core.events import Event, GlobalLost, GlobalWelcomed, ShareArrived, SliceArrived, TokensTold
from regional.uplink import Uplink
from tests.support.pki import Pki
from tests.support.region import REGION, settings
from tests.support.wait import until

Down = regional_pb2.DownlinkMessage
WELCOME = regional_pb2.GlobalWelcome(store_life=1, term=5, epoch=3)
FAST = {"uplink_heartbeat_ms": 20, "uplink_silence_ms": 400, "uplink_backoff_ms": 10, "uplink_backoff_max_ms": 20}


class Talk:
    """One session as the global plane sees it."""

    def __init__(self, identity: Identity, messages: AsyncIterator[regional_pb2.UplinkMessage]) -> None:
        self.identity = identity
        self.messages = messages
        self.down: asyncio.Queue[Down | None] = asyncio.Queue()

    def say(self, **body: Any) -> None:
        self.down.put_nowait(Down(**body))

    def hang_up(self) -> None:
        self.down.put_nowait(None)

    async def hear(self, body: str) -> Any:
        """The next message of this kind; others are passed over."""
        async with asyncio.timeout(10):
            async for message in self.messages:
                if message.WhichOneof("body") == body:
                    return getattr(message, body)
        raise AssertionError("the region hung up")


class GlobalSide(regional_pb2_grpc.UplinkServicer):
    def __init__(self, pki: Pki, name: str = "g1") -> None:
        self.talks: asyncio.Queue[Talk] = asyncio.Queue()
        self.server = rpc.Server(pki.global_plane(name), pki.find_user, SystemClock())
        self.server.add(regional_pb2_grpc.add_UplinkServicer_to_server, self)

    async def Session(self, request_iterator: Any, context: Any) -> AsyncIterator[Down]:
        talk = Talk(rpc.identity_of(context), request_iterator)
        self.talks.put_nowait(talk)
        while (message := await talk.down.get()) is not None:
            yield message

    async def talk(self) -> Talk:
        async with asyncio.timeout(10):
            return await self.talks.get()

    async def welcomed(self) -> Talk:
        talk = await self.talk()
        await talk.hear("hello")
        talk.say(welcome=WELCOME)
        return talk


class Answers:
    """The API behind forwarded calls."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def answer(self, method: str, request: bytes) -> AsyncIterator[bytes]:
        try:
            if method == "Missing":
                raise NotFound("no such slot")
            yield request + b"1"
            if method == "Endless":
                await asyncio.Event().wait()
            yield request + b"2"
        finally:
            self.ended.append(method)


class Region:
    def __init__(self, pki: Pki, folder: Path, addresses: list[str], **changes: Any) -> None:
        own = settings(pki, folder, global_plane=tuple(addresses), **{**FAST, **changes})
        self.posted: list[Event] = []
        self.answers = Answers()
        tls = TlsFiles(own.certificate, own.key, own.ca)
        self.uplink = Uplink(own, tls, self.answers, self.posted.append)
        self.dialled = 0

    def hello(self) -> regional_pb2.RegionHello:
        self.dialled += 1
        return regional_pb2.RegionHello(region=REGION, term=self.dialled, epoch=3)


@asynccontextmanager
async def linked(pki: Pki, folder: Path, **changes: Any) -> AsyncIterator[tuple[GlobalSide, Region]]:
    side = GlobalSide(pki)
    await side.server.start("127.0.0.1:0", "127.0.0.1:0")
    region = Region(pki, folder, [side.server.programs_address], **changes)
    task = asyncio.create_task(region.uplink.run(region.hello))
    yield side, region
    task.cancel()
    await side.server.stop(0)


async def test_the_region_says_hello_as_itself_and_is_welcomed(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path) as (side, region):
        talk = await side.talk()
        assert await talk.hear("hello") == regional_pb2.RegionHello(region=REGION, term=1, epoch=3)
        assert (talk.identity.role, talk.identity.region) == (objects_pb2.ROLE_REGION, REGION)
        talk.say(welcome=WELCOME)
        await until(lambda: region.posted == [GlobalWelcomed(WELCOME)])


async def test_shares_slices_and_tokens_become_events(pki: Pki, tmp_path: Path) -> None:
    share = objects_pb2.Share(region=REGION, global_revision=7)
    stamp = regional_pb2.SliceStamp(global_revision=8)
    async with linked(pki, tmp_path) as (side, region):
        talk = await side.welcomed()
        talk.say(share=share)
        talk.say(slice_stamp=stamp)
        tokens = regional_pb2.TokenSet(tokens=[objects_pb2.UserToken(id="u")])
        talk.say(tokens=tokens)
        told = [GlobalWelcomed(WELCOME), ShareArrived(share), SliceArrived(stamp), TokensTold(tokens)]
        await until(lambda: region.posted == told)


async def test_a_session_that_the_core_will_not_have_ends_and_another_is_dialled(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path) as (side, region):
        talk = await side.welcomed()
        await until(lambda: region.posted)
        region.uplink.leave("its leader was deposed")
        await side.talk()
        assert isinstance(region.posted[-1], GlobalLost)
        with pytest.raises(AssertionError, match="hung up"):
            await talk.hear("hello")


async def test_reports_go_up_once_welcomed_and_are_dropped_before(pki: Pki, tmp_path: Path) -> None:
    def report(name: str) -> regional_pb2.UplinkMessage:
        return regional_pb2.UplinkMessage(workload=regional_pb2.WorkloadReport(workload=name))

    async with linked(pki, tmp_path) as (side, region):
        region.uplink.send(report("too-early"))
        talk = await side.welcomed()
        await until(lambda: region.posted)
        region.uplink.send(report("a"))
        region.uplink.send(report("b"))
        assert [(await talk.hear("workload")).workload for _ in range(2)] == ["a", "b"]


async def test_heartbeats_are_sent_and_silence_ends_the_session(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path) as (side, region):
        talk = await side.welcomed()
        for seq in range(1, 4):
            beat = await talk.hear("heartbeat")
            assert beat.seq >= seq
            talk.say(heartbeat_ack=beat)
        await side.talk()  # silent from here on: the region dials again
        assert isinstance(region.posted[-1], GlobalLost)


async def test_a_lost_session_is_told_once_and_dialled_again_with_a_fresh_hello(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path) as (side, region):
        (await side.welcomed()).hang_up()
        talk = await side.talk()
        assert (await talk.hear("hello")).term == 2
        talk.say(welcome=WELCOME)
        await until(lambda: len(region.posted) == 3)
        assert [type(event) for event in region.posted] == [GlobalWelcomed, GlobalLost, GlobalWelcomed]


async def test_a_standby_of_the_global_plane_names_its_leader(pki: Pki, tmp_path: Path) -> None:
    leader = GlobalSide(pki, "g2")
    await leader.server.start("127.0.0.1:0", "127.0.0.1:0")
    async with linked(pki, tmp_path) as (standby, region):
        talk = await standby.talk()
        talk.say(not_leader=agent_pb2.NotLeader(address=leader.server.programs_address))
        await leader.welcomed()
        await until(lambda: region.posted[:1] == [GlobalWelcomed(WELCOME)])
    await leader.server.stop(0)


async def test_a_session_that_has_ended_leaves_nothing_behind(pki: Pki, tmp_path: Path) -> None:
    strays = list[str]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: strays.append(context["message"]))
    async with linked(pki, tmp_path) as (standby, _):
        for _ in range(3):
            (await standby.talk()).say(not_leader=agent_pb2.NotLeader())
            gc.collect()
        await standby.welcomed()
        gc.collect()
        assert strays == []


async def test_a_leader_that_was_silent_is_not_dialled_again_because_a_standby_names_it(
    pki: Pki, tmp_path: Path
) -> None:
    frozen, standby = GlobalSide(pki, "g1"), GlobalSide(pki, "g2")
    for side in (frozen, standby):
        await side.server.start("127.0.0.1:0", "127.0.0.1:0")
    addresses = [frozen.server.programs_address, standby.server.programs_address]
    region = Region(pki, tmp_path, addresses, uplink_silence_ms=1500)
    task = asyncio.create_task(region.uplink.run(region.hello))
    await frozen.talk()  # and says nothing
    for _ in range(2):
        (await standby.talk()).say(not_leader=agent_pb2.NotLeader(address=frozen.server.programs_address))
    await standby.welcomed()
    assert frozen.talks.empty()
    await until(lambda: region.posted[:1] == [GlobalWelcomed(WELCOME)])
    task.cancel()
    for side in (frozen, standby):
        await side.server.stop(0)


async def test_addresses_are_tried_in_turn(pki: Pki, tmp_path: Path) -> None:
    side = GlobalSide(pki)
    await side.server.start("127.0.0.1:0", "127.0.0.1:0")
    region = Region(pki, tmp_path, ["127.0.0.1:1", side.server.programs_address])
    task = asyncio.create_task(region.uplink.run(region.hello))
    await side.welcomed()
    task.cancel()
    await side.server.stop(0)


async def test_an_overfull_queue_ends_the_session_instead_of_growing(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path, uplink_queue_messages=5) as (side, region):
        await side.welcomed()
        await until(lambda: region.posted)
        for _ in range(50):
            region.uplink.send(regional_pb2.UplinkMessage(summary=objects_pb2.RegionSummary()))
        await side.talk()
        assert isinstance(region.posted[-1], GlobalLost)


async def answers(talk: Talk, count: int) -> list[regional_pb2.ForwardAnswer]:
    return [await talk.hear("answer") for _ in range(count)]


async def test_forwarded_calls_are_answered_part_by_part(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path) as (side, _):
        talk = await side.welcomed()
        talk.say(forward=regional_pb2.Forward(id=4, method="Logs", request=b"x"))
        heard = await answers(talk, 3)
        assert [(a.id, a.response, a.last) for a in heard] == [(4, b"x1", False), (4, b"x2", False), (4, b"", True)]


async def test_a_refused_forward_carries_its_code(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path) as (side, _):
        talk = await side.welcomed()
        talk.say(forward=regional_pb2.Forward(id=1, method="Missing"))
        (answer,) = await answers(talk, 1)
        assert (answer.last, answer.error_code, answer.error_message) == (True, "E1004", "no such slot")
        assert answer.error_detail.message == "no such slot"


async def test_a_cancelled_forward_ends_its_call(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path) as (side, region):
        talk = await side.welcomed()
        talk.say(forward=regional_pb2.Forward(id=1, method="Endless"))
        await answers(talk, 1)
        talk.say(forward=regional_pb2.Forward(id=1, cancel=True))
        await until(lambda: region.answers.ended == ["Endless"])


async def test_too_many_forwards_at_once_are_refused(pki: Pki, tmp_path: Path) -> None:
    async with linked(pki, tmp_path, uplink_forwards=1) as (side, _):
        talk = await side.welcomed()
        talk.say(forward=regional_pb2.Forward(id=1, method="Endless"))
        talk.say(forward=regional_pb2.Forward(id=2, method="Logs"))
        heard = await answers(talk, 2)
        assert [(a.id, a.error_code) for a in heard if a.last] == [(2, "E5008")]
