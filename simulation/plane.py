"""One process of the global plane in the simulator: the shell of `global_cp/` around its production core.

Decides nothing. A call that its process cannot answer any more is never answered: users ask again.
"""

from typing import TYPE_CHECKING, Any

from atoll import zones
from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.errors import AtollError
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from global_cp.config import CoreSettings
from global_cp.core import commands, events
from global_cp.core.machine import Machine
from simulation.candidate import Candidate
from simulation.network import Stream
from simulation.region import RegionalCandidate

if TYPE_CHECKING:
    from simulation.world import World


class GlobalCandidate(Candidate):
    woke = events.Woke()

    def __init__(self, world: "World", number: int, state: MemoryState, settings: CoreSettings, rate: float) -> None:
        super().__init__(world, f"global-{number}", keys.GLOBAL, state, settings.lanes, rate)
        self._settings = settings
        self._hailed: set[int] = set()  # streams that have said hello

    def new_core(self) -> Machine:
        self._hailed.clear()
        return Machine(self._settings, zones.offset_ms)

    def carry_out(self, command: Any) -> None:
        match command:
            case commands.SendDown(session=session, message=message):
                self.network.down(session, message)
            case commands.CloseSession(session=session):
                self.network.cut(session)
            case commands.Reply(reply_to=call, answer=answer):
                self._reply(call, answer)
            case commands.Notify():
                self.world.receiver.take(self, command)
            case commands.Publish(event=event):
                self.kernel.note(event.SerializeToString())

    def ask(self, call: int, method: str, body: bytes) -> None:
        """A user's call, authorized at the border."""
        request = getattr(global_pb2, method).FromString(body)
        makes_token = isinstance(request, global_pb2.CreateUserTokenRequest)
        token = objects_pb2.UserToken(id=f"token-{call}", hash=b"%d" % call) if makes_token else None
        self.post(events.MutationAsked(call, request, token))

    def _reply(self, call: int, answer: Any) -> None:
        """An answer travels as its type and bytes, an error as its code."""
        if isinstance(answer, AtollError):
            said = (answer.code, b"")
        else:
            said = (type(answer).__name__, self.network.on_the_wire(answer))
        self.kernel.note(said[0].encode())
        self.kernel.after(self.network.delay(), b"reply", lambda: self.world.users.hear(call, *said))

    # ---- regions

    def from_below(self, stream: Stream, data: bytes) -> None:
        message = regional_pb2.UplinkMessage.FromString(data)
        if message.HasField("hello"):
            assert isinstance(stream.below, RegionalCandidate)
            self._hailed.add(stream.number)
            self.post(events.RegionConnected(stream.number, stream.below.region, message.hello))
        elif stream.number in self._hailed:
            self.post(events.RegionSaid(stream.number, message))

    def lost_below(self, stream: Stream) -> None:
        self._hailed.discard(stream.number)
        self.post(events.RegionGone(stream.number))
