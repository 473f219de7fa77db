"""A process that campaigns for one root and leads with a production core: killed, paused, started again.

Decides nothing that a core decides. It is what the shells of the regional process and of the global plane share, in
virtual time: the same lanes, another way to the store. Its election is the protocol of atoll/election.py in three
steps: lease, winning transaction, listing.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from atoll.api.v1 import objects_pb2
from atoll.lane import Authority, Deposed, Lane
from atoll.reign import Commit, LeadershipLost, LeadershipWon, PlanSettled, RecordsRead, Resign
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from atoll.store.store import Applied, Get, LeaseGone, Outcome, Put, Read, Txn, absent
from simulation.network import End
from simulation.storeclient import StoreClient

if TYPE_CHECKING:
    from simulation.world import World

LEASE_TTL_S = 6
KEEP_ALIVE_MS = 2_000
CAMPAIGN_MS = 500


class Core(Protocol):
    def handle(self, event: Any, now_ms: int) -> Sequence[Any]: ...

    def next_deadline(self) -> int | None: ...


class Candidate(End):
    """Two of them make a plane that survives the loss of its leader."""

    woke: object  # the event of its core that says that a deadline has come

    def __init__(self, world: "World", name: str, root: bytes, state: MemoryState, lanes: int, rate: float) -> None:
        super().__init__(world.kernel, name, rate)
        self.world = world
        self.network = world.network
        self.root = root
        self.state = state
        self.store = StoreClient(world.kernel, state, world.faults)
        self.leading = False
        self.core: Core | None = None
        self._lane_count = lanes
        self._lanes: dict[int, Lane] = {}
        self._sent_ms: dict[int, int] = {}
        self._lease = 0
        self._nonce = 0
        self._wake_scheduled_ms: int | None = None
        self._wake_name = b"wake " + self.label

    # ---- what a plane adds

    def new_core(self) -> Core:
        raise NotImplementedError

    def carry_out(self, command: Any) -> None:
        """A command other than those of a reign."""
        raise NotImplementedError

    def leads(self, authority: Authority) -> None:
        """Its core has heard of the win."""

    def stands_by(self) -> None:
        """It leads no more."""

    # ---- life

    def start(self) -> None:
        super().start()
        self.core = self.new_core()
        self.leading = False
        self._wake_scheduled_ms = None
        self._campaign()

    def kill(self) -> None:
        super().kill()
        self.leading = False
        self.core = None
        self.network.left(self)

    # ---- election

    def _campaign(self) -> None:
        if self.state.get(keys.leader(self.root)) is not None or self.leading or self.store.cut_off:
            self.after(CAMPAIGN_MS, b"campaign " + self.label, self._campaign)
            return
        lease = self.state.grant(LEASE_TTL_S, self.kernel.now_ms)
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
            self.state.revoke(lease)
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
        self._lanes = {i: Lane(authority, i, lanes.get(keys.lane(self.root, i), 0)) for i in range(self._lane_count)}
        self.leading = True
        middle = len(read.items) // 2
        self.post(RecordsRead(authority, read.items[:middle]))
        self.post(LeadershipWon(authority, read.items[middle:], read.revision))
        self.leads(authority)

    def _keep_alive(self) -> None:
        if not self.leading:
            return
        try:
            if not self.store.cut_off:
                self.state.keep_alive(self._lease, self.kernel.now_ms)
        except LeaseGone:
            self._lose("the lease is gone")
            return
        self.after(KEEP_ALIVE_MS, b"keep-alive", self._keep_alive)

    def _lose(self, reason: str) -> None:
        if not self.leading:
            return
        self.leading = False
        self.state.revoke(self._lease)
        self.post(LeadershipLost(reason))
        self.stands_by()
        self.network.left(self)
        self.after(CAMPAIGN_MS, b"campaign " + self.label, self._campaign)

    # ---- the core

    def post(self, event: object) -> None:
        core, now_ms = self.core, self.clock_ms()
        assert core is not None
        for command in core.handle(event, now_ms):
            if type(command) is Commit:
                self._commit(command)
            elif type(command) is Resign:
                self._resign(command.reason)
            else:
                self.carry_out(command)
        self._schedule_wake(now_ms)

    def _schedule_wake(self, now_ms: int) -> None:
        assert self.core is not None
        deadline = self.core.next_deadline()
        if deadline is None or (self._wake_scheduled_ms is not None and self._wake_scheduled_ms <= deadline):
            return
        self._wake_scheduled_ms = deadline
        self.after(self.due_in(deadline, now_ms), self._wake_name, lambda: self._wake(deadline))

    def _wake(self, scheduled_ms: int) -> None:
        if self._wake_scheduled_ms != scheduled_ms:
            return
        self._wake_scheduled_ms = None
        self.post(self.woke)

    def _resign(self, reason: str) -> None:
        self.after(0, b"resign", lambda: self._lose(reason))

    def _commit(self, command: Commit) -> None:
        self._sent_ms[command.plan_id] = self.clock_ms()
        lane = self._lanes[command.lane]
        self._send(command.plan_id, lane, lane.begin(command.plan))

    def _send(self, plan_id: int, lane: Lane, txn: Txn) -> None:
        self.store.transact(txn, self._heard(lambda outcome: self._settle(plan_id, lane, outcome)))

    def _settle(self, plan_id: int, lane: Lane, outcome: Outcome) -> None:
        settled = lane.settle(outcome)
        if isinstance(settled, Txn):
            self.after(5, b"resend", lambda: self._send(plan_id, lane, settled))
            return
        if not self.leading or lane is not self._lanes.get(lane.index):
            return
        self.post(PlanSettled(plan_id, settled, self._sent_ms.pop(plan_id)))
        if isinstance(settled, Deposed):
            self._lose(settled.message)

    def _heard(self, done: Callable[[Outcome], None]) -> Callable[[Outcome], None]:
        life = self.life
        return lambda outcome: self.does(life, lambda: done(outcome))
