"""Nodes: what there is, what runs there, and what operators do to them."""

from collections.abc import Iterable, Mapping, Sequence

from atoll import errors
from atoll.api.v1 import objects_pb2, regional_pb2, regional_pb2_grpc
from atoll.sdk.calls import Caller
from atoll.sdk.workloads import DEADLINE_S, PAGE_SIZE, new_request_id

Taint = objects_pb2.Taint


class Nodes:
    """`region` may be left out where only one has a node of that name. Every mutation has a request id: asked again it
    is done once."""

    def __init__(self, caller: Caller, stub: "regional_pb2_grpc.RegionalAsyncStub") -> None:
        self._caller = caller
        self._stub = stub

    async def list(
        self, *, region: str = "", name: str = "", page_within_s: float = DEADLINE_S
    ) -> Sequence[objects_pb2.Node]:
        """All pages; of every region when none is named; those with `name` only, and which images they have. Raises
        Unavailable when a page does not come in time."""
        request = regional_pb2.ListNodesRequest(region=region, name=name, page_size=PAGE_SIZE)
        return await self._pages(request, page_within_s)

    async def get(self, name: str, *, region: str = "") -> objects_pb2.Node:
        """With the names of its images. Raises NotFound, or Invalid where several regions have a node of that name."""
        nodes = await self.list(region=region, name=name)
        if not nodes:
            raise errors.NotFound(f"there is no node {name!r}", hint="atoll get nodes")
        if len(nodes) > 1:
            message = f"must be named; one of: {', '.join(node.region for node in nodes)}"
            raise errors.Invalid("the region is not clear", mistakes=(errors.Mistake("region", message),))
        return nodes[0]

    async def slots(self, name: str, *, region: str = "") -> Sequence[regional_pb2.SlotView]:
        """What is bound to the node, of every tenant that the caller may see. All pages."""
        request = regional_pb2.ListSlotsRequest(region=region, node=name, page_size=PAGE_SIZE)
        found: Sequence[regional_pb2.SlotView] = ()
        while True:
            page = await self._caller.read(self._stub.ListSlots, request, deadline_s=DEADLINE_S)
            found = (*found, *page.slots)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def cordon(self, name: str, *, reason: str = "", region: str = "", request_id: str = "") -> objects_pb2.Node:
        """No new work; what runs there stays. Ends a drain. Raises NotFound."""
        request = regional_pb2.UpdateNodeRequest(duty=regional_pb2.NODE_DUTY_CORDON, reason=reason)
        return await self._update(request, name, region, request_id)

    async def uncordon(self, name: str, *, region: str = "", request_id: str = "") -> objects_pb2.Node:
        """Takes work again; ends a cordon and a drain. Raises NotFound."""
        request = regional_pb2.UpdateNodeRequest(duty=regional_pb2.NODE_DUTY_SERVE)
        return await self._update(request, name, region, request_id)

    async def drain(
        self, name: str, *, reason: str, deadline_s: int = 0, region: str = "", request_id: str = ""
    ) -> objects_pb2.Node:
        """Begins to move its work away; `slots` of the node says how much is left. After `deadline_s` (0: the region's
        default) what is left is stopped. Raises NotFound, Invalid."""
        request = regional_pb2.UpdateNodeRequest(
            duty=regional_pb2.NODE_DUTY_DRAIN, reason=reason, deadline_s=deadline_s
        )
        return await self._update(request, name, region, request_id)

    async def label(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        remove: Iterable[str] = (),
        region: str = "",
        request_id: str = "",
    ) -> objects_pb2.Node:
        """Sets labels that win over what the node says of itself, or removes such. Raises NotFound, Invalid."""
        pairs = [objects_pb2.Label(key=key, value=value) for key, value in sorted(labels.items())]
        request = regional_pb2.UpdateNodeRequest(set_labels=pairs, remove_labels=sorted(remove))
        return await self._update(request, name, region, request_id)

    async def taint(
        self,
        name: str,
        taints: Iterable[Taint],
        *,
        remove: Iterable[Taint] = (),
        region: str = "",
        request_id: str = "",
    ) -> objects_pb2.Node:
        """Sets taints; removes those of a key and effect, or of every effect. Raises NotFound, Invalid."""
        request = regional_pb2.UpdateNodeRequest(set_taints=taints, remove_taints=remove)
        return await self._update(request, name, region, request_id)

    async def remove(
        self, name: str, *, reason: str = "", destroyed: bool = False, region: str = "", request_id: str = ""
    ) -> bool:
        """Forgets a node that holds no work and gets none; its certificate is refused from then on. `destroyed` vouches
        that a lost machine runs nothing any more. False: it goes as soon as that is written down everywhere. Raises
        NotFound, Conflict (with what is in the way)."""
        request = regional_pb2.RemoveNodeRequest(
            region=region,
            name=name,
            request_id=request_id or new_request_id(),
            reason=reason,
            destroyed=destroyed,
        )
        answer = await self._caller.write(
            self._stub.RemoveNode, request, request_id=request.request_id, deadline_s=DEADLINE_S
        )
        return answer.gone

    async def _pages(self, request: regional_pb2.ListNodesRequest, within_s: float) -> Sequence[objects_pb2.Node]:
        found: Sequence[objects_pb2.Node] = ()
        while True:
            page = await self._caller.read(self._stub.ListNodes, request, deadline_s=within_s)
            found = (*found, *page.nodes)
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def _update(
        self, request: regional_pb2.UpdateNodeRequest, name: str, region: str, request_id: str
    ) -> objects_pb2.Node:
        request.name, request.region, request.request_id = name, region, request_id or new_request_id()
        answer = await self._caller.write(
            self._stub.UpdateNode, request, request_id=request.request_id, deadline_s=DEADLINE_S
        )
        return answer.node
