from agent.core.lease import Lease, LeaseTerms
from atoll.api.v1 import agent_pb2
from tests.support.agent_core import BOUNDED, EXCLUSIVE, KEEP, assign

WELCOME = agent_pb2.Welcome(heartbeat_ms=100, fence_after_ms=400)


def beating(now_ms: int = 1000) -> Lease:
    lease = Lease(None, 0)
    lease.welcome(WELCOME, now_ms)
    return lease


def beat(lease: Lease, now_ms: int) -> int:
    heartbeat = lease.beat(now_ms)
    assert heartbeat is not None
    return heartbeat.seq


def test_the_deadline_counts_from_the_send_time() -> None:
    lease = beating()
    seq = beat(lease, 1000)
    assert lease.acknowledged(seq, 1090, extends=True)
    assert lease.deadline_ms(assign(run_class=EXCLUSIVE)) == 1400
    assert lease.deadline_ms(assign(run_class=BOUNDED)) == 3000
    assert lease.deadline_ms(assign(run_class=KEEP)) is None


def test_a_late_repeated_or_unknown_answer_moves_nothing_back() -> None:
    lease = beating()
    first, second = beat(lease, 1000), beat(lease, 1100)
    assert lease.acknowledged(second, 1110, extends=True)
    for seq in (first, second, 77):
        assert not lease.acknowledged(seq, 1120, extends=True)
    assert lease.last_ack_ms == 1100


def test_an_answer_that_does_not_extend_shows_life_only() -> None:
    lease = beating()
    seq = beat(lease, 1000)
    assert not lease.acknowledged(seq, 1050, extends=False)
    assert lease.last_ack_ms == -1
    assert lease.silent_ms(1060) == 10


def test_heartbeats_of_an_earlier_session_are_not_answered_later() -> None:
    lease = beating()
    seq = beat(lease, 1000)
    lease.disconnect()
    assert lease.beat(2000) is None
    lease.welcome(WELCOME, 3000)
    assert not lease.acknowledged(seq, 3001, extends=True)


def test_after_a_start_the_guards_memory_counts_and_never_the_future() -> None:
    assert Lease(LeaseTerms(500, 400), 1000).last_ack_ms == 500
    assert Lease(LeaseTerms(5000, 400), 1000).last_ack_ms == 1000
    assert Lease(None, 1000).last_ack_ms == -1


def test_after_a_start_the_old_terms_hold_until_the_next_welcome() -> None:
    lease = Lease(LeaseTerms(500, 400), 1000)
    assert lease.deadline_ms(assign(run_class=EXCLUSIVE)) == 900
    lease.welcome(agent_pb2.Welcome(heartbeat_ms=100, fence_after_ms=700), 1000)
    assert lease.deadline_ms(assign(run_class=EXCLUSIVE)) == 1200
