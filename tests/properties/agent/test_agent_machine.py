"""The agent's core against a hostile world: any order, repetition and age of commands, and a crash between any two
of its own commands. What must hold is checked from outside: on the fake node, on the disk, on the wire.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.checkpoint import Stored, decode, encode
from agent.config import Timing
from agent.core import commands, events
from agent.core.lease import LeaseTerms
from agent.core.machine import Machine
from agent.core.runs import Rank, RunName, rank_of
from agent.drivers.driver import RunSpec
from agent.drivers.fake import Behaviour, FakeDriver
from atoll.api.v1 import agent_pb2, objects_pb2
from atoll.model.slots import AttemptId, FencingToken, SlotName, attempt_id, fencing_token, slot_name

SLOTS = [SlotName("acme", "web", "main", index) for index in range(2)]
BEHAVIOURS = [
    Behaviour(),
    Behaviour(start_ms=50, term_ms=None),
    Behaviour(runs_ms=30, code=0),
    Behaviour(runs_ms=5, code=3),
    Behaviour(fails="no such file"),
]
TOKENS = st.builds(
    FencingToken,
    st.integers(1, 2),
    st.just(1),
    st.integers(1, 3),
    st.builds(AttemptId, st.integers(1, 3), st.integers(1, 3)),
)
HELLO = agent_pb2.Hello(node="n1")


def assign_message(slot: SlotName, token: FencingToken, run_class: int, job: bool) -> agent_pb2.Assign:
    return agent_pb2.Assign(
        token=token.to_proto(),
        slot=slot.to_proto(),
        generation=1,
        task=objects_pb2.Task(command=["x"], restart=objects_pb2.RestartPolicy(backoff_ms=10, local_limit=2)),
        run_class=run_class,  # type: ignore[arg-type]
        bounded_s=1,
        type=objects_pb2.WORKLOAD_TYPE_JOB if job else objects_pb2.WORKLOAD_TYPE_SERVICE,
    )


ASSIGNS = st.builds(assign_message, st.sampled_from(SLOTS), TOKENS, st.integers(1, 3), st.booleans())
STOPS = st.builds(
    lambda slot, token, grace_ms: agent_pb2.Stop(token=token.to_proto(), slot=slot.to_proto(), grace_ms=grace_ms),
    st.sampled_from(SLOTS),
    TOKENS,
    st.integers(0, 20),
)


class AgentWorld(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1_000
        self.disk = b""
        self.guard = commands.Guard(LeaseTerms(-1, 0), ())
        self.node = FakeDriver(self.noticed, lambda run, _: self.behave(run), self.now_ms)
        self.kinds: dict[RunName, int] = {}
        self.session = 0  # the leader's, as the honest world sees it
        self.streams = 0
        self.greeted: set[int] = set()
        self.old: list[agent_pb2.RegionMessage] = []
        self.certified: dict[SlotName, dict[Rank, None]] = {}
        self.started: dict[SlotName, Rank] = {}
        self.authority = (0, 0, 0)  # the highest whose Welcome was obeyed by this agent process
        self.notices: list[events.Event] = []
        self.writing: commands.WriteCheckpoint | None = None
        self.crash_after = -1
        self.disk_full = False
        self.beat = 0  # the last heartbeat this agent sent
        self.counter = 10  # of the honest leader's attempts

    def behave(self, run: RunName) -> Behaviour:
        return BEHAVIOURS[self.kinds.get(run, 0)]

    # ------------------------------------------------------------------ the shell

    @initialize()
    def boot(self) -> None:
        self.writing, self.session_open, self.synced = None, False, False
        self.notices = []
        self.greeted.clear()
        saved = decode(self.disk).saved if self.disk else None
        self.machine = Machine(HELLO, Timing())
        found = tuple(self.node.adopt())
        self.node.attach(self.noticed)
        terms = self.guard.terms if self.guard.terms.last_ack_ms >= 0 else None
        self.authority = (0, 0, 0)
        self.post(events.Booted(saved, 1, found, terms))

    def noticed(self, notice: events.Event) -> None:
        self.notices.append(notice)

    def post(self, event: events.Event) -> None:
        done = self.machine.handle(event, self.now_ms)
        for index, command in enumerate(done):
            if self.crash_after == index:
                self.crash_after = -1
                self.boot()
                return
            self.execute(command)
        self.drain()

    def drain(self) -> None:
        while self.notices:
            self.post(self.notices.pop(0))

    def execute(self, command: commands.Command) -> None:
        match command:
            case commands.WriteCheckpoint():
                assert self.writing is None, "one write at a time"
                self.writing = command
            case commands.StartReplica(run, assign):
                self.check_start(run, assign)
                self.node.start(run, RunSpec(assign.task, ()))
            case commands.StopReplica(run, grace_ms):
                self.node.stop(run, grace_ms)
            case commands.Guard():
                self.guard = command
            case commands.SendUp(session, message):
                if message.HasField("hello"):
                    self.greeted.add(session)
                self.beat = message.heartbeat.seq or self.beat
                for status in [*message.hello.inventory, *message.status.attempts]:
                    if status.phase == agent_pb2.ATTEMPT_PHASE_CLOSED:
                        self.check_certificate(status)
            case commands.Reconnect(session):
                self.greeted.discard(session)
                self.session_open = self.session_open and session != self.session
            case commands.ProbeReplica():
                raise AssertionError("no probes in these tasks")

    # ------------------------------------------------------------------ what must hold

    def on_disk(self, slot: SlotName) -> tuple[Rank | None, Rank | None]:
        records = decode(self.disk).saved.records if self.disk else ()
        return next(((r.highest, r.closed) for r in records if r.slot == slot), (None, None))

    def check_start(self, run: RunName, assign: agent_pb2.Assign) -> None:
        slot, rank = run.slot, run.rank
        assert self.synced, "nothing starts before one Sync"
        assert rank == rank_of(fencing_token(assign.token))
        highest, _ = self.on_disk(slot)
        assert highest is not None and highest >= rank, "the token is durable before the start"
        assert rank not in self.certified.get(slot, {}), "a certified attempt never starts again"
        assert rank >= self.started.get(slot, rank), "attempts of a slot never go back"
        assert not [r for r in self.node.alive if r.slot == slot], "one attempt of a slot at a time"
        if assign.run_class == objects_pb2.RUN_CLASS_EXCLUSIVE:
            deadlines = {d.run: d.deadline_ms for d in self.guard.deadlines}
            assert deadlines.get(run, 0) > self.now_ms, "the guard is armed before exclusive work starts"
        self.started[slot] = rank

    def check_certificate(self, status: agent_pb2.AttemptStatus) -> None:
        slot = slot_name(status.slot)
        attempt = attempt_id(status.attempt)
        _, closed = self.on_disk(slot)
        assert closed is not None, "the closed mark is durable before the certificate"
        ranks = [Rank(life, attempt) for life in (1, 2) if Rank(life, attempt) <= closed]
        assert ranks, "the closed mark covers the certificate"
        # A status carries no store life: the certificate is about a rank for which nothing is alive.
        dead = [rank for rank in ranks if RunName(slot, rank) not in self.node.alive]
        assert dead, "nothing certified is alive"
        if len(ranks) == 1:
            self.certified.setdefault(slot, {})[ranks[0]] = None

    @invariant()
    def one_attempt_of_a_slot(self) -> None:
        for slot in SLOTS:
            assert len([run for run in self.node.alive if run.slot == slot]) <= 1

    @invariant()
    def late_exclusive_work_is_guarded(self) -> None:
        for deadline in self.guard.deadlines:
            assert deadline.deadline_ms >= 0

    # ------------------------------------------------------------------ the world

    @rule(life=st.integers(1, 2), term=st.integers(1, 3), beside=st.booleans())
    def connect(self, life: int, term: int, beside: bool = False) -> None:
        """A candidate says that it leads, `beside` the last one or in its place; it is welcomed if greeted."""
        if not beside:
            self.hang_up()
        self.streams += 1
        number, before = self.streams, (self.session, self.session_open, getattr(self, "welcome", (0, 0, 0)))
        self.post(events.Connected(number))
        leading = agent_pb2.Leading(store_life=life, term=term)
        self.post(events.RegionSaid(number, agent_pb2.RegionMessage(leading=leading)))
        if number not in self.greeted:
            return
        self.session, self.session_open, self.welcome = number, True, (life, 1, term)
        welcome = agent_pb2.Welcome(store_life=life, epoch=1, term=term, heartbeat_ms=100, fence_after_ms=400)
        self.say(agent_pb2.RegionMessage(welcome=welcome))
        if self.session_open:
            assert self.welcome >= self.authority, "a stale leader is not obeyed"
            self.authority = self.welcome
        elif number not in self.greeted and before[1]:
            self.session, self.session_open, self.welcome = before

    @rule()
    def stands_by(self) -> None:
        if self.session_open:
            self.say(agent_pb2.RegionMessage(not_leader=agent_pb2.NotLeader()))
            self.hang_up()

    def say(self, message: agent_pb2.RegionMessage) -> None:
        if self.session_open:
            self.post(events.RegionSaid(self.session, message))

    @rule(assigns=st.lists(ASSIGNS, max_size=2, unique_by=lambda a: a.slot.index))
    def sync(self, assigns: list[agent_pb2.Assign]) -> None:
        if self.session_open:
            self.synced = True  # may be ignored; then check_start is only weaker here, and unit tests are exact
            self.say(agent_pb2.RegionMessage(sync=agent_pb2.Sync(term=self.welcome[2], assignments=assigns)))

    @rule(assign=ASSIGNS, kind=st.integers(0, len(BEHAVIOURS) - 1))
    def assign(self, assign: agent_pb2.Assign, kind: int) -> None:
        self.kinds[RunName(slot_name(assign.slot), rank_of(fencing_token(assign.token)))] = kind
        message = agent_pb2.RegionMessage(assign=assign)
        self.old.append(message)
        self.say(message)

    @rule(stop=STOPS)
    def stop(self, stop: agent_pb2.Stop) -> None:
        message = agent_pb2.RegionMessage(stop=stop)
        self.old.append(message)
        self.say(message)

    @rule(stop=STOPS)
    def settle(self, stop: agent_pb2.Stop) -> None:
        """That the end of an attempt is committed, true or not: nothing refused may be run for that."""
        attempt = agent_pb2.SettledAttempt(token=stop.token, slot=stop.slot)
        message = agent_pb2.RegionMessage(settled=agent_pb2.Settled(attempts=[attempt]))
        self.old.append(message)
        self.say(message)

    @rule(data=st.data())
    def repeat_an_old_message(self, data: st.DataObject) -> None:
        if self.old:
            self.say(data.draw(st.sampled_from(self.old)))

    @rule(
        run_class=st.integers(1, 3),
        kind=st.integers(0, len(BEHAVIOURS) - 1),
        slot=st.sampled_from(SLOTS),
        writes=st.integers(0, 4),
        ms=st.integers(1, 20),
    )
    def bind_anew(self, run_class: int, kind: int, slot: SlotName, writes: int, ms: int) -> None:
        """What an honest leader does: a newer attempt with its own authority; the heartbeats are answered."""
        if not self.session_open:
            self.connect(*self.honest())
            self.sync([])
        if self.session_open:
            self.counter += 1
            life, epoch, term = self.welcome
            token = FencingToken(life, epoch, term, AttemptId(term, self.counter))
            self.acknowledge(0)
            self.assign(assign_message(slot, token, run_class, job=False), kind)
        for _ in range(writes):
            self.disk_answers()
        self.time_passes(ms)

    def honest(self) -> tuple[int, int]:
        highest = decode(self.disk).saved.authority if self.disk else None
        return (max(highest.store_life, 1), max(highest.term, 1)) if highest else (1, 1)

    @rule(back=st.integers(0, 2))
    def acknowledge(self, back: int) -> None:
        if self.session_open:
            ack = agent_pb2.HeartbeatAck(seq=self.beat - back, term=self.welcome[2])
            self.say(agent_pb2.RegionMessage(ack=ack))

    @rule()
    def disk_answers(self) -> None:
        write, self.writing = self.writing, None
        if write is None:
            return
        if self.disk_full:
            self.post(events.CheckpointFailed(write.version, "no space left"))
            return
        self.disk = encode(Stored(1, "boot", write.saved))
        self.post(events.CheckpointWritten(write.version))

    @rule(full=st.integers(0, 3))
    def fill_the_disk(self, full: int) -> None:
        self.disk_full = full == 3

    @rule(ms=st.integers(1, 200))
    def time_passes(self, ms: int) -> None:
        end_ms = self.now_ms + ms
        while True:
            due = [d for d in (self.node.next_deadline(), self.machine.next_deadline()) if d is not None]
            if not due or min(due) > end_ms:
                break
            self.now_ms = max(self.now_ms, min(due))
            self.node.advance(self.now_ms)
            self.drain()
            if (self.machine.next_deadline() or end_ms + 1) <= self.now_ms:
                self.post(events.Woke())
                after = self.machine.next_deadline()
                assert after is None or after > self.now_ms, "the core moves its deadline"
        self.now_ms = end_ms

    @rule()
    def hang_up(self) -> None:
        if self.session_open:
            self.session_open = False
            self.post(events.Disconnected(self.session))

    @rule()
    def crash(self) -> None:
        self.boot()

    @rule(commands_before=st.integers(0, 3))
    def crash_between_two_commands(self, commands_before: int) -> None:
        self.crash_after = commands_before

    @rule()
    def lose_the_answer_of_a_write(self) -> None:
        """The write reached the disk, the agent dies before it learns so."""
        if self.writing is not None:
            self.disk = encode(Stored(1, "boot", self.writing.saved))
            self.boot()

    def teardown(self) -> None:
        """When the faults end, a fresh attempt runs: nothing is ever wedged."""
        self.crash_after, self.disk_full = -1, False
        self.authority = (0, 0, 0)
        self.connect(3, 9)
        rank = Rank(3, AttemptId(9, 1))
        fresh = [assign_message(slot, FencingToken(3, 1, 9, rank.attempt), 1, job=False) for slot in SLOTS]
        self.kinds.update({RunName(slot, rank): 0 for slot in SLOTS})
        self.sync(fresh)
        for _ in range(20):
            self.disk_answers()
            self.time_passes(50)
            self.disk_answers()
        # `missed heartbeats` may have closed the session meanwhile: the work is assigned all the same
        for _ in range(300):
            self.disk_answers()
            self.time_passes(100)
        assert set(self.node.alive) == {RunName(slot, rank) for slot in SLOTS}


TestAgentWorld = AgentWorld.TestCase
TestAgentWorld.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
