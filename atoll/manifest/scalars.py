"""Texts for single values: durations, instants and the names of enums. Each pair is exact both ways."""

import re
from datetime import UTC, datetime, timedelta
from functools import cache

from google.protobuf.descriptor import EnumDescriptor

LARGEST_MS = 253_402_300_799_999  # the last millisecond of year 9999
_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,12})m)?(?:(\d{1,12})s)?(?:(\d{1,15})ms)?")
_NOW = "now+"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCALES = (86_400_000, 3_600_000, 60_000, 1_000, 1)


class ScalarError(ValueError):
    """The text is no value of this kind. The message says what would be."""


def parse_duration(text: str, unit: str) -> int:
    """`1h30m`, `30s`, `500ms` in the unit a field's name ends in (`_ms` or `_s`). Raises ScalarError."""
    match = _DURATION.fullmatch(text)
    if not text or not match:
        hint = f"; did you mean {text}s?" if text.isdecimal() else ""
        raise ScalarError(f"{text!r} is not a duration, write for example 30s, 500ms or 1h30m{hint}")
    amount = sum(int(part) * scale for part, scale in zip(match.groups(default="0"), _SCALES, strict=True))
    if amount > LARGEST_MS:
        raise ScalarError(f"{text!r} is too long")
    if unit.endswith("_ms"):
        return amount
    if amount % 1000:
        raise ScalarError(f"{text!r} is finer than a second, which is the unit here")
    return amount // 1000


def format_duration(amount: int, unit: str) -> str:
    """The text with one unit that parses back to `amount`."""
    milliseconds = amount if unit.endswith("_ms") else amount * 1000
    for scale, name in zip(_SCALES, ("d", "h", "m", "s"), strict=False):
        if milliseconds and milliseconds % scale == 0:
            return f"{milliseconds // scale}{name}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def parse_instant(text: str, now_ms: int) -> int:
    """RFC 3339, or `now+2h`, as milliseconds since 1970. Raises ScalarError."""
    if text.startswith(_NOW):
        return now_ms + parse_duration(text.removeprefix(_NOW), "_ms")
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            raise ValueError
        return (instant - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        raise ScalarError(f"{text!r} is not a time, write for example 2026-01-31T12:00:00Z or now+2h") from None


def format_instant(at_ms: int) -> str:
    """RFC 3339 with milliseconds, in UTC. Outside the calendar the nearest end of it."""
    bounded = min(max(at_ms, -62_135_596_800_000), LARGEST_MS)
    instant = _EPOCH + timedelta(milliseconds=bounded)
    return instant.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


@cache
def enum_names(descriptor: EnumDescriptor) -> dict[str, int]:
    """`PRIORITY_BEST_EFFORT` is written `best-effort`. Without the unspecified value, which is an absent field."""
    prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", descriptor.name).upper() + "_"
    return {v.name.removeprefix(prefix).lower().replace("_", "-"): v.number for v in descriptor.values if v.number}


def parse_enum(text: str, descriptor: EnumDescriptor) -> int:
    """Accepts `on-failure`, and the spellings `OnFailure` and `ON_FAILURE` for the same. Raises ScalarError."""
    names = enum_names(descriptor)
    folded = {_fold(name): number for name, number in names.items()}
    if _fold(text) not in folded:
        raise ScalarError(f"{text!r} is not one of {', '.join(names)}")
    return folded[_fold(text)]


def format_enum(number: int, descriptor: EnumDescriptor) -> str | int:
    """The short name; a number this version does not know stays a number."""
    return next((name for name, known in enum_names(descriptor).items() if known == number), number)


def _fold(text: str) -> str:
    return text.replace("-", "").replace("_", "").lower()
