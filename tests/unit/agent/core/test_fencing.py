from agent.core.fencing import MOST_CERTIFICATES, MOST_IDLE_RECORDS, Authority, Certificate, Ledger
from agent.core.runs import LOWEST, Exit, Rank
from atoll.model.slots import AttemptId, SlotName
from tests.support.agent_core import SLOT, assign


def rank(n: int, life: int = 1) -> Rank:
    return Rank(life, AttemptId(1, n))


def certificate(n: int) -> Certificate:
    return Certificate(rank(n), 1, Exit(0, "Completed"))


def test_authority_is_compared_field_by_field_and_remembered() -> None:
    ledger = Ledger()
    assert ledger.obeys(Authority(1, 2, 3))
    assert not ledger.obeys(Authority(1, 2, 2))
    assert not ledger.obeys(Authority(1, 1, 9))
    assert not ledger.obeys(Authority(0, 9, 9))
    assert ledger.obeys(Authority(2, 0, 0))
    assert not Ledger(ledger.saved()).obeys(Authority(1, 9, 9))


def test_the_newest_attempt_is_wanted_and_older_ones_are_closed() -> None:
    ledger = Ledger()
    ledger.want(assign(1), SLOT, rank(1))
    assert ledger.record(SLOT).closed == LOWEST
    ledger.want(assign(2), SLOT, rank(2))
    record = ledger.record(SLOT)
    assert (record.highest, record.closed, record.assign) == (rank(2), rank(1), assign(2))


def test_closing_an_older_attempt_keeps_the_wanted_one() -> None:
    ledger = Ledger()
    ledger.want(assign(5), SLOT, rank(5))
    ledger.close(SLOT, rank(3))
    assert ledger.record(SLOT).assign == assign(5)
    ledger.close(SLOT, rank(5))
    ledger.close(SLOT, rank(4))
    record = ledger.record(SLOT)
    assert (record.closed, record.assign) == (rank(5), None)


def test_a_change_is_durable_when_its_version_is() -> None:
    ledger = Ledger()
    ledger.close(SLOT, rank(1))
    version = ledger.version
    ledger.close(SLOT, rank(2))
    ledger.written(version)
    assert not ledger.is_durable(SLOT)
    assert ledger.dirty
    assert ledger.written(ledger.version) == [SLOT]
    assert ledger.is_durable(SLOT)
    assert not ledger.dirty


def test_the_first_certificate_of_an_attempt_stands_and_their_number_is_bounded() -> None:
    ledger = Ledger()
    ledger.certify(SLOT, certificate(1))
    ledger.certify(SLOT, Certificate(rank(1), 1, Exit(9, "Failed")))
    assert ledger.record(SLOT).certificates == (certificate(1),)
    for n in range(2, MOST_CERTIFICATES + 5):
        ledger.certify(SLOT, certificate(n))
    kept = ledger.record(SLOT).certificates
    assert [c.rank.attempt.n for c in kept] == list(range(5, MOST_CERTIFICATES + 5))
    ledger.acknowledge(SLOT, frozenset(c.rank for c in kept[1:]))
    assert ledger.record(SLOT).certificates == kept[:1]


def test_forgotten_slots_are_covered_by_the_floor() -> None:
    ledger = Ledger()
    slots = [SlotName("acme", "web", "main", index) for index in range(MOST_IDLE_RECORDS + 3)]
    ledger.want(assign(1), SlotName("acme", "kept", "main", 0), rank(1))
    for number, slot in enumerate(slots, 1):
        ledger.close(slot, rank(number))
    assert len(ledger.saved().records) == MOST_IDLE_RECORDS + 1
    after = Ledger(ledger.saved())
    assert after.record(slots[0]).closed == rank(3)
    assert after.record(SlotName("acme", "new", "main", 0)).closed == rank(3)
    assert after.record(SlotName("acme", "kept", "main", 0)).assign is not None
    assert after.record(slots[-1]).closed == rank(len(slots))
