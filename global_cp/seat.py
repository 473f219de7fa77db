"""What the edges read of the core: its present reign, and nothing when this is a standby."""

from atoll.errors import Unavailable
from atoll.leadership import Leadership
from global_cp.core.machine import Machine
from global_cp.core.reign import Reign


class Seat:
    def __init__(self, machine: Machine, leadership: Leadership) -> None:
        self._machine = machine
        self._leadership = leadership

    @property
    def reign(self) -> Reign | None:
        return self._machine.reign

    async def leading(self) -> Reign:
        """The present reign. Raises Unavailable on a standby."""
        await self._leadership.require_leading()
        if reign := self._machine.reign:
            return reign
        raise Unavailable("leadership was lost a moment ago")

    async def leader_address(self) -> str:
        """Where the leader's programs port is; empty when nobody knows."""
        return await self._leadership.leader_address()
