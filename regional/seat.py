"""Whether this process leads its region, as its core has been told; and who does otherwise."""

from atoll.api.v1 import objects_pb2
from atoll.clock import Clock
from atoll.errors import Unavailable
from atoll.store import keys
from atoll.store.store import Store, StoreUnavailable

_REMEMBERED_MS = 1_000


class Seat:
    """`leading` is set by the loop, between the core's events: what follows it in the loop meets a leading core."""

    def __init__(self, store: Store, root: bytes, clock: Clock) -> None:
        self.leading = False
        self._store = store
        self._key = keys.leader(root)
        self._clock = clock
        self._address = ""
        self._asked_ms = -_REMEMBERED_MS

    async def leader_address(self) -> str:
        """Where the leader's programs port is, not older than a second; empty when nobody leads or nobody knows."""
        now_ms = self._clock.now_ms()
        if now_ms - self._asked_ms >= _REMEMBERED_MS:
            self._asked_ms = now_ms
            try:
                item, _ = await self._store.get(self._key)
            except StoreUnavailable:
                item = None
            self._address = objects_pb2.Leader.FromString(item.value).address if item else ""
        return self._address

    async def require_leading(self) -> None:
        """Raises Unavailable on a standby."""
        if not self.leading:
            address = await self.leader_address()
            raise Unavailable(f"this is a standby; the region's leader: {address or 'not known'}")
