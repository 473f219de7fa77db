"""Questions to several regions: asked at once, and one that is silent keeps no other from being heard."""

import asyncio
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import pytest

from atoll.api.v1 import objects_pb2, regional_pb2
from atoll.errors import Unavailable
from atoll.store import keys
from atoll.store.store import KeyValue
from global_cp.core.records import Records
from global_cp.proxy import RegionalProxy
from tests.support.virtual_time import run

PATIENCE_S, FORWARD_S = 5.0, 10.0


class _Link:
    """Regions that answer after a second, or, if they are silent, never."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent

    async def forward(
        self, region: str, method: str, request: bytes, *, changes: bool = False
    ) -> AsyncGenerator[bytes, None]:
        await asyncio.sleep(FORWARD_S if region in self.silent else 1)
        if region in self.silent:
            raise Unavailable(f"region {region} did not answer in {FORWARD_S:g} s")
        if method == "Why":
            yield regional_pb2.WhyResponse(slots=[regional_pb2.SlotWhy(region=region)]).SerializeToString()
        else:
            token = objects_pb2.JoinToken(id=f"of-{region}", region=region)
            yield regional_pb2.ListJoinTokensResponse(tokens=[token]).SerializeToString()


def _proxy(regions: tuple[str, ...], link: _Link) -> Any:
    records = Records()
    for name in regions:
        key = keys.region(name)
        region = objects_pb2.Region(metadata=objects_pb2.Metadata(name=name)).SerializeToString()
        records.adopt(key, KeyValue(key, region, 1, 1, 1))
        share = objects_pb2.Share(metadata=objects_pb2.Metadata(name="web", tenant="acme"), region=name)
        key = keys.share(name, "acme", "web")
        records.adopt(key, KeyValue(key, share.SerializeToString(), 1, 1, 1))
    key = keys.workload("acme", "web")
    workload = objects_pb2.Workload(metadata=objects_pb2.Metadata(name="web", tenant="acme"))
    records.adopt(key, KeyValue(key, workload.SerializeToString(), 1, 1, 1))

    async def leading() -> Any:
        return SimpleNamespace(records=records)

    seat: Any = SimpleNamespace(leading=leading)
    of: Any = link
    return RegionalProxy(seat, of, PATIENCE_S)


def test_silent_regions_are_named_after_one_patience() -> None:
    proxy = _proxy(("east", "north", "south"), _Link("east", "south"))

    async def ask() -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        listed = await proxy.ListJoinTokens(regional_pb2.ListJoinTokensRequest(), None)
        assert [token.id for token in listed.tokens] == ["of-north"] and listed.unreachable == ["east", "south"]
        assert clock() - began == pytest.approx(PATIENCE_S), "both at the same time"
        began = clock()
        why = await proxy.Why(regional_pb2.WhyRequest(tenant="acme", workload="web"), None)
        codes = {slot.region: [reason.code for reason in slot.reasons] for slot in why.slots}
        assert codes == {"east": ["RegionUnreachable"], "north": [], "south": ["RegionUnreachable"]}
        assert clock() - began == pytest.approx(PATIENCE_S)

    run(ask())


def test_the_only_region_has_its_time() -> None:
    proxy = _proxy(("east",), _Link("east"))

    async def ask() -> None:
        with pytest.raises(Unavailable, match="in 10 s"):
            await proxy.ListJoinTokens(regional_pb2.ListJoinTokensRequest(), None)

    run(ask())
