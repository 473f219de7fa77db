"""Which of several servers is asked next."""

from typing import Any, cast

import grpc.aio
import pytest

from atoll import errors
from atoll.sdk import servers as sdk_servers
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


def test_who_was_left_for_silence_is_left_out_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(sdk_servers.time, "monotonic", lambda: now_s)
    them = servers("frozen", "standby")
    them.turn(SILENCE, silent=True)
    for _ in range(5):
        them.turn(standby("frozen"))
        assert them.address == "standby", "neither as a hint nor by its turn"
    now_s += sdk_servers.LEFT_OUT_S
    them.turn(standby("frozen"))
    assert them.address == "frozen"
    them.answered()
    assert them.address == "frozen"


def test_who_speaks_again_is_no_longer_left_out() -> None:
    them = servers("a", "b")
    them.turn(SILENCE, silent=True)
    them.turn(SILENCE, silent=True)
    assert them.address == "a"
    them.turn(standby(""))
    them.turn(standby(""))
    assert them.address == "a", "b has said nothing, and a has"


def test_where_all_are_silent_each_has_its_turn() -> None:
    them = servers("a", "b", "c")
    asked = []
    for _ in range(6):
        asked.append(them.address)
        them.turn(SILENCE, silent=True)
    assert asked == ["a", "b", "c"] * 2


def test_a_hint_from_the_only_address_is_left_again_for_its_silence() -> None:
    them = servers("standby")
    them.turn(standby("frozen"))
    assert them.address == "frozen"
    them.turn(SILENCE, silent=True)
    them.turn(standby("frozen"))
    assert them.address == "standby"


def test_a_leader_whose_connection_broke_is_asked_again_when_a_standby_names_it() -> None:
    them = servers("leader", "standby")
    them.turn(SILENCE)
    assert them.address == "standby"
    them.turn(standby("leader"))
    assert them.address == "leader"
