"""Cron expressions: which are none, when they fire, what they do when clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll import zones
from atoll.model.cron import MINUTE_MS, CronError, civil, compact_utc, parse

BERLIN = "Europe/Berlin"


def _ms(text: str, zone: str = "UTC") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def _berlin(at_ms: int) -> int:
    offset = zones.offset_ms(BERLIN, at_ms)
    assert offset is not None
    return offset


def _utc(at_ms: int) -> int:
    return 0


def _fires(text: str, after: str, count: int) -> list[str]:
    """Local times in Berlin, with their offset."""
    found, at = [], _ms(after, BERLIN)
    for _ in range(count):
        following = parse(text).next_ms(at, _berlin)
        assert following is not None
        at = following
        found.append(datetime.fromtimestamp(at / 1000, ZoneInfo(BERLIN)).isoformat(timespec="minutes"))
    return found


@pytest.mark.parametrize(
    "text",
    [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *",
        "*/0 * * * *", "5-1 * * * *", "1- * * * *", ",", "0 0 31 2 *", "0 0 30 feb *", "@reboot",
        "-1 * * * *", "1" * 300, "\uff11 * * * *", "1.5 * * * *",
    ],
)  # fmt: skip
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(CronError):
        parse(text)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(CronError) as told:
        parse("61 25 1 foo 2-1")
    assert str(told.value) == (
        "minute: '61' is not 0 to 59; hour: '25' is not 0 to 23; month: 'foo' is not 1 to 12, or jan to dec; "
        "day of week: '2-1' ends before it begins"
    )


def test_it_fires_as_cron_does() -> None:
    assert _fires("30 2 * * *", "2026-01-31T02:30", 2) == ["2026-02-01T02:30+01:00", "2026-02-02T02:30+01:00"]
    assert _fires("0 9 * * mon-fri", "2026-01-30T10:00", 1) == ["2026-02-02T09:00+01:00"]
    assert _fires("0 0 29 2 *", "2026-01-01T00:00", 2) == ["2028-02-29T00:00+01:00", "2032-02-29T00:00+01:00"]
    assert _fires("*/20 8-9 * jan,dec *", "2026-01-31T09:20", 2) == ["2026-01-31T09:40+01:00", "2026-12-01T08:00+01:00"]
    assert _fires("0 0 13 * 5", "2026-02-12T00:00", 2) == ["2026-02-13T00:00+01:00", "2026-02-20T00:00+01:00"]
    assert _fires("@weekly", "2026-01-31T00:00", 1) == ["2026-02-01T00:00+01:00"]
    assert _fires("0 0 * * 7", "2026-01-31T00:00", 1) == ["2026-02-01T00:00+01:00"]


def test_a_fixed_time_fires_once_a_day_when_clocks_change() -> None:
    assert _fires("30 2 * * *", "2026-03-28T03:00", 2) == ["2026-03-29T03:30+02:00", "2026-03-30T02:30+02:00"]
    assert _fires("30 2 * * *", "2026-10-24T03:00", 2) == ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]


def test_what_fires_every_hour_goes_on_through_the_change() -> None:
    assert _fires("30 * * * *", "2026-03-29T01:30", 2) == ["2026-03-29T03:30+02:00", "2026-03-29T04:30+02:00"]
    assert _fires("30 * * * *", "2026-10-25T01:30", 3) == [
        "2026-10-25T02:30+02:00",
        "2026-10-25T02:30+01:00",
        "2026-10-25T03:30+01:00",
    ]


FIELD = st.sampled_from(["*", "*/7", "3", "1-5", "2,4", "1-6/2"])


@given(st.tuples(FIELD, FIELD, FIELD, FIELD, st.sampled_from(["*", "1", "mon-wed"])), st.integers(0, 2_000_000))
def test_next_and_last_agree_with_a_walk_over_all_minutes(fields: tuple[str, ...], start: int) -> None:
    cron = parse(" ".join(fields))
    at = _ms("2026-01-01T00:00") + start * MINUTE_MS
    following = cron.next_ms(at, _utc)
    assert following is not None and following > at
    assert cron.last_ms(following, at, _utc) == following
    assert cron.last_ms(following - 1, at, _utc) is None
    when = datetime.fromtimestamp(following / 1000, UTC)
    assert when.minute in cron.minutes and when.hour in cron.hours and when.month in cron.months
    for minute in range(at // MINUTE_MS + 1, min(following // MINUTE_MS, at // MINUTE_MS + 3_000)):
        now = datetime.fromtimestamp(minute * 60, UTC)
        by_month, by_week = now.day in cron.days, now.isoweekday() % 7 in cron.weekdays
        days = by_month or by_week if cron.either_day else by_month and by_week
        assert not (days and now.minute in cron.minutes and now.hour in cron.hours and now.month in cron.months)


@given(st.integers(-100_000, 1_000_000))
def test_days_have_their_dates(day: int) -> None:
    then = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)
    assert civil(day) == (then.year, then.month, then.day)


def test_a_minute_is_written_without_signs() -> None:
    assert compact_utc(_ms("2026-11-23T02:05")) == "202611230205"


def test_zones_are_known_by_name() -> None:
    assert zones.offset_ms(BERLIN, _ms("2026-07-01T00:00")) == 2 * 3_600_000
    assert zones.offset_ms("UTC", 0) == 0
    for nonsense in ("", "Mars/Olympus", "../etc/passwd", "Europe", "/etc/localtime", "a\0b", "x" * 1_000):
        assert zones.offset_ms(nonsense, 0) is None
