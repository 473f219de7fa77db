"""The global core over a memory store, without a loop: real machine, real lanes, real transactions, no waiting.

What the core asks for is done at once, but for commits when `hold_commits` is set: then a test decides when and how
each ends. At the end of a test the whole history is audited (`clean`).
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from google.protobuf.message import Message

from atoll import zones
from atoll.api.v1 import global_pb2, objects_pb2, regional_pb2
from atoll.audit import Auditor
from atoll.errors import AtollError
from atoll.lane import Authority, Lane
from atoll.model.resources import Vector
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from atoll.store.store import Applied, Put, Refused, Txn
from global_cp.config import CoreSettings
from global_cp.core import budgets, commands, events
from global_cp.core.commands import Command
from global_cp.core.machine import Machine
from global_cp.core.records import Records

HARD, BURST = objects_pb2.ACCOUNT_HARD, objects_pb2.ACCOUNT_BURST
QUOTA, UNIT, NOTHING = Vector(10_000, 10_000), Vector(500, 256), Vector()
DEFAULTS = CoreSettings()


class GlobalCore:
    def __init__(self, settings: CoreSettings = DEFAULTS, state: MemoryState | None = None) -> None:
        self.settings = settings
        self.state = state or MemoryState()
        self.now_ms = 1_000_000
        self.machine = Machine(settings, zones.offset_ms)
        self.after_commit: Callable[[], None] = lambda: None  # called at each revision
        self.hold_commits = False
        self.held: deque[commands.Commit] = deque()
        self.replies: dict[int, commands.Reply] = {}
        self.published: list[global_pb2.WorkloadEvent] = []
        self.down: dict[int, list[regional_pb2.DownlinkMessage]] = {}
        self.closed: dict[int, str] = {}
        self.resigned: list[str] = []
        self.announced: list[objects_pb2.Event] = []
        self.notified: list[commands.Notify] = []  # and not answered yet
        self.lanes: dict[int, Lane] = {}
        self._events: deque[events.Event] = deque()
        self._lease = 0
        self._asked = 0
        self._requests = 0

    # ---- authority

    def elect(self) -> Authority:
        """A new leader, after the end of the old one."""
        if self._lease:
            self.state.revoke(self._lease)
        self._lease = self.state.grant(3_600, now_ms=0).id
        leader = objects_pb2.Leader(name="g", nonce=str(self.state.revision))
        put = Put(keys.leader(keys.GLOBAL), leader.SerializeToString(), self._lease)
        outcome = self.state.transact(Txn(success=(put,)))
        assert isinstance(outcome, Applied)
        authority = Authority(keys.GLOBAL, term=outcome.revision)
        listed = self.state.range(keys.GLOBAL, b"/g0")
        revisions = {item.key: item.mod_revision for item in listed.items}
        self.held.clear()
        self.lanes = {
            index: Lane(authority, index, revisions.get(keys.lane(keys.GLOBAL, index), 0))
            for index in range(self.settings.lanes)
        }
        middle = len(listed.items) // 2
        self.post(events.RecordsRead(authority, listed.items[:middle]))
        self.post(events.LeadershipWon(authority, listed.items[middle:], listed.revision))
        return authority

    def crash(self, applied: int) -> None:
        """The process dies: of the commits it had sent the first `applied` had reached the store, the rest never do."""
        for command in list(self.held)[:applied]:
            self.state.transact(self.lanes[command.lane].begin(command.plan))
        self.held.clear()
        self.machine = Machine(self.settings, zones.offset_ms)

    # ---- the loop

    def post(self, event: events.Event) -> None:
        """Handles the event and all that follows from it, one event after the other as the loop does."""
        self._events.append(event)
        if len(self._events) > 1:
            return  # posted by what is being handled
        while self._events:
            before = _bytes_of(self._events[0])
            issued = self.machine.handle(self._events[0], self.now_ms)
            assert _bytes_of(self._events[0]) == before, "the core changed its input"
            self._do(issued)
            self._events.popleft()

    def pass_time(self, ms: int) -> None:
        """Wakes the core at each of its deadlines on the way."""
        end = self.now_ms + ms
        while (due := self.machine.next_deadline()) is not None and due <= end:
            self.now_ms = max(due, self.now_ms + 1)
            self.post(events.Woke())
        self.now_ms = end

    def release(self, count: int = 1_000_000) -> None:
        """Carries out held commits, the oldest first."""
        for _ in range(min(count, len(self.held))):
            if self.held:  # what follows from one may have carried out the others
                self._commit(self.held.popleft())

    def _do(self, issued: Sequence[Command]) -> None:
        for command in issued:
            match command:
                case commands.Commit():
                    self.held.append(command)
                    if not self.hold_commits:
                        self.release()
                case commands.Reply():
                    assert command.reply_to not in self.replies, "answered twice"
                    self.replies[command.reply_to] = command
                case commands.Publish():
                    self.published.append(command.event)
                case commands.SendDown():
                    self.down.setdefault(command.session, []).append(command.message)
                case commands.CloseSession():
                    self.closed[command.session] = command.reason
                case commands.Notify():
                    self.notified.append(command)
                case commands.Announce():
                    self.announced.append(command.event)
                case commands.Resign():
                    self.resigned.append(command.reason)

    def _commit(self, command: commands.Commit) -> None:
        lane = self.lanes[command.lane]
        outcome = self.state.transact(lane.begin(command.plan))
        assert isinstance(outcome, Applied | Refused)
        settled = lane.settle(outcome)
        assert not isinstance(settled, Txn)
        self.after_commit()
        self.post(events.PlanSettled(command.plan_id, settled, self.now_ms))

    # ---- users

    def start(self, request: Message, token: objects_pb2.UserToken | None = None) -> int:
        """Asks for a change; where its answer will be in `replies`."""
        if not request.request_id:  # type: ignore[attr-defined]
            self._requests += 1
            request.request_id = f"r{self._requests}"  # type: ignore[attr-defined]
        self._asked += 1
        self.post(events.MutationAsked(self._asked, request, token, by="ann"))
        return self._asked

    def ask(self, request: Message, token: objects_pb2.UserToken | None = None) -> "Message | AtollError":
        return self.replies[self.start(request, token)].answer

    def tenant(self, name: str = "acme", quota: Vector = QUOTA, **protected: Vector) -> "Message | AtollError":
        return self.ask(global_pb2.ApplyTenantRequest(tenant=tenant(name, quota, **protected)))

    def apply(self, workload: objects_pb2.Workload, **fields: object) -> "Message | AtollError":
        return self.ask(global_pb2.ApplyWorkloadRequest(workload=workload, **fields))  # type: ignore[arg-type]

    # ---- regions

    def connect(
        self,
        session: int,
        region: str = "north",
        term: int = 1,
        epoch: int = 0,
        heard: tuple[int, int] = (0, 0),
        **labels: str,
    ) -> None:
        hello = regional_pb2.RegionHello(
            region=region,
            term=term,
            epoch=epoch,
            heard=objects_pb2.GlobalReign(store_life=heard[0], term=heard[1]),
            labels=[objects_pb2.Label(key=key, value=value) for key, value in labels.items()],
        )
        self.post(events.RegionConnected(session, region, hello))

    def say(self, session: int, **body: Message) -> None:
        self.post(events.RegionSaid(session, regional_pb2.UplinkMessage(**body)))  # type: ignore[arg-type]

    def sent(self, session: int, kind: str) -> list[Message]:
        """The messages of one kind that went down a session."""
        return [getattr(m, kind) for m in self.down.get(session, []) if m.WhichOneof("body") == kind]

    # ---- what is stored

    @property
    def records(self) -> Records:
        """As the core has them; the same as the store has, which is checked here."""
        assert self.machine.reign is not None
        mine = self.machine.reign.records
        if not self.held:
            stored = Records()
            listed = self.state.range(keys.GLOBAL, b"/g0")
            for item in listed.items:
                stored.adopt(item.key, item)
            for name in (
                "tenants",
                "workloads",
                "statuses",
                "budgets",
                "slices",
                "acks",
                "regions",
                "shares",
                "policies",
                "in_force",
                "notices",
            ):
                assert getattr(mine, name).items() == getattr(stored, name).items(), name
        return mine

    def slice_of(self, region: str = "north", tenant: str = "acme") -> objects_pb2.Slice:
        found = self.records.slices.get(tenant, region)
        assert found is not None
        return found

    def clean(self) -> None:
        """Every invariant held at every revision."""
        auditor = Auditor()
        for batch in self.state.batches(b"/", 1):
            auditor.feed(batch)
        verdict = auditor.verdict()
        assert not verdict.broken, "\n".join(map(str, verdict.violations))


def _bytes_of(event: events.Event) -> list[bytes]:
    """Every document in an event."""
    fields = [getattr(event, name) for name in type(event).__match_args__]
    return [field.SerializeToString(deterministic=True) for field in fields if isinstance(field, Message)]


def tenant(name: str = "acme", quota: Vector = QUOTA, **protected: Vector) -> objects_pb2.Tenant:
    """`protected`: by region."""
    parts = [objects_pb2.RegionAmount(region=region, amount=part.to_proto()) for region, part in protected.items()]
    return objects_pb2.Tenant(
        metadata=objects_pb2.Metadata(name=name),
        spec=objects_pb2.TenantSpec(quota=quota.to_proto(), protected=parts),
    )


def workload(
    name: str = "web", replicas: int = 2, unit: Vector = UNIT, owner: str = "acme", **spec: object
) -> objects_pb2.Workload:
    task = objects_pb2.Task(
        name="main",
        replicas=replicas,
        command=["run"],
        resources=objects_pb2.ResourceRequirements(requests=unit.to_proto()),
    )
    return objects_pb2.Workload(
        metadata=objects_pb2.Metadata(name=name, tenant=owner),
        spec=objects_pb2.WorkloadSpec(tasks=[task], **spec),  # type: ignore[arg-type]
    )


def policy(name: str = "weights", /, **strategies: Mapping[str, float]) -> objects_pb2.SchedulerPolicy:
    """`strategies`: what each weighs."""
    spec = objects_pb2.SchedulerPolicySpec()
    for strategy, weights in strategies.items():
        scores = [objects_pb2.ScoreWeight(score=score, weight=weight) for score, weight in weights.items()]
        spec.strategies.add(name=strategy, weights=scores)
    return objects_pb2.SchedulerPolicy(metadata=objects_pb2.Metadata(name=name), spec=spec)


def ack(
    slice_: objects_pb2.Slice,
    limit: Vector,
    bound: Vector = NOTHING,
    term: int = 1,
    burst: Vector = NOTHING,
    bursting: Vector = NOTHING,
    wanted: Vector = NOTHING,
) -> objects_pb2.SliceAck:
    """What a region that applied `slice_` says; `burst`: its limit of that account."""
    use = objects_pb2.AccountUse(account=HARD, limit=limit.to_proto(), bound=bound.to_proto())
    of_burst = objects_pb2.AccountUse(
        account=BURST, limit=burst.to_proto(), bound=bursting.to_proto(), wanted=wanted.to_proto()
    )
    return objects_pb2.SliceAck(
        tenant=slice_.tenant,
        region=slice_.region,
        region_term=term,
        epoch=slice_.epoch,
        seq=slice_.seq,
        uses=[use, of_burst],
    )


def report(share: objects_pb2.Share, *, closed: bool = False, **counts: int) -> regional_pb2.WorkloadReport:
    return regional_pb2.WorkloadReport(
        tenant=share.metadata.tenant,
        workload=share.metadata.name,
        generation=share.metadata.generation,
        uid=share.metadata.uid,
        counts=objects_pb2.SlotCounts(**counts),
        closed=closed,
    )


def granted(slice_: objects_pb2.Slice | None) -> Vector:
    """A of the hard account."""
    return budgets.granted(slice_).hard


def shrink_target(slice_: objects_pb2.Slice | None) -> Vector:
    return budgets.shrink_target(slice_).hard
