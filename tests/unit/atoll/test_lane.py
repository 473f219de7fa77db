"""Every outcome of a lane's operation is known in the end, whatever the network does to it and to its seals."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from atoll.errors import InvariantBroken
from atoll.lane import Authority, Committed, Deposed, Lane, Plan, Rejected, Settled
from atoll.store import keys
from atoll.store.memory_state import MemoryState
from atoll.store.store import (
    Applied,
    Delete,
    Get,
    NotSent,
    Outcome,
    Put,
    Refusal,
    Refused,
    Txn,
    Unknown,
    absent,
    mod_is,
)

ROOT = keys.region_root("eu")
LOST = Unknown("lost")


def elect(state: MemoryState, name: str = "one") -> Authority:
    """Deposes whoever leads."""
    state.transact(Txn(success=(Delete(keys.leader(ROOT)),)))
    won = state.transact(Txn((absent(keys.leader(ROOT)),), (Put(keys.leader(ROOT), name.encode()),)))
    assert isinstance(won, Applied)
    return Authority(ROOT, won.revision)


def lane_of(state: MemoryState, authority: Authority, index: int = 0) -> Lane:
    """A lane as its leader finds it after the election."""
    item = state.get(keys.lane(ROOT, index))
    return Lane(authority, index, item.mod_revision if item else 0)


def did(name: str) -> bytes:
    return ROOT + b"did/" + name.encode()


def plan_of(name: str) -> Plan:
    return Plan("BIND", (absent(did(name)),), (Put(did(name), b""),))


def resend(outcome: Settled | Txn) -> Txn:
    assert isinstance(outcome, Txn), outcome
    return outcome


@pytest.fixture
def state() -> MemoryState:
    return MemoryState()


@pytest.fixture
def lane(state: MemoryState) -> Lane:
    return lane_of(state, elect(state))


def test_a_plan_that_is_answered_commits(state: MemoryState, lane: Lane) -> None:
    for name in ("a", "b"):
        settled = lane.settle(state.transact(lane.begin(plan_of(name))))
        assert settled == Committed(state.revision)
        assert lane.free


def test_a_stale_plan_learns_what_moved(state: MemoryState, lane: Lane) -> None:
    state.transact(Txn(success=(Put(did("a"), b"theirs"),)))
    read = resend(lane.settle(state.transact(lane.begin(plan_of("a")))))
    assert lane.reading
    assert lane.settle(state.transact(read)) == Rejected("stale", ((did("a"), state.get(did("a"))),))
    assert lane.settle(state.transact(lane.begin(plan_of("b")))) == Committed(state.revision)


@pytest.mark.parametrize("outcome", [NotSent("no connection"), Refused(Refusal.BUSY)])
def test_what_was_not_done_is_sent_again(state: MemoryState, lane: Lane, outcome: Outcome) -> None:
    txn = lane.begin(plan_of("a"))
    assert lane.settle(outcome) is txn
    seal = resend(lane.settle(LOST))
    assert lane.settle(outcome) is seal
    assert lane.settle(LOST) is seal


@pytest.mark.parametrize("outcome", [NotSent("no connection"), Refused(Refusal.BUSY), Refused(Refusal.DENIED), LOST])
def test_what_had_moved_is_read_until_it_is_known(state: MemoryState, lane: Lane, outcome: Outcome) -> None:
    """The refusal was definite: nothing is sealed."""
    operation = lane.begin(Plan("BIND", (absent(did("a")), absent(did("b"))), (Put(did("a"), b""),)))
    state.transact(Txn(success=(Put(did("a"), b"theirs"),)))
    read = resend(lane.settle(state.transact(operation)))
    assert not read.compares and read.success == (Get(did("a")), Get(did("b")))
    assert lane.settle(outcome) is read
    state.transact(Txn(success=(Delete(did("a")),)))
    assert lane.settle(state.transact(read)) == Rejected("stale"), "what came has gone again"


@pytest.mark.parametrize("refusal", [Refusal.INVALID, Refusal.TOO_LARGE, Refusal.DENIED])
def test_a_malformed_plan_is_rejected_and_frees_the_lane(state: MemoryState, lane: Lane, refusal: Refusal) -> None:
    lane.begin(plan_of("a"))
    assert lane.settle(Refused(refusal, "why")) == Rejected(f"{refusal.value}: why")
    assert lane.settle(state.transact(lane.begin(plan_of("b")))) == Committed(state.revision)


def test_a_seal_that_is_refused_for_its_form_is_sent_again(lane: Lane) -> None:
    lane.begin(plan_of("a"))
    seal = resend(lane.settle(LOST))
    assert lane.settle(Refused(Refusal.DENIED, "token expired")) is seal


def test_a_sealed_operation_can_never_apply(state: MemoryState, lane: Lane) -> None:
    operation = lane.begin(plan_of("a"))
    seal = resend(lane.settle(LOST))
    assert lane.settle(state.transact(seal)) == Rejected("sealed")
    assert isinstance(state.transact(operation), Refused)
    assert state.get(did("a")) is None


def test_an_operation_that_had_applied_is_found_by_its_seal(state: MemoryState, lane: Lane) -> None:
    applied = state.transact(lane.begin(plan_of("a")))
    seal = resend(lane.settle(LOST))
    assert lane.settle(state.transact(seal)) == Committed(applied.revision)


def test_an_operation_that_applies_between_two_seals_is_found(state: MemoryState, lane: Lane) -> None:
    operation = lane.begin(plan_of("a"))
    seal = resend(lane.settle(LOST))
    assert lane.settle(LOST) is seal
    applied = state.transact(operation)
    assert lane.settle(state.transact(seal)) == Committed(applied.revision)


def test_copies_of_a_seal_do_no_harm(state: MemoryState, lane: Lane) -> None:
    operation = lane.begin(plan_of("a"))
    seal = resend(lane.settle(LOST))
    state.transact(seal)  # its answer is lost
    assert lane.settle(LOST) is seal
    assert lane.settle(state.transact(seal)) == Rejected("sealed")
    following = lane.begin(plan_of("b"))
    for copy in (seal, operation):
        assert isinstance(state.transact(copy), Refused)
    assert lane.settle(state.transact(following)) == Committed(state.revision)


def test_a_deposed_leader_is_told_and_writes_nothing(state: MemoryState, lane: Lane) -> None:
    elect(state, "two")
    assert lane.settle(state.transact(lane.begin(plan_of("a")))) == Deposed("another term")
    assert state.get(did("a")) is None


def test_another_store_life_deposes(state: MemoryState, lane: Lane) -> None:
    state.transact(Txn(success=(Put(keys.store_life(ROOT), b"2"),)))
    assert lane.settle(state.transact(lane.begin(plan_of("a")))) == Deposed("another store life")


def test_an_operation_under_a_seal_dies_with_its_term(state: MemoryState, lane: Lane) -> None:
    operation = lane.begin(plan_of("a"))
    seal = resend(lane.settle(LOST))
    elect(state, "two")
    assert lane.settle(state.transact(seal)) == Deposed("another term")
    assert isinstance(state.transact(operation), Refused)


def test_a_deposed_leader_still_learns_that_its_operation_applied(state: MemoryState, lane: Lane) -> None:
    applied = state.transact(lane.begin(plan_of("a")))
    elect(state, "two")
    assert lane.settle(state.transact(resend(lane.settle(LOST)))) == Committed(applied.revision)


def test_a_successor_s_lane_is_not_taken_for_one_s_own(state: MemoryState, lane: Lane) -> None:
    """Both have operation 1; the terms differ."""
    lane.begin(plan_of("a"))
    seal = resend(lane.settle(LOST))
    successor = lane_of(state, elect(state, "two"))
    assert successor.settle(state.transact(successor.begin(plan_of("b")))) == Committed(state.revision)
    assert lane.settle(state.transact(seal)) == Deposed("another term")


def test_a_lane_moved_by_a_stranger_breaks_the_invariant(state: MemoryState, lane: Lane) -> None:
    state.transact(Txn(success=(Put(keys.lane(ROOT, 0), b""),)))
    with pytest.raises(InvariantBroken, match="I5"):
        lane.settle(state.transact(lane.begin(plan_of("a"))))


def test_one_operation_at_a_time(lane: Lane) -> None:
    with pytest.raises(InvariantBroken):
        lane.settle(LOST)
    lane.begin(plan_of("a"))
    with pytest.raises(InvariantBroken):
        lane.begin(plan_of("b"))


def test_a_transaction_carries_guards_and_lane_and_reads_them_when_refused(lane: Lane) -> None:
    txn = lane.begin(plan_of("a"))
    own = (keys.leader(ROOT), keys.store_life(ROOT), keys.lane(ROOT, 0))
    assert tuple(compare.key for compare in txn.compares) == (*own, did("a"))
    assert txn.failure == tuple(Get(key) for key in own)


@dataclass
class Sent:
    """A plan on its lane, and what is to be sent for it next."""

    name: str
    lane: Lane
    txn: Txn


class Network(RuleBasedStateMachine):
    """Two leaders, two lanes each, a network that loses, delays and answers as it likes. Every copy of a transaction
    applies at most once, at any time, also after its leader was deposed. The truth is in the store."""

    make_lane: Callable[[MemoryState, Authority, int], Lane] = staticmethod(lane_of)
    sent = Bundle("sent")

    def __init__(self) -> None:
        super().__init__()
        self.state = MemoryState()
        self.lanes: list[Lane] = []
        self.under_way: list[Txn] = []
        self.reigns: dict[int, int] = {}  # term → revision at which it ended
        self.terms: dict[str, int] = {}
        self.settled: dict[str, Settled] = {}
        self.names = 0

    @initialize()
    def first_leader(self) -> None:
        self.elect()

    @rule()
    def elect(self) -> None:
        authority = elect(self.state)
        for term in self.reigns:
            self.reigns[term] = min(self.reigns[term], authority.term - 1)  # its key was deleted a revision earlier
        self.reigns[authority.term] = 1 << 62
        self.lanes += [self.make_lane(self.state, authority, index) for index in range(2)]

    @rule()
    def a_guard_moves(self) -> None:
        self.state.transact(Txn(success=(Put(did("guard"), b""),)))

    @rule(target=sent, which=st.integers(0, 3), stale=st.booleans())
    def begin(self, which: int, stale: bool) -> Sent | None:
        free = [lane for lane in self.lanes[-4:] if lane.free]
        if not free:
            return None
        lane = free[which % len(free)]
        self.names += 1
        name = str(self.names)
        guard = self.state.get(did("guard"))
        plan = Plan(
            "BIND",
            (absent(did(name)), mod_is(did("guard"), (guard.mod_revision if guard else 0) + stale)),
            (Put(did(name), b""),),
        )
        self.terms[name] = lane.authority.term
        return Sent(name, lane, lane.begin(plan))

    @rule(one=sent)
    def is_answered(self, one: Sent | None) -> None:
        if one and one.name not in self.settled:
            self.settle(one, self.state.transact(one.txn))

    @rule(one=sent, fate=st.sampled_from(["lost", "unanswered", "late", "not sent", "busy"]))
    def fails(self, one: Sent | None, fate: str) -> None:
        if one is None or one.name in self.settled:
            return
        if fate == "late":
            self.under_way.append(one.txn)
        elif fate == "unanswered":
            self.state.transact(one.txn)
        outcome: Outcome = LOST
        if fate == "not sent":
            outcome = NotSent("")
        elif fate == "busy":
            outcome = Refused(Refusal.BUSY)
        self.settle(one, outcome)

    @rule(which=st.integers(0, 100))
    def arrives_late(self, which: int) -> None:
        if self.under_way:
            self.state.transact(self.under_way.pop(which % len(self.under_way)))

    def settle(self, one: Sent, outcome: Outcome) -> None:
        answer = one.lane.settle(outcome)
        if isinstance(answer, Txn):
            one.txn = answer
        else:
            self.settled[one.name] = answer

    @invariant()
    def verdicts_are_true(self) -> None:
        for name, settled in self.settled.items():
            item = self.state.get(did(name))
            if isinstance(settled, Committed):
                assert item is not None and item.create_revision == settled.revision, (name, settled)
            elif isinstance(settled, Rejected):
                assert item is None, (name, settled)

    @invariant()
    def nothing_of_a_deposed_leader_applies(self) -> None:
        for name, term in self.terms.items():
            item = self.state.get(did(name))
            assert item is None or term < item.create_revision < self.reigns[term], (name, term)

    def teardown(self) -> None:
        """The network settles: everything still under way arrives, and the verdicts stay true."""
        deposed = {n: self.state.get(did(n)) for n, s in self.settled.items() if isinstance(s, Deposed)}
        for txn in self.under_way:
            self.state.transact(txn)
        self.verdicts_are_true()
        self.nothing_of_a_deposed_leader_applies()
        assert deposed == {name: self.state.get(did(name)) for name in deposed}, "applied after Deposed"


Network.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestNetwork = Network.TestCase


class _TrustsSilence(Lane):
    """The naive lane: what was not answered is taken as not done."""

    def _seal(self) -> Settled | Txn:  # type: ignore[override]
        self._phase = type(self._phase)("free")
        return Rejected("timed out")


class _ForgetsTheTerm(Lane):
    """The naive lane that compares its lane and no guard."""

    def begin(self, plan: Plan) -> Txn:
        txn = super().begin(plan)
        self._txn = Txn(txn.compares[2:], txn.success, txn.failure)
        return self._txn


@pytest.mark.parametrize("naive", [_TrustsSilence, _ForgetsTheTerm])
def test_the_machine_finds_a_naive_lane(naive: type[Lane]) -> None:
    class Naive(Network):
        @staticmethod
        def make_lane(state: MemoryState, authority: Authority, index: int) -> Lane:
            found = lane_of(state, authority, index)
            return naive(authority, index, found._mod_revision)

    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(
            Naive,
            settings=settings(
                max_examples=500, stateful_step_count=40, deadline=None, database=None, phases=[Phase.generate]
            ),
        )
