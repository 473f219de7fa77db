"""How a playground is waited for."""

from types import SimpleNamespace
from typing import Any, cast

from atoll.api.v1 import objects_pb2
from atoll.cli.playground import nodes_ready
from atoll.sdk.client import AsyncClient


class Told:
    """Regions whose nodes are ready; the global plane hears of one more of each region at each look."""

    def __init__(self) -> None:
        self.looks = 0
        self.nodes, self.regions = SimpleNamespace(list=self._nodes), SimpleNamespace(list=self._regions)

    async def _nodes(self, **_: Any) -> list[objects_pb2.Node]:
        return [objects_pb2.Node(state=objects_pb2.NODE_STATE_READY)] * 2

    async def _regions(self) -> list[objects_pb2.Region]:
        self.looks += 1
        known = objects_pb2.RegionSummary(nodes_ready=self.looks - 1)
        return [objects_pb2.Region(metadata=objects_pb2.Metadata(name=name), summary=known) for name in ("r1", "r2")]


async def test_nodes_are_ready_when_the_global_plane_knows_them_too() -> None:
    """Else what is applied at once would be judged as if a region had no room."""
    told = Told()
    await nodes_ready({"r1": 2, "r2": 1})(cast(AsyncClient, told))
    assert told.looks == 3
