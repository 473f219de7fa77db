"""Errors of a region on their way back, and the queue of one session."""

import pytest

from atoll.api.v1 import agent_pb2, regional_pb2
from atoll.errors import AtollError, Busy, Conflict, Expired, Invalid, Mistake, NotAllowed, NotFound, Unavailable
from atoll.status import detail_of
from global_cp.region_link import _Session, error_in


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("E1001", Invalid),
        ("E1004", NotFound),
        ("E1077", Invalid),
        ("E3001", Conflict),
        ("E4003", NotAllowed),
        ("E5008", Busy),
        ("E5011", Expired),
        ("E5099", Unavailable),
        ("E9999", AtollError),
        ("", AtollError),
    ],
)
def test_a_regions_error_keeps_its_code_and_kind(code: str, kind: type[AtollError]) -> None:
    error = error_in(regional_pb2.ForwardAnswer(error_code=code, error_message="why"))
    assert type(error) is kind and (error.code, error.message) == (code, "why")


def test_a_regions_error_comes_with_its_mistakes_and_hint() -> None:
    told = Invalid("why", (Mistake("node", "is wrong"),), hint="right it")
    answer = regional_pb2.ForwardAnswer(error_code=told.code, error_message=told.message, error_detail=detail_of(told))
    error = error_in(answer)
    assert (error.mistakes, error.hint) == (told.mistakes, told.hint)


def _message(address: str) -> regional_pb2.DownlinkMessage:
    return regional_pb2.DownlinkMessage(not_leader=agent_pb2.NotLeader(address=address))


async def test_a_session_delivers_in_order_and_ends_after_what_was_queued() -> None:
    session = _Session(1, "north", queue_limit=10)
    for name in "abc":
        session.send(_message(name))
    session.close("enough")
    assert [m.not_leader.address async for m in session.messages()] == ["a", "b", "c"]


LISTED = regional_pb2.DownlinkMessage(listed=regional_pb2.GlobalListed(term=1))


async def test_a_region_that_does_not_read_loses_its_session_and_nothing_is_skipped() -> None:
    session = _Session(1, "north", queue_limit=2)
    session.send(LISTED)
    messages = session.messages()
    assert await anext(messages) == LISTED
    for name in "abcd":
        session.send(_message(name))
    assert "fast enough" in session.closed
    assert [m.not_leader.address async for m in messages] == ["a", "b"]


async def test_a_region_may_be_told_more_than_the_queue_takes_when_it_is_back() -> None:
    session = _Session(1, "north", queue_limit=2)
    for name in "abcdef":
        session.send(_message(name))
    session.send(LISTED)
    assert not session.closed
    session.close("enough")
    assert [m.not_leader.address async for m in session.messages()] == [*"abcdef", ""]
