"""Which address is dialled next, and after which pause."""

from regional.core.uplink_route import Route

FIRST, STANDBY, LONGEST, LEFT_OUT = 200, 500, 2_000, 12_000


def route(*addresses: str) -> Route:
    return Route(addresses, left_out_ms=LEFT_OUT, first_ms=FIRST, standby_ms=STANDBY, longest_ms=LONGEST)


def test_addresses_have_their_turns() -> None:
    way = route("a", "b")
    assert [way.next(0) for _ in range(4)] == ["a", "b", "a", "b"]


def test_a_standbys_word_is_followed_once() -> None:
    way = route("a", "b", "c")
    assert way.next(0) == "a"
    way.refused("c")
    assert way.next(0) == "c"
    assert way.next(0) == "a", "the turn after c's"
    way.refused("elsewhere")
    assert way.next(0) == "elsewhere", "also to an address that is not in the list"
    way.refused("")
    assert way.next(0) == "b"


def test_a_silent_leader_is_left_out_whoever_names_it() -> None:
    way = route("frozen", "standby")
    assert way.next(0) == "frozen"
    way.ended("frozen", 6_000, welcomed=True, silent=True)
    for now_ms in range(6_000, 6_000 + LEFT_OUT, 1_000):
        assert way.next(now_ms) == "standby"
        way.refused("frozen")
    assert way.next(6_000 + LEFT_OUT) == "frozen"


def test_where_all_are_silent_each_has_its_turn() -> None:
    way = route("a", "b")
    for address in ("a", "b"):
        way.ended(address, 0, welcomed=False, silent=True)
    assert [way.next(0) for _ in range(4)] == ["a", "b", "a", "b"]


def test_one_that_is_not_there_may_be_there_soon() -> None:
    way = route("restarting", "standby")
    way.next(0)
    way.ended("restarting", 0, welcomed=False, silent=False)
    assert way.next(0) == "standby"
    way.refused("restarting")
    assert way.next(0) == "restarting"


def test_pauses_double_and_are_short_while_a_standby_answers() -> None:
    way = route("a")
    pauses = [way.ended("a", 0, welcomed=False, silent=False) for _ in range(6)]
    assert pauses == [200, 400, 800, 1_600, 2_000, 2_000]
    assert [way.refused("") for _ in range(2)] == [STANDBY, STANDBY]
    assert way.ended("a", 0, welcomed=True, silent=False) == FIRST
