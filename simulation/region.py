"""One regional process in the simulator: the shell of `regional/` around its production core.

Decides nothing about scheduling. A leader dials the global plane as regional/uplink.py does: hello, heartbeats,
silence, back-off; what cannot be sent is dropped, because a welcome has everything sent again.
"""

from typing import TYPE_CHECKING, Any

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.lane import Authority
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from regional.config import CoreSettings
from regional.core import commands, events
from regional.core.machine import Machine
from simulation.candidate import Candidate
from simulation.network import Stream
from simulation.node import Node
from simulation.operators import COUNTRY

if TYPE_CHECKING:
    from simulation.world import World

HEARTBEAT_MS, SILENCE_MS = 2_000, 6_000  # as regional.config.Settings has them for the uplink
BACKOFF_MS, BACKOFF_MAX_MS = 200, 2_000


class RegionalCandidate(Candidate):
    woke = events.Woke()

    def __init__(
        self, world: "World", region: str, number: int, state: MemoryState, settings: CoreSettings, rate: float
    ) -> None:
        super().__init__(world, f"{region}-{number}", keys.region_root(region), state, settings.lanes, rate)
        self.region = region
        self.machine: Machine | None = None
        self._settings = settings
        self.tokens: set[str] = set()  # ids of the user tokens that it takes
        self._uplink = 0  # the stream to the global plane, 0 = none
        self._welcomed = False
        self._heard_ms = 0
        self._backoff_ms = BACKOFF_MS

    def new_core(self) -> Machine:
        self.machine = Machine(self.region, self._settings)
        self._uplink, self._welcomed = 0, False
        return self.machine

    def kill(self) -> None:
        self.network.cut(self._uplink)
        super().kill()
        self.machine = None

    def carry_out(self, command: Any) -> None:
        match command:
            case commands.SendToNode(session=session, message=message):
                self.network.down(session, message)
            case commands.CloseSession(session=session):
                self.network.cut(session)
            case commands.SendUp(message=message):
                if self._welcomed:
                    self.network.up(self._uplink, message)
            case commands.KeepTokens(tokens=tokens):
                self.tokens = {token.id for token in tokens.tokens}
            case commands.LeaveGlobal():
                self.network.cut(self._uplink)
            case commands.Reply():
                self.kernel.after(self.network.delay(), b"reply", lambda: self.world.operators.hear(command))
            case commands.Journal(decision=decision):
                self.world.policies.decided(self.region, decision)
            case _:
                pass  # timeline

    # ---- nodes

    def from_below(self, stream: Stream, data: bytes) -> None:
        message = agent_pb2.AgentMessage.FromString(data)
        match message.WhichOneof("body"):
            case "hello":
                node = stream.below
                assert isinstance(node, Node)
                self.post(
                    events.NodeHello(
                        stream.number, node.name, "default", (), message.hello, node.certificate_expires_ms
                    )
                )
            case "heartbeat":
                self.post(events.NodeHeartbeat(stream.number, message.heartbeat.seq))
            case "status":
                self.post(events.NodeStatus(stream.number, message.status))

    def lost_below(self, stream: Stream) -> None:
        self.post(events.NodeSessionEnded(stream.number))

    # ---- the uplink

    def leads(self, authority: Authority) -> None:
        self._backoff_ms = BACKOFF_MS
        self._dial(authority)

    def stands_by(self) -> None:
        """The uplink ends with the reign: the next one says hello for itself."""
        self.network.cut(self._uplink)
        self._uplink, self._welcomed = 0, False

    def _dial(self, authority: Authority) -> None:
        if not self.leading or self._uplink or self.machine is None or self.machine.state is None:
            return
        if self.machine.state.authority != authority:
            return  # of an earlier reign
        self._uplink = self.network.dial(self, self.world.leading(self.world.planes))
        if not self._uplink:
            self._dial_later(authority)
            return
        self._heard_ms = self.clock_ms()
        hello = regional_pb2.RegionHello(
            region=self.region,
            term=authority.term,
            epoch=self.machine.state.epoch,
            heard=objects_pb2.GlobalReign(store_life=self.machine.state.heard[0], term=self.machine.state.heard[1]),
            store_life=authority.store_life,
            labels=[objects_pb2.Label(key=COUNTRY, value=self.region.partition("-")[0])],
        )
        self.network.up(self._uplink, regional_pb2.UplinkMessage(hello=hello))
        self._beat(self._uplink)

    def _dial_later(self, authority: Authority) -> None:
        delay_ms = self.kernel.between(self._backoff_ms // 2, self._backoff_ms)
        self._backoff_ms = min(2 * self._backoff_ms, BACKOFF_MAX_MS)
        self.after(delay_ms, b"dial " + self.label, lambda: self._dial(authority))

    def _beat(self, stream: int) -> None:
        if stream != self._uplink:
            return
        if not self.leading or self.clock_ms() - self._heard_ms > SILENCE_MS:
            self.network.cut(stream)
            return
        if self._welcomed:
            beat = regional_pb2.RegionHeartbeat(seq=self._heard_ms)
            self.network.up(stream, regional_pb2.UplinkMessage(heartbeat=beat))
        self.after(HEARTBEAT_MS, b"uplink beat", lambda: self._beat(stream))

    def from_above(self, stream: Stream, data: bytes) -> None:
        if stream.number != self._uplink:
            return
        self._heard_ms = self.clock_ms()
        message = regional_pb2.DownlinkMessage.FromString(data)
        body = message.WhichOneof("body")
        if body == "welcome":
            self._welcomed, self._backoff_ms = True, BACKOFF_MS
            self.post(events.GlobalWelcomed(message.welcome))
        elif body == "listed":
            self.post(events.GlobalListed(message.listed))
        elif body == "tokens":
            self.post(events.TokensTold(message.tokens))
        elif body in ("share", "slice_stamp"):
            self._take(message)
            if self.kernel.chance(self.world.faults.stale_share):
                self.after(self.kernel.between(100, 10_000), b"stale", lambda: self._take_again(message))

    def _take(self, message: regional_pb2.DownlinkMessage) -> None:
        if message.HasField("share"):
            self.post(events.ShareArrived(message.share))
        else:
            self.post(events.SliceArrived(message.slice_stamp))

    def _take_again(self, message: regional_pb2.DownlinkMessage) -> None:
        """A copy that newer ones have overtaken; of no workload that is forgotten already, for a stream keeps order."""
        state = self.machine.state if self.machine else None
        of = message.share.metadata
        if state and (not message.HasField("share") or (of.tenant, of.name) in state.workloads):
            self._take(message)

    def lost_above(self, stream: Stream) -> None:
        if stream.number != self._uplink:
            return
        welcomed, self._uplink, self._welcomed = self._welcomed, 0, False
        if welcomed:
            self.post(events.GlobalLost("the uplink has ended"))
        if self.leading and self.machine and self.machine.state:
            self._dial_later(self.machine.state.authority)
