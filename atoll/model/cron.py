"""Cron expressions of five fields: when they fire, in a time zone, by plain arithmetic.

minute hour day-of-month month day-of-week, each `*`, a number, a name (jan, mon), a range, a list, a step. Where both
days are restricted either is enough, as cron has always had it. What fires at a fixed hour fires once a day also when
clocks change: at the first of two such times, and after the jump when there is none. What fires every hour follows the
clock on the wall through both. A time zone is a function from an instant to its offset from UTC.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

Zones = Callable[[str, int], int | None]  # the same by name of a zone; None: there is no such zone
Offset = Callable[[int], int]  # of local time from UTC in milliseconds, at an instant in milliseconds
MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
LONGEST = 200  # characters
_FOREVER_MS = 1 << 62
_YEARS = 8  # without a 29th of February at most
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...], int], ...] = (  # name, lowest, highest, names, the first's number
    ("minute", 0, 59, (), 0),
    ("hour", 0, 23, (), 0),
    ("day of month", 1, 31, (), 0),
    ("month", 1, 12, _MONTHS, 1),
    ("day of week", 0, 7, _WEEKDAYS, 0),
)
_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


def utc_only(name: str, at_ms: int) -> int | None:
    """The zones of a world without a tz database."""
    return 0 if name == "UTC" else None


class CronError(ValueError):
    """The text is no cron expression; the message says why."""


@dataclass(frozen=True, slots=True)
class Cron:
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 = Sunday
    every_hour: bool
    either_day: bool  # both days are restricted

    def next_ms(self, after_ms: int, offset: Offset) -> int | None:
        """The first instant behind `after_ms`; None: never."""
        day = (after_ms + offset(after_ms)) // DAY_MS
        for ahead in range(-1, _YEARS * 366):
            first: int | None = None
            for local_ms, offsets in self._times(day + ahead, offset, after_ms):
                if first is not None and local_ms - offsets[0] >= first:
                    break  # what follows is later
                for at in self._instants(local_ms, offsets, offset):
                    if at > after_ms and (first is None or at < first):
                        first = at
            if first is not None:
                return first
        return None

    def last_ms(self, until_ms: int, after_ms: int, offset: Offset) -> int | None:
        """The last instant up to `until_ms` and behind `after_ms`; None: there is none."""
        day = (until_ms + offset(until_ms)) // DAY_MS
        first = (after_ms + offset(after_ms)) // DAY_MS - 1
        for back in range(day + 1, first - 1, -1):
            last: int | None = None
            for local_ms, offsets in self._times(back, offset, after_ms, until_ms, backwards=True):
                if last is not None and local_ms - offsets[-1] <= last:
                    break  # what follows is earlier
                for at in self._instants(local_ms, offsets, offset):
                    if after_ms < at <= until_ms and (last is None or at > last):
                        last = at
            if last is not None:
                return last
        return None

    def _times(
        self, day: int, offset: Offset, after_ms: int, until_ms: int = _FOREVER_MS, *, backwards: bool = False
    ) -> Iterator[tuple[int, list[int]]]:
        """The times of one local day, counted from 1970-01-01, with the offsets around it, the largest first: in order
        those that may be instants behind `after_ms` and up to `until_ms`."""
        _, month, of_month = civil(day)
        by_month, by_week = of_month in self.days, (day + 4) % 7 in self.weekdays
        if month not in self.months or not (by_month or by_week if self.either_day else by_month and by_week):
            return
        noon = day * DAY_MS + DAY_MS // 2
        offsets = sorted({offset(noon - DAY_MS), offset(noon), offset(noon + DAY_MS)}, reverse=True)
        low_ms, high_ms = after_ms + offsets[-1], until_ms + offsets[0]  # on a clock on the wall
        order = -1 if backwards else 1
        for hour in self.hours[::order]:
            hour_ms = day * DAY_MS + hour * HOUR_MS
            if hour_ms + HOUR_MS <= low_ms or hour_ms > high_ms:
                continue
            for minute in self.minutes[::order]:
                if low_ms < hour_ms + minute * MINUTE_MS <= high_ms:
                    yield hour_ms + minute * MINUTE_MS, offsets

    def _instants(self, local_ms: int, offsets: list[int], offset: Offset) -> list[int]:
        found = [local_ms - by for by in offsets if offset(local_ms - by) == by]
        if self.every_hour:
            return found
        return found[:1] or [local_ms - offset(local_ms - offsets[0] - HOUR_MS)]


@lru_cache(maxsize=1_024)
def parse(text: str) -> Cron:
    """Raises CronError."""
    fields = _MACROS.get(text.strip().lower(), text).lower().split()
    if len(text) > LONGEST or len(fields) != 5:
        raise CronError(
            "is no cron expression: minute hour day-of-month month day-of-week, for example 30 2 * * mon-fri"
        )
    minutes, hours, days, months, weekdays = _parts(fields)
    cron = Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(day % 7 for day in weekdays),
        every_hour=fields[1].startswith("*"),
        either_day=not fields[2].startswith("*") and not fields[4].startswith("*"),
    )
    if cron.next_ms(0, lambda at_ms: 0) is None:
        raise CronError("never fires: there is no such day")
    return cron


def _parts(fields: Sequence[str]) -> list[set[int]]:
    """Of each field what it matches. Raises CronError with what is wrong in any of them."""
    found: list[set[int]] = []
    wrong: list[str] = []
    for text, kind in zip(fields, _FIELDS, strict=True):
        try:
            found.append(_field(text, *kind))
        except CronError as error:
            wrong.append(str(error))
    if wrong:
        raise CronError("; ".join(wrong))
    return found


def _field(text: str, what: str, low: int, high: int, names: tuple[str, ...], base: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isascii() and step.isdecimal() and 1 <= int(step[:9]) <= high):
            raise CronError(f"{what}: {step[:20]!r} is no step, 1 to {high}")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(first, what, low, high, names, base)
            end = _number(last, what, low, high, names, base) if dash else high if slash else begin
        if end < begin:
            raise CronError(f"{what}: {span[:20]!r} ends before it begins")
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return found


def _number(text: str, what: str, low: int, high: int, names: tuple[str, ...], base: int) -> int:
    if text in names:
        return names.index(text) + base
    if not (text.isascii() and text.isdecimal() and low <= int(text[:9]) <= high):
        spelled = f", or {names[0]} to {names[-1]}" if names else ""
        raise CronError(f"{what}: {text[:20]!r} is not {low} to {high}{spelled}")
    return int(text)


def civil(day: int) -> tuple[int, int, int]:
    """Year, month and day of a day counted from 1970-01-01 (the algorithm of Howard Hinnant's `civil_from_days`)."""
    shifted = day + 719_468
    era, of_era = divmod(shifted, 146_097)
    year_of_era = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted_month = (5 * of_year + 2) // 153
    month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    return year_of_era + era * 400 + (month <= 2), month, of_year - (153 * shifted_month + 2) // 5 + 1


def compact_utc(at_ms: int) -> str:
    """202611230200: the minute of an instant, in UTC."""
    day, rest = divmod(at_ms, DAY_MS)
    year, month, of_month = civil(day)
    return f"{year:04}{month:02}{of_month:02}{rest // HOUR_MS:02}{rest % HOUR_MS // MINUTE_MS:02}"


def rfc3339(at_ms: int) -> str:
    """2026-11-23T02:00:00.000Z: an instant, in UTC."""
    day, rest = divmod(at_ms, DAY_MS)
    year, month, of_month = civil(day)
    hours, minutes = rest // HOUR_MS, rest % HOUR_MS // MINUTE_MS
    seconds, thousandths = divmod(rest % MINUTE_MS, 1_000)
    return f"{year:04}-{month:02}-{of_month:02}T{hours:02}:{minutes:02}:{seconds:02}.{thousandths:03}Z"
