"""What a region says to its scheduler workers, and what they answer, over a socket each.

A round: the classes to evaluate, and the news that the mirror of the node table needs first. A worker answers with the
number of each class when its answers stand in memory, and `OVER` when it finds nothing more to take. It says `READY`
when it has started.
"""

import pickle
import socket
import struct
from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter
from typing import NamedTuple

from regional.core.filters import Request
from regional.core.mirror import Job, News
from regional.workers.arena import Layout

_LENGTH = struct.Struct("<I")
ANSWER = struct.Struct("<II")  # round, class or one of:
READY, OVER = 0xFFFFFFFF, 0xFFFFFFFE
_fields = attrgetter(*(field.name for field in fields(Request)))


class Round(NamedTuple):
    number: int
    places: int  # deques
    begins: bool  # with a table that was not heard of before
    layout: Layout | None  # None: as before
    news: News
    jobs: bytes  # pickled for all workers at once


def packed_jobs(jobs: Iterable[Job]) -> bytes:
    """A request goes as its fields: as a dataclass it would take five times as long."""
    return pickle.dumps([(_fields(job.request), job.copies, job.seen) for job in jobs], pickle.HIGHEST_PROTOCOL)


def jobs_of(round_: Round) -> list[Job]:
    return [Job(Request(*request), copies, seen) for request, copies, seen in pickle.loads(round_.jobs)]


def packed(round_: Round) -> bytes:
    text = pickle.dumps(round_, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(text)) + text


def received(end: socket.socket) -> Round | None:
    """Waits for it; None: the region is gone."""
    if (head := _read(end, _LENGTH.size)) is None:
        return None
    text = _read(end, _LENGTH.unpack(head)[0])
    if text is None:
        return None
    round_: Round = pickle.loads(text)
    return round_


def _read(end: socket.socket, size: int) -> bytes | None:
    text = b""
    while len(text) < size:
        more = end.recv(size - len(text))
        if not more:
            return None
        text += more
    return text
