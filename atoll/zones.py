"""Time zones by name: how far local time is from UTC at an instant. The rules are those of the tz database."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=1_024)
def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (LookupError, OSError, ValueError):  # not found, a folder, or no name at all
        return None


def offset_ms(name: str, at_ms: int) -> int | None:
    """None: there is no such zone."""
    zone = _zone(name)
    if zone is None:
        return None
    offset = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(zone).utcoffset()
    return offset // timedelta(milliseconds=1) if offset is not None else 0
