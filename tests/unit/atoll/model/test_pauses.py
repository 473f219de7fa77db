"""Pauses double up to a bound, and those who wait do not come back together."""

from atoll.model.pauses import doubled_ms, stretched_ms

MANY = [f"acme/web/main/{index}/7.{index}" for index in range(1_000)]


def test_a_pause_doubles_up_to_the_longest_give_or_take_a_quarter() -> None:
    for tries, about_ms in ((0, 1_000), (1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (1_000, 5_000)):
        found = [doubled_ms(1_000, 5_000, tries, who) for who in MANY]
        assert about_ms * 0.75 <= min(found) < about_ms * 0.76
        assert about_ms * 1.24 < max(found) <= about_ms * 1.25
        assert found == [doubled_ms(1_000, 5_000, tries, who) for who in MANY]


def test_pauses_are_even_over_their_range() -> None:
    """What fails at once comes back at a steady rate: no tenth of the range has more than twice its part."""
    found = [doubled_ms(100_000, 100_000, 1, who) - 75_000 for who in MANY]
    tenths = [sum(1 for ms in found if ms // 5_000 == tenth) for tenth in range(10)]
    assert max(tenths) < 200 and min(tenths) > 50


def test_a_stretched_pause_is_never_shorter() -> None:
    found = [stretched_ms(10_000, who) for who in MANY]
    assert min(found) >= 10_000 and 12_400 < max(found) <= 12_500 and len(set(found)) > 500
