"""What a slot's runs in containers wrote: the engine's frames, each with its time, kept when a container goes.

A frame is a head of eight bytes (stream, three zeros, length) and `<time> <bytes>`. The file `log` in a run's folder
holds frames as the engine gave them, in order of time; so a place in the output is a time, whether it is still the
engine's or already ours, and keeping the same output twice changes nothing.
"""

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from agent.drivers.driver import Cursor
from agent.drivers.run_folder import MOST_LOG_BYTES

_HEAD = struct.Struct(">BxxxI")


class Entry(NamedTuple):
    at_ns: int
    data: bytes
    frame: bytes


def entries(raw: bytes) -> Iterator[Entry]:
    """Up to a torn last frame."""
    at = 0
    while at + _HEAD.size <= len(raw):
        _, size = _HEAD.unpack_from(raw, at)
        end = at + _HEAD.size + size
        if end > len(raw):
            return
        when, _, data = raw[at + _HEAD.size : end].partition(b" ")
        yield Entry(_nanoseconds(when), data, raw[at:end])
        at = end


def _nanoseconds(when: bytes) -> int:
    """Of 2026-01-31T12:00:00.123456789Z."""
    whole, _, fraction = when.decode(errors="replace").removesuffix("Z").partition(".")
    try:
        seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
        return seconds * 10**9 + int(fraction.ljust(9, "0")[:9] or "0")
    except ValueError:
        return 0


def read(folder: Path) -> list[Entry]:
    try:
        return list(entries((folder / "log").read_bytes()))
    except OSError:
        return []


def keep(folder: Path, raw: bytes, log_bytes: int) -> None:
    """Adds what is not kept yet; the oldest goes when it is too much. Raises OSError."""
    kept = read(folder)
    last_ns = kept[-1].at_ns if kept else 0
    kept += [entry for entry in entries(raw) if entry.at_ns > last_ns]
    size = sum(len(entry.frame) for entry in kept)
    first = 0
    while first < len(kept) and size > log_bytes:
        size -= len(kept[first].frame)
        first += 1
    temporary = folder / "log.new"
    temporary.write_bytes(b"".join(entry.frame for entry in kept[first:]))
    temporary.replace(folder / "log")


def tail(kept: Sequence[Entry], lines: int) -> tuple[bytes, Cursor]:
    """The last lines, and where to read on."""
    text = b"".join(entry.data for entry in kept).splitlines(keepends=True)[-max(lines, 1) :]
    return b"".join(text)[-MOST_LOG_BYTES:], Cursor(0, kept[-1].at_ns if kept else 0)


def after(kept: Sequence[Entry], cursor: Cursor) -> tuple[bytes, Cursor]:
    """What came later than `cursor`."""
    later = [entry for entry in kept if entry.at_ns > cursor.offset]
    return b"".join(entry.data for entry in later), Cursor(0, later[-1].at_ns if later else cursor.offset)
