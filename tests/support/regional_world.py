"""A regional core in front of a real store in memory: commits go through the production lane, nothing else is real.

The auditor replays every revision the store makes; `check` holds the core's sums to its records. Events are copied as
bytes before `handle` and compared after: a core never mutates what it is given.
"""

from collections.abc import Iterable
from typing import Any

from google.protobuf.message import Message

from atoll.api.v1 import agent_pb2, objects_pb2, regional_pb2
from atoll.audit import Auditor
from atoll.lane import Authority, Lane, Settled
from atoll.model import assigns
from atoll.model.resources import NOTHING, Vector
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from atoll.store.store import Delete, Put, Txn, Unknown, absent, prefix_end
from regional.config import CoreSettings
from regional.core import commands, events
from regional.core.class_rows import Evaluator
from regional.core.machine import Machine
from regional.core.state import State

REGION = "east"
ROOT = keys.region_root(REGION)
START_MS = 1_700_000_000_000
SMALL_NODE = Vector(4_000, 8_192, 100_000)


class RegionalWorld:
    """One leader, its store, and agents that say what the test tells them to."""

    def __init__(self, evaluator: Evaluator | None = None, **settings: Any) -> None:
        defaults = {
            "lanes": 1,
            "headroom_percent": 0,
        }  # one thing after the other, and all room, unless a test wants more
        self.settings = CoreSettings(**{**defaults, **settings})
        self.store = MemoryState()
        self.auditor = Auditor()
        self._audited = 1
        self.evaluator = evaluator
        self.machine = Machine(REGION, self.settings, evaluator)
        self.now_ms = START_MS
        self.lanes: list[Lane] = []
        self.sent: dict[int, list[agent_pb2.RegionMessage]] = {}
        self.up: list[regional_pb2.UplinkMessage] = []
        self.issued: list[commands.Command] = []
        self.held: list[commands.Commit] = []
        self.hold = False  # keep commits instead of carrying them out
        self.preempts = True  # what shares say of it
        self._sessions = 0
        self._global_revision = 0
        self._asked = 0

    # ---- driving

    @property
    def state(self) -> State:
        assert self.machine.state is not None
        return self.machine.state

    def tell(self, event: events.Event) -> None:
        """One event, and the commits that follow it, until the core asks for nothing more."""
        before = _frozen(event)
        issued = self.machine.handle(event, self.now_ms)
        assert _frozen(event) == before, "a core never mutates its input"
        self.issued += issued
        for command in issued:
            self._carry_out(command)

    def _carry_out(self, command: commands.Command) -> None:
        match command:
            case commands.SendToNode():
                self.sent.setdefault(command.session, []).append(command.message)
            case commands.SendUp():
                self.up.append(command.message)
            case commands.Commit():
                if self.hold:
                    self.held.append(command)
                else:
                    self.settle(command)

    def apply(self, commit: commands.Commit, *, lose: str = "") -> Settled:
        """Carries a commit out; its answer is still to be told. `lose`: "before" or "after" the store applied it the
        first answer is lost, and sealed."""
        lane = self.lanes[commit.lane]
        txn = lane.begin(commit.plan)
        outcome = Unknown("lost") if lose == "before" else self.store.transact(txn)
        settled = lane.settle(Unknown("lost") if lose else outcome)
        while isinstance(settled, Txn):
            settled = lane.settle(self.store.transact(settled))
        self._audit()
        return settled

    def settle(self, commit: commands.Commit, *, lose: str = "") -> Settled:
        """Carries a commit out and tells its answer."""
        settled = self.apply(commit, lose=lose)
        self.tell(events.PlanSettled(commit.plan_id, settled, self.now_ms))
        return settled

    def release_held(self, *, lose: str = "") -> list[Settled]:
        """Carries out what was held, and what follows."""
        self.hold, held, self.held = False, self.held, []
        return [self.settle(commit, lose=lose) for commit in held]

    def _audit(self) -> None:
        for batch in self.store.batches(ROOT, self._audited + 1):
            self.auditor.feed(batch)
        self._audited = self.store.revision

    def win(self) -> None:
        """An election is won; the store is listed."""
        lease = self.store.grant(10, self.now_ms).id
        leader = keys.leader(ROOT)
        self.store.transact(Txn((), (Delete(leader),)))
        self.store.transact(Txn((absent(leader),), (Put(leader, b"", lease),)))
        found = self.store.get(leader)
        assert found is not None
        authority = Authority(ROOT, found.create_revision)
        listed = self.store.range(ROOT, prefix_end(ROOT))
        mods = {item.key: item.mod_revision for item in listed.items}
        self.lanes = [Lane(authority, i, mods.get(keys.lane(ROOT, i), 0)) for i in range(self.settings.lanes)]
        self._audit()
        middle = len(listed.items) // 2
        self.tell(events.RecordsRead(authority, listed.items[:middle]))
        self.tell(events.LeadershipWon(authority, listed.items[middle:], listed.revision))

    def take_over(self) -> None:
        """The process dies; another one, that knows nothing, wins."""
        self.machine = Machine(REGION, self.settings, self.evaluator)
        self.sent.clear()
        self.held.clear()
        self.win()

    def advance(self, ms: int, *, beating: Iterable[int] = (), step_ms: int = 500) -> None:
        """Time passes in steps; `beating` sessions send a heartbeat at each."""
        beating = tuple(beating)
        end = self.now_ms + ms
        while self.now_ms < end:
            self.now_ms = min(end, self.now_ms + step_ms)
            for session in beating:
                self.tell(events.NodeHeartbeat(session, self.now_ms))
            self.tell(events.Woke())

    # ---- what others say

    def join(
        self,
        name: str,
        *,
        capacity: Vector = SMALL_NODE,
        labels: dict[str, str] | None = None,
        incarnation: int = 1,
        inventory: Iterable[agent_pb2.AttemptStatus] = (),
        trusted: tuple[tuple[str, str], ...] = (),
        fence_after_ms: int = 0,
        highest_term: int = 0,
        expires_ms: int = 0,
        gpus: tuple[str, ...] = (),
    ) -> int:
        """A node says hello; its session."""
        self._sessions += 1
        hello = agent_pb2.Hello(
            node=name,
            incarnation=incarnation,
            capacity=(capacity + Vector(gpu_milli=1_000 * len(gpus))).to_proto(),
            gpus=[objects_pb2.Gpu(number=number, model=model) for number, model in enumerate(gpus)],
            labels=[objects_pb2.Label(key=k, value=v) for k, v in sorted((labels or {}).items())],
            inventory=inventory,
            fence_after_ms=fence_after_ms,
            highest_term=highest_term,
        )
        self.tell(events.NodeHello(self._sessions, name, "pool", trusted, hello, expires_ms))
        return self._sessions

    def grant(
        self,
        tenant: str,
        limit: Vector,
        *,
        seq: int,
        target: Vector | None = None,
        mode: int = 1,
        valid_until_ms: int = 0,
        weight: int = 1,
        protected: Vector = NOTHING,
        burst: Vector = NOTHING,
        burst_target: Vector | None = None,
    ) -> None:
        self._global_revision += 1
        account = objects_pb2.AccountSlice(
            account=objects_pb2.ACCOUNT_HARD,
            granted=limit.to_proto(),
            target=(limit if target is None else target).to_proto(),
        )
        of_burst = objects_pb2.AccountSlice(
            account=objects_pb2.ACCOUNT_BURST,
            granted=burst.to_proto(),
            target=(burst if burst_target is None else burst_target).to_proto(),
        )
        slice_ = objects_pb2.Slice(
            tenant=tenant,
            region=REGION,
            epoch=1,
            seq=seq,
            accounts=[account, *([of_burst] if burst else [])],
            mode=objects_pb2.QuotaMode.ValueType(mode),
            valid_until_ms=valid_until_ms,
            weight=weight,
            protected=protected.to_proto(),
        )
        stamp = regional_pb2.SliceStamp(
            slice=slice_, store_life=1, global_term=1, global_revision=self._global_revision
        )
        self.tell(events.SliceArrived(stamp))

    def share(
        self,
        name: str,
        *tasks: objects_pb2.Task,
        tenant: str = "acme",
        generation: int = 1,
        removed: bool = False,
        tell: bool = True,
        labels: dict[str, str] | None = None,
        **spec: object,
    ) -> objects_pb2.Share:
        self._global_revision += 1
        metadata = objects_pb2.Metadata(name=name, tenant=tenant, generation=generation, uid=f"uid-{name}")
        metadata.labels.extend(objects_pb2.Label(key=k, value=v) for k, v in sorted((labels or {}).items()))
        share = objects_pb2.Share(
            metadata=metadata,
            region=REGION,
            epoch=1,
            spec=objects_pb2.WorkloadSpec(tasks=tasks, **spec),  # type: ignore[arg-type]
            removed=removed,
            preempts=self.preempts,
            store_life=1,
            global_term=1,
            global_revision=self._global_revision,
        )
        if tell:
            self.tell_share(share)
        return share

    def uplink(self, *, store_life: int = 1, term: int = 1) -> None:
        self.tell(events.GlobalWelcomed(regional_pb2.GlobalWelcome(store_life=store_life, term=term, epoch=1)))

    def tell_share(self, share: objects_pb2.Share) -> None:
        self.tell(events.ShareArrived(share))

    def report(self, session: int, *attempts: agent_pb2.AttemptStatus) -> None:
        self.tell(events.NodeStatus(session, agent_pb2.StatusReport(attempts=attempts)))

    def run(self, session: int, slots: Iterable[objects_pb2.Slot]) -> None:
        """The agent reports these slots running, and ready for long enough."""
        running = agent_pb2.ATTEMPT_PHASE_RUNNING
        self.report(session, *(status(slot, running, ready=True, healthy=True) for slot in slots))

    def close(self, session: int, *slots: objects_pb2.Slot, reason: str = "Stopped", code: int = 0) -> None:
        """The agent certifies that these attempts have ended."""
        exit_ = objects_pb2.Exit(code=code, reason=reason)
        self.report(session, *(status(slot, agent_pb2.ATTEMPT_PHASE_CLOSED, exit=exit_) for slot in slots))

    def ask_node(self, name: str, *, request_id: str = "", **fields: Any) -> int:
        """An operator asks for a change of a node; whom to answer."""
        self._asked += 1
        request = regional_pb2.UpdateNodeRequest(name=name, request_id=request_id or f"r-{self._asked}", **fields)
        self.tell(events.NodeChangeAsked(self._asked, request))
        return self._asked

    def change_node(self, name: str, *, request_id: str = "", **fields: Any) -> commands.Reply:
        return self.reply(self.ask_node(name, request_id=request_id, **fields))

    def ask_removal(self, name: str, *, request_id: str = "", **fields: Any) -> int:
        self._asked += 1
        request = regional_pb2.RemoveNodeRequest(name=name, request_id=request_id or f"r-{self._asked}", **fields)
        self.tell(events.NodeChangeAsked(self._asked, request))
        return self._asked

    def remove_node(self, name: str, *, request_id: str = "", **fields: Any) -> commands.Reply:
        return self.reply(self.ask_removal(name, request_id=request_id, **fields))

    # ---- looking

    def reply(self, reply_to: int) -> commands.Reply:
        (reply,) = [c for c in self.issued if isinstance(c, commands.Reply) and c.reply_to == reply_to]
        return reply

    def kinds(self, what: str) -> list[str]:
        """The types of the events about an object."""
        return [c.event.type for c in self.issued if isinstance(c, commands.Announce) and c.event.object == what]

    def slots(self, state: int = objects_pb2.SLOT_STATE_BOUND) -> list[objects_pb2.Slot]:
        """As stored."""
        prefix = ROOT + b"slot/"
        items = self.store.range(prefix, prefix_end(prefix)).items
        return [s for s in (objects_pb2.Slot.FromString(i.value) for i in items) if s.state == state]

    def zombies(self) -> list[objects_pb2.Zombie]:
        prefix = ROOT + b"zombie/"
        return [objects_pb2.Zombie.FromString(i.value) for i in self.store.range(prefix, prefix_end(prefix)).items]

    def node(self, name: str) -> objects_pb2.Node:
        item = self.store.get(keys.node(ROOT, name))
        assert item is not None
        return objects_pb2.Node.FromString(item.value)

    def messages(self, session: int, kind: str) -> list[Any]:
        """What a session was sent of one kind: assign (each replica's), stop, sync, ack, welcome."""
        sent = [getattr(m, kind) for m in self.sent.get(session, []) if m.WhichOneof("body") == kind]
        return [one for message in sent for one in assigns.each(message)] if kind == "assign" else sent

    def reports(self, workload: str) -> list[regional_pb2.WorkloadReport]:
        return [m.workload for m in self.up if m.WhichOneof("body") == "workload" and m.workload.workload == workload]

    def acks(self) -> list[regional_pb2.UplinkMessage]:
        return [m for m in self.up if m.WhichOneof("body") == "slice_ack"]

    def decisions(self) -> list[objects_pb2.Decision]:
        return [c.decision for c in self.issued if isinstance(c, commands.Journal)]

    def check(self) -> None:
        """Nothing broken: the auditor's rules at every revision, and the core's sums now."""
        self._audit()
        verdict = self.auditor.verdict()
        assert not verdict.broken, verdict
        if self.machine.state:
            self.machine.state.check()


def _frozen(event: events.Event) -> list[bytes | str]:
    values = [getattr(event, name) for name in event.__slots__]
    return [v.SerializeToString(deterministic=True) if isinstance(v, Message) else repr(v) for v in values]


def status(slot: objects_pb2.Slot, phase: int, **fields: object) -> agent_pb2.AttemptStatus:
    return agent_pb2.AttemptStatus(
        slot=slot.id,
        attempt=slot.attempt,
        generation=slot.generation,
        phase=agent_pb2.AttemptPhase.ValueType(phase),
        started_ms=START_MS if phase == agent_pb2.ATTEMPT_PHASE_RUNNING else 0,
        **fields,  # type: ignore[arg-type]
    )


def task(
    name: str = "main", replicas: int = 1, cpu: int = 1_000, memory: int = 512, gpu: int = 0, **fields: object
) -> objects_pb2.Task:
    return objects_pb2.Task(
        name=name,
        replicas=replicas,
        resources=objects_pb2.ResourceRequirements(requests=Vector(cpu, memory, 0, gpu).to_proto()),
        **fields,  # type: ignore[arg-type]
    )
