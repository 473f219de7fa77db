"""Amounts by account are counted apart, and records without an account are those of the hard one."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from atoll.api.v1 import objects_pb2
from atoll.model.accounts import BURST, HARD, NONE, ByAccount, by_account, charged_to, may_burst, summed
from atoll.model.resources import NOTHING, Vector

vectors = st.builds(Vector, *[st.integers(-9, 9)] * 4)
amounts = st.builds(ByAccount, vectors, vectors | st.just(NOTHING))


@given(one=amounts, other=amounts)
def test_each_account_is_counted_by_itself(one: ByAccount, other: ByAccount) -> None:
    for account in (HARD, BURST):
        mine, its = one.of(account), other.of(account)
        assert (one + other).of(account) == mine + its
        assert (one - other).of(account) == mine - its
        assert (-one).of(account) == -mine
        assert one.at_most(other).of(account) == mine.at_most(its)
        assert one.at_least(other).of(account) == mine.at_least(its)
    assert one.fits(other) == (one.hard.fits(other.hard) and one.burst.fits(other.burst))
    assert one.is_legal() == (one.hard.is_legal() and one.burst.is_legal())
    assert bool(one) == any((*one.hard, *one.burst))
    assert one.both == one.hard + one.burst and summed([one, other]) == one + other


def test_an_empty_burst_account_is_not_written_and_an_unnamed_one_is_hard() -> None:
    some = Vector(1, 2)
    assert list(NONE.written()) == [(HARD, NOTHING)]
    assert list(charged_to(BURST, some).written()) == [(HARD, NOTHING), (BURST, some)]
    charges = [
        objects_pb2.AccountCharge(charged=some.to_proto()),
        objects_pb2.AccountCharge(account=HARD, charged=some.to_proto()),
        objects_pb2.AccountCharge(account=BURST, charged=(some * 3).to_proto()),
    ]
    assert by_account(charges, lambda charge: charge.charged) == ByAccount(some * 2, some * 3)


@pytest.mark.parametrize("priority", objects_pb2.Priority.values())
def test_burst_pays_for_low_priorities_and_for_no_gang(priority: int) -> None:
    low = priority in (objects_pb2.PRIORITY_LOW, objects_pb2.PRIORITY_BEST_EFFORT)
    assert may_burst(priority, gang=False) == low and not may_burst(priority, gang=True)
