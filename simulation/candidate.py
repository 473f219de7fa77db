"""One regional process in the simulator: campaigns, leads with the production core, is killed, paused, started again.

Decides nothing about scheduling. It is the shell of `regional/` in virtual time: the same core, the same lanes, another
way to the store. Its election is the protocol of atoll/election.py in three steps: lease, winning transaction, listing.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.lane import Authority, Deposed, Lane
from atoll.store import keys
from atoll.store.store import Applied, Get, LeaseGone, Outcome, Put, Read, Txn, absent
from regional.config import CoreSettings
from regional.core import commands, events
from regional.core.machine import Machine
from simulation.process import Process
from simulation.storeclient import StoreClient

if TYPE_CHECKING:
    from simulation.world import World

LEASE_TTL_S = 6
KEEP_ALIVE_MS = 2_000
CAMPAIGN_MS = 500


class Candidate(Process):
    """Two of them make a region that survives the loss of its leader."""

    def __init__(self, world: "World", region: str, number: int, settings: CoreSettings, rate: float) -> None:
        super().__init__(world.kernel, f"{region}-{number}", rate)
        self.world = world
        self.region = region
        self.root = keys.region_root(region)
        self.store = StoreClient(world.kernel, world.state, world.faults)
        self.machine: Machine | None = None
        self.leading = False
        self._settings = settings
        self._lanes: dict[int, Lane] = {}
        self._sent_ms: dict[int, int] = {}
        self._lease = 0
        self._nonce = 0
        self._wake_scheduled_ms: int | None = None

    # ---- life

    def start(self) -> None:
        super().start()
        self.machine = Machine(self.region, self._settings)
        self.leading = False
        self._wake_scheduled_ms = None
        self._campaign()

    def kill(self) -> None:
        super().kill()
        self.leading = False
        self.machine = None
        self.world.region_died(self)

    # ---- election

    def _campaign(self) -> None:
        state = self.world.state
        leader = state.get(keys.leader(self.root))
        if leader is not None or self.leading or self.store.cut_off:
            self.after(CAMPAIGN_MS, b"campaign " + self.label, self._campaign)
            return
        lease = state.grant(LEASE_TTL_S, self.kernel.now_ms)
        self._lease = lease.id
        self._nonce += 1
        value = objects_pb2.Leader(name=self.name, nonce=f"{self.name}.{self.life}.{self._nonce}")
        txn = Txn(
            compares=(absent(keys.leader(self.root)),),
            success=(
                Put(keys.leader(self.root), value.SerializeToString(deterministic=True), lease.id),
                Get(keys.store_life(self.root)),
            ),
        )
        self.store.transact(txn, self._heard(lambda outcome: self._elected(lease.id, outcome)))

    def _elected(self, lease: int, outcome: Outcome) -> None:
        if not isinstance(outcome, Applied):
            # Whatever became of it: without the lease it cannot make a leader, and the next try has another one.
            self.world.state.revoke(lease)
            self.after(CAMPAIGN_MS, b"campaign " + self.label, self._campaign)
            return
        store_life = outcome.reads[0]
        authority = Authority(
            self.root,
            outcome.revision,
            objects_pb2.StoreLife.FromString(store_life.value).number if store_life else 0,
            store_life.mod_revision if store_life else 0,
        )
        self.after(KEEP_ALIVE_MS, b"keep-alive", self._keep_alive)
        life = self.life
        self.store.list_all(self.root, lambda read: self.does(life, lambda: self._take_over(authority, read)))

    def _take_over(self, authority: Authority, read: Read) -> None:
        lanes = {item.key: item.mod_revision for item in read.items}
        self._lanes = {
            i: Lane(authority, i, lanes.get(keys.lane(self.root, i), 0)) for i in range(self._settings.lanes)
        }
        self.leading = True
        self.post(events.LeadershipWon(authority, read.items, read.revision))
        self.world.region_leads(self)

    def _keep_alive(self) -> None:
        if not self.leading:
            return
        try:
            if not self.store.cut_off:
                self.world.state.keep_alive(self._lease, self.kernel.now_ms)
        except LeaseGone:
            self._lose("the lease is gone")
            return
        self.after(KEEP_ALIVE_MS, b"keep-alive", self._keep_alive)

    def _lose(self, reason: str) -> None:
        if not self.leading:
            return
        self.leading = False
        self.world.state.revoke(self._lease)
        self.post(events.LeadershipLost(reason))
        self.world.region_died(self)
        self.after(CAMPAIGN_MS, b"campaign " + self.label, self._campaign)

    # ---- the core

    def post(self, event: events.Event) -> None:
        assert self.machine is not None
        for command in self.machine.handle(event, self.clock_ms()):
            self._execute(command)
        self._schedule_wake()

    def _schedule_wake(self) -> None:
        assert self.machine is not None
        deadline = self.machine.next_deadline()
        if deadline is None or (self._wake_scheduled_ms is not None and self._wake_scheduled_ms <= deadline):
            return
        self._wake_scheduled_ms = deadline
        self.after(self.due_in(deadline), b"wake " + self.label, lambda: self._wake(deadline))

    def _wake(self, scheduled_ms: int) -> None:
        if self._wake_scheduled_ms != scheduled_ms:
            return
        self._wake_scheduled_ms = None
        self.post(events.Woke())

    def _execute(self, command: commands.Command) -> None:
        match command:
            case commands.Commit(plan_id=plan_id, lane=lane, plan=plan):
                self._sent_ms[plan_id] = self.clock_ms()
                self._send(plan_id, self._lanes[lane], self._lanes[lane].begin(plan))
            case commands.SendToNode(session=session, message=message):
                self.world.to_node(self, session, message)
            case commands.CloseSession(session=session):
                self.world.close_session(self, session)
            case commands.SendUp(message=message):
                self.world.to_global(self, message)
            case commands.Resign(reason=reason):
                self.after(0, b"resign", lambda: self._lose(reason))
            case commands.Journal() | commands.Announce() | commands.Reply():
                pass

    def _send(self, plan_id: int, lane: Lane, txn: Txn) -> None:
        self.store.transact(txn, self._heard(lambda outcome: self._settle(plan_id, lane, outcome)))

    def _settle(self, plan_id: int, lane: Lane, outcome: Outcome) -> None:
        settled = lane.settle(outcome)
        if isinstance(settled, Txn):
            self.after(5, b"resend", lambda: self._send(plan_id, lane, settled))
            return
        if not self.leading or lane is not self._lanes.get(lane.index):
            return
        self.post(events.PlanSettled(plan_id, settled, self._sent_ms.pop(plan_id)))
        if isinstance(settled, Deposed):
            self._lose(settled.message)

    def _heard(self, done: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
        life = self.life
        return lambda outcome: self.does(life, lambda: done(outcome))

    # ---- what others say

    def hello(self, session: int, node: str, hello: agent_pb2.Hello) -> None:
        self.post(events.NodeHello(session, node, "default", (), hello))

    def heard_from_node(self, session: int, message: agent_pb2.AgentMessage) -> None:
        match message.WhichOneof("body"):
            case "heartbeat":
                self.post(events.NodeHeartbeat(session, message.heartbeat.seq))
            case "status":
                self.post(events.NodeStatus(session, message.status))

    def session_ended(self, session: int) -> None:
        self.post(events.NodeSessionEnded(session))

    def heard_from_global(self, message: regional_pb2.DownlinkMessage) -> None:
        match message.WhichOneof("body"):
            case "welcome":
                self.post(events.GlobalWelcomed(message.welcome))
            case "share":
                self.post(events.ShareArrived(message.share))
            case "slice_stamp":
                self.post(events.SliceArrived(message.slice_stamp))
