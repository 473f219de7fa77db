"""Whether this process leads the global plane, as its core has been told; and who does otherwise."""

from atoll.api.v1 import objects_pb2
from atoll.clock import Clock
from atoll.errors import Unavailable
from atoll.store import keys
from atoll.store.store import Store, StoreUnavailable
from global_cp.core.machine import Machine
from global_cp.core.reign import Reign

_REMEMBERED_MS = 1_000


class Seat:
    """What the edges read of the core: its present reign, and nothing when this is a standby."""

    def __init__(self, machine: Machine, store: Store, clock: Clock) -> None:
        self._machine = machine
        self._store = store
        self._clock = clock
        self._address = ""
        self._asked_ms = -_REMEMBERED_MS

    @property
    def reign(self) -> Reign | None:
        return self._machine.reign

    async def leading(self) -> Reign:
        """The present reign. Raises Unavailable on a standby."""
        if reign := self._machine.reign:
            return reign
        address = await self.leader_address()
        raise Unavailable(f"this is a standby; the leader is {f'at {address}' if address else 'not known'}")

    async def leader_address(self) -> str:
        """Where the leader's programs port is, not older than a second; empty when nobody leads or nobody knows."""
        now_ms = self._clock.now_ms()
        if now_ms - self._asked_ms >= _REMEMBERED_MS:
            self._asked_ms = now_ms
            try:
                item, _ = await self._store.get(keys.leader(keys.GLOBAL))
            except StoreUnavailable:
                item = None
            self._address = objects_pb2.Leader.FromString(item.value).address if item else ""
        return self._address
