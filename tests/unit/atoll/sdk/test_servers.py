"""Which of several servers is asked next."""

from typing import Any, cast

import grpc.aio

from atoll import errors
from atoll.sdk.contexts import Connection
from atoll.sdk.servers import NO_ANSWER, Servers

SILENCE = errors.Unavailable("no answer", code=NO_ANSWER)


class Channel:
    """Answers every call with its address."""

    def __init__(self, address: str) -> None:
        self.address = address

    def unary_unary(self, path: str) -> Any:
        return lambda request: (self.address, path, request)


def servers(*addresses: str, programs: bool = False) -> Servers:
    return Servers(addresses, lambda address: cast("grpc.aio.Channel", Channel(address)), programs=programs)


def standby(leader: str) -> errors.Unavailable:
    return errors.Unavailable("standby", leader_people=leader, leader_programs=f"{leader}-programs")


def test_addresses_are_a_list_in_one_text() -> None:
    assert Connection("a:1, b:2 a:1").addresses == ("a:1", "b:2")


def test_a_method_goes_to_the_address_in_use() -> None:
    them = servers("a", "b")
    method = them.unary_unary("/x")
    assert method(1) == ("a", "/x", 1)
    them.turn(SILENCE)
    assert method(2) == ("b", "/x", 2)


def test_an_error_that_is_an_answer_changes_nothing() -> None:
    them = servers("a", "b")
    them.turn(errors.Invalid("no"))
    them.turn(errors.Busy("later"))
    assert them.address == "a"


def test_a_standbys_hint_is_followed_to_the_port_for_its_caller() -> None:
    for programs, wanted in ((False, "c"), (True, "c-programs")):
        them = servers("a", "b", programs=programs)
        them.turn(standby("c"))
        assert them.address == wanted


def test_hints_are_followed_once_until_somebody_has_answered() -> None:
    them = servers("a", "b")
    them.turn(standby("c"))
    them.turn(standby("d"))
    assert them.address == "a", "two standbys that name each other"
    them.turn(standby("d"))
    assert them.address == "b"
    them.answered()
    them.turn(standby("d"))
    assert them.address == "d"


def test_nobody_is_sent_back_to_the_leader_it_left_for_silence() -> None:
    them = servers("frozen", "standby")
    them.turn(SILENCE)
    them.turn(standby("frozen"))
    assert them.address == "frozen", "by its turn only"
    them.turn(SILENCE)
    assert them.address == "standby"
    them.answered()
    assert them.address == "standby"
