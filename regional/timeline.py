"""The bounded ring of events for people: what happened lately in this region. Memory only; the oldest fall out."""

from collections import deque
from collections.abc import Callable
from itertools import islice

from atoll.api.v1 import objects_pb2


class Timeline:
    """Numbers events from 1 in the order they were announced."""

    def __init__(self, limit: int) -> None:
        self._events: deque[tuple[int, objects_pb2.Event]] = deque(maxlen=limit)
        self._seq = 0

    def announce(self, event: objects_pb2.Event) -> None:
        self._seq += 1
        self._events.append((self._seq, event))

    def select(
        self, wanted: Callable[[objects_pb2.Event], bool], *, after_seq: int, limit: int
    ) -> list[objects_pb2.Event]:
        """Oldest first. Without a start the newest `limit` that are wanted; with one, the first after it."""
        if after_seq:
            later = ((seq, event) for seq, event in self._events if seq > after_seq and wanted(event))
            return [_numbered(seq, event) for seq, event in islice(later, limit)]
        newest = ((seq, event) for seq, event in reversed(self._events) if wanted(event))
        return [_numbered(seq, event) for seq, event in islice(newest, limit)][::-1]


def _numbered(seq: int, event: objects_pb2.Event) -> objects_pb2.Event:
    result = objects_pb2.Event(seq=seq)
    result.MergeFrom(event)  # a copy: published messages are never mutated
    return result
